"""What is rendered for a `current` site, given to the real 0.32.0 parser and configuration on a simulated GB10."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import load_profile, load_site
from dspark_ops.config.models import Role
from dspark_ops.config.release_names import release_names
from dspark_ops.deploy.spec import render_argv, render_env
from dspark_ops.paths import data_dir
from tests.release.conftest import EnginePython
from tests.release.current.conftest import MODEL, RELEASE, SIMULATED_GB10, Case

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

Judge = Callable[[Sequence[Case]], list[dict[str, Any]]]
#: By the part of the file that asked.
Answers = dict[str, list[dict[str, Any]]]
EXAMPLE = data_dir("inventories") / "example" / "site.yml"


def rendered(role: Role = "head", *overrides: str, profile: str = "current") -> Case:
    """The words and the engine's variables of one rank of the example site."""
    loaded = load_site(EXAMPLE, environ={}, profile=profile, overrides=[f"model.path={MODEL}", *overrides])
    variables = {
        name: value
        for name, value in render_env(loaded.site, loaded.profile, role).items()
        # The caches' directory does not exist in the test's container.
        if name.startswith("VLLM_") and name not in loaded.profile.image.caches
    }
    return Case(render_argv(loaded.site, loaded.profile, role), variables)


def of_current() -> list[Case]:
    """Both ranks with k 5, and with k 3."""
    three = "serve.speculative.tokens=3"
    return [rendered("head"), rendered("worker"), rendered("head", three), rendered("worker", three)]


def of_the_migration() -> list[Case]:
    """The head with every k that fp8-mtp offers, and the worker."""
    cases = [
        rendered("head", f"serve.speculative.tokens={k}", profile="fp8-mtp")
        for k in load_profile("fp8-mtp").legal_k["mtp"]
    ]
    return [*cases, rendered("worker", profile="fp8-mtp")]


@pytest.fixture(scope="module")
def answers(judge: Judge) -> Answers:
    """What the release says of every case below, in one process: to import it takes longer than all of them."""
    parts = {"current": of_current(), "migration": of_the_migration(), "wrong": list(wrong_cases().values())}
    told = iter(judge([case for cases in parts.values() for case in cases]))
    return {name: [next(told) for _ in cases] for name, cases in parts.items()}


def test_what_is_rendered_is_what_the_engine_builds(answers: Answers) -> None:
    """Both ranks, k 5 and 3: two nodes, DSpark, B12X, FP8 KV and indexer, the V2 runner, 1,048,576 tokens."""
    cases, told = of_current(), answers["current"]
    for number, (case, facts) in enumerate(zip(cases, told, strict=True)):
        assert facts["ok"], facts["error"]
        config = facts["config"]
        assert config["ok"], config["error"]
        assert config["nnodes"] == 2
        assert (config["tensor_parallel"], config["pipeline_parallel"]) == (2, 1)
        assert (config["method"], config["k"]) == ("dspark", 5 if number < 2 else 3)
        assert config["moe_backend"] == "b12x"
        assert config["kv_cache_dtype"] == "fp8_ds_mla"
        assert config["indexer_kv_dtype"] == "fp8"
        assert config["v2_runner"] is True
        assert config["max_model_len"] == 1_048_576
        assert (config["max_num_seqs"], config["max_num_batched_tokens"]) == (6, 8192)
        assert case.environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
        # The engine itself captures the steady shape, max_num_seqs x (k + 1).
        assert 6 * (config["k"] + 1) in config["capture_sizes"]
    assert [facts["parsed"]["node_rank"] for facts in told] == [0, 1, 0, 1]


def test_the_start_of_the_migration_is_what_the_engine_builds(answers: Answers) -> None:
    """Profile fp8-mtp, every k that it offers: MTP on the release of `current`, FP8 KV, the same backends."""
    counts = load_profile("fp8-mtp").legal_k["mtp"]
    for k, facts in zip((*counts, 2), answers["migration"], strict=True):
        assert facts["ok"], facts["error"]
        config = facts["config"]
        assert config["ok"], config["error"]
        assert (config["method"], config["k"]) == ("mtp", k)
        assert (config["tensor_parallel"], config["nnodes"]) == (2, 2)
        assert config["moe_backend"] == "b12x"
        assert config["kv_cache_dtype"] in {"fp8", "fp8_ds_mla"}
        assert config["v2_runner"] is True
        assert config["max_model_len"] == 1_048_576
        assert 6 * (k + 1) in config["capture_sizes"]


def test_the_names_are_the_releases_own(tree: Path, engine_python: EnginePython) -> None:
    """images/releases/0.32.0.json: what decides whether a site's variable or option is known."""
    script = (data_dir("images") / "releases" / "names.py").read_text(encoding="utf-8")
    done = engine_python([tree, SIMULATED_GB10], script, timeout_s=400)
    assert done.returncode == 0, done.stderr[-2000:]
    file = data_dir("images") / "releases" / f"{RELEASE}.json"
    assert json.loads(done.stdout) == json.loads(file.read_text(encoding="utf-8"))
    names = release_names(RELEASE)
    assert names is not None
    assert "b12x" in names.mxfp4_moe_backends
    assert "flashinfer_b12x" not in names.mxfp4_moe_backends


def changed(old: str, *new: str, **environment: str) -> Case:
    """The rendered words, past our own rules: without the one that begins with `old`, with those of `new`."""
    case = rendered()
    words = [word for word in case.argv if not (old and word.startswith(old))]
    return Case((*words, *new), {**case.environment, **environment})


#: Settings that `validate` refuses (tests/unit/config/test_engine_invariants.py) and the release refuses too, in words.
REFUSED_BY_THE_ENGINE = {
    "plain nvfp4": (changed("--kv-cache-dtype", "--kv-cache-dtype=nvfp4"), "not supported with MLA"),
    "unknown attention backend": (
        changed("", "--attention-backend=B12X_MLA_SPARSE"),
        "Unknown attention backend: 'B12X_MLA_SPARSE'",
    ),
    "longer than RoPE": (
        changed("--max-model-len", "--max-model-len=1500000"),
        "User-specified max_model_len (1500000) is greater",
    ),
    "V1 runner": (changed("", VLLM_USE_V2_MODEL_RUNNER="0"), "Model Runner V1 does not support: dspark"),
    "misspelt option": (
        changed("", "--max-cudagraph-capture-sise=48"),
        "unrecognized arguments: --max-cudagraph-capture-sise",
    ),
}
#: These the release takes: they fail later, or answer wrongly, and nobody but `validate` says a word before the start.
ACCEPTED_BY_THE_ENGINE = {
    "k 4": changed("--speculative", '--speculative-config={"method":"dspark","num_speculative_tokens":4}'),
    "66 rows": changed("--max-num-seqs", "--max-num-seqs=11"),
    "utilisation": changed("--gpu-memory-utilization", "--gpu-memory-utilization=0.87"),
    "penalty": changed("", '--override-generation-config={"repetition_penalty": 1.05}'),
    "MoE backend of another format": changed("--moe-backend", "--moe-backend=flashinfer_b12x"),
    "unknown variable": changed("", VLLM_USE_B12X_MOE="1"),
    "small graphs": changed("", "--max-cudagraph-capture-size=12"),
    "RoPE overruled": changed("--max-model-len", "--max-model-len=1500000", VLLM_ALLOW_LONG_MAX_MODEL_LEN="1"),
    "pipeline parallel": changed("--pipeline", "--pipeline-parallel-size=2"),
    "label of another lane": changed("--kv-cache-dtype", "--kv-cache-dtype=nvfp4_ds_mla"),
}


def wrong_cases() -> dict[str, Case]:
    """All of both, by what is wrong."""
    return {what: case for what, (case, _) in REFUSED_BY_THE_ENGINE.items()} | ACCEPTED_BY_THE_ENGINE


def test_which_wrong_settings_the_release_refuses_and_which_it_takes(answers: Answers) -> None:
    told = dict(zip(wrong_cases(), answers["wrong"], strict=True))
    errors = {what: facts["error"] or facts["config"]["error"] for what, facts in told.items()}
    assert {what for what, error in errors.items() if error is None} == set(ACCEPTED_BY_THE_ENGINE), errors
    for what, (_, words) in REFUSED_BY_THE_ENGINE.items():
        assert words in errors[what]
    small = told["small graphs"]["config"]["capture_sizes"]
    assert max(small) <= 12, "the steady shape of 36 rows has no graph, without a word"
