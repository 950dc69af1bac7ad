"""Lane `current` on the release's own trees: the plugin as its stages install it, and a GB10 that is simulated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.images.changes import apply
from dspark_ops.images.release_tree import release_tree
from dspark_ops.images.stages import load_stages
from dspark_ops.paths import cache_dir, data_dir
from tests.release.conftest import EnginePython

RELEASE = "0.32.0"
SIMULATED_GB10 = Path(__file__).resolve().parents[1] / "gb10sim"
MODEL_CONFIG = Path(__file__).with_name("model_config.json")
#: Where the scripts make the model's directory: the configuration, and the tokenizer that the engine image has.
MODEL = "/tmp/model"

PLUGIN_SCRIPT = """
import logging, os, sys
import vllm.plugins
logging.getLogger("vllm.dspark").addHandler(logging.StreamHandler(sys.stderr))
logging.getLogger("vllm.dspark").setLevel(logging.INFO)
vllm.plugins.load_general_plugins()
import dspark_vllm.boot
dspark_vllm.boot.register()
"""

#: argv[1]: a list of {argv, environment}; prints what engine_check says of each, configuration included.
_CONFIG_SCRIPT = f"""
import contextlib, json, os, shutil, sys
from pathlib import Path
with contextlib.redirect_stdout(sys.stderr):
    # There is no Triton for this CPU; the release's code asks whether there is one, and compiles nothing here.
    import vllm.triton_utils, vllm.triton_utils.importing
    vllm.triton_utils.HAS_TRITON = vllm.triton_utils.importing.HAS_TRITON = True
    sys.path.insert(0, {str(data_dir("images") / "verify")!r})
    import engine_check
    place = Path({MODEL!r})
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path("/models/scripted") / name, place)
    shutil.copy({str(MODEL_CONFIG)!r}, place / "config.json")
    told = []
    for case in json.loads(sys.argv[1]):
        before = dict(os.environ)
        os.environ.update(case["environment"])
        told.append(engine_check.argument_facts(case["argv"], build=True))
        os.environ.clear()
        os.environ.update(before)
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Case:
    """Words of `vllm serve` and the variables beside them."""

    argv: Sequence[str]
    environment: dict[str, str]


@pytest.fixture(scope="session")
def tree() -> Path:
    """The Python tree of the aarch64 CUDA wheel: byte for byte what runs on a GB10."""
    return release_tree("vllm", RELEASE, cache_dir())


@pytest.fixture(scope="session")
def install(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A site-packages with the plugin alone, as the change engine installs it; `upto` stages, three by default."""
    place = tmp_path_factory.mktemp("plugins")

    def installed(upto: int = 3) -> Path:
        root = place / f"plugin-{upto}"
        if root.is_dir():
            return root
        about = f"vllm-{RELEASE}.dist-info"
        shutil.copytree(tree / about, root / about)
        apply(root, [stage.changes for stage in load_stages("current")], upto=upto)
        shutil.rmtree(root / about)
        return root

    return installed


@pytest.fixture(scope="session")
def judge(tree: Path, install: Callable[..., Path], engine_python: EnginePython) -> Callable[..., list[dict[str, Any]]]:
    """What the real parser and configuration of the release say of some cases, on the simulated GB10."""

    def judged(cases: Sequence[Case]) -> list[dict[str, Any]]:
        question = json.dumps([{"argv": list(case.argv), "environment": case.environment} for case in cases])
        done = engine_python(
            [tree, SIMULATED_GB10, install()],
            _CONFIG_SCRIPT,
            question,
            timeout_s=400,
            environment={"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
            readable=[data_dir("images") / "verify", MODEL_CONFIG],
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told: list[dict[str, Any]] = json.loads(done.stdout)
        return told

    return judged
