"""The plugin of lane `current` against real releases: it says what it is, and refuses what it was not written on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.engine_invariants import KV_RECORDS_CARRIED
from dspark_ops.images.release_tree import release_tree
from dspark_ops.paths import cache_dir
from tests.release.conftest import EnginePython
from tests.release.current.conftest import PLUGIN_SCRIPT, SIMULATED_GB10

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

Install = Callable[..., Path]
LINE = (
    "dspark: KV layout fp8_ds_mla (584 B/token and layer, FP8, pages of a multiple of 576 B), stages A+B+C, vLLM 0.32.0"
)


def test_one_line_a_process_on_the_cuda_release(tree: Path, install: Install, engine_python: EnginePython) -> None:
    done = engine_python([tree, SIMULATED_GB10, install()], PLUGIN_SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("dspark: ") == 1
    assert LINE in done.stderr


def test_one_line_a_process_on_the_cpu_release(install: Install, engine_python: EnginePython) -> None:
    done = engine_python([install()], PLUGIN_SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("dspark: ") == 1
    assert f"{LINE}; used by DeepSeek V4, other models keep their own" in done.stderr


def test_the_front_end_says_it_before_vllm_logs(install: Install, engine_python: EnginePython) -> None:
    """The argument parser loads the plugins, and nothing has set up logging by then."""
    script = "from vllm.entrypoints.cli.main import main; import sys; sys.argv = ['vllm', 'serve', '--help']; main()"
    done = engine_python([install()], script)
    assert done.stderr.count(LINE) == 1


@pytest.mark.parametrize(("upto", "said"), [(1, "stages A (missing: B+C)"), (2, "stages A+B (missing: C)")])
def test_a_missing_stage_is_said(install: Install, engine_python: EnginePython, upto: int, said: str) -> None:
    done = engine_python([install(upto)], PLUGIN_SCRIPT)
    assert done.returncode == 0, done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("nvfp4-384", ["is known but refused", "its kernels are not carried by this build", "expected fp8"]),
        ("fp8-584", ["is known but refused", "576 bytes"]),
        ("nvfp4", ["is no KV record", "expected fp8"]),
    ],
)
def test_a_record_that_is_not_carried_ends_the_process(
    install: Install, engine_python: EnginePython, record: str, words: list[str]
) -> None:
    done = engine_python([install()], PLUGIN_SCRIPT, environment={"DSPARK_KV_RECORD": record})
    assert done.returncode != 0
    assert "RecordError: dspark:" in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_site_may_select_what_the_plugin_carries_and_nothing_else(
    install: Install, engine_python: EnginePython
) -> None:
    script = (
        "from dspark_vllm.records import RECORDS; print(*sorted(n for n, r in RECORDS.items() if r.refused is None))"
    )
    done = engine_python([install()], script)
    assert done.stdout.split() == sorted(KV_RECORDS_CARRIED)


@pytest.mark.parametrize(
    ("version", "differs"),
    [
        ("0.33.0", ["sparse_swa.DeepseekV4SWACache.__init__: signature observed"]),
        (
            "0.28.0",
            ["attention._resolve_dsv4_kv_cache_dtype: source observed sha256 809a125f9fc2, expected a7b0b5b3cd9b"],
        ),
    ],
)
def test_another_release_is_refused_by_name(
    install: Install, engine_python: EnginePython, version: str, differs: list[str]
) -> None:
    foreign = release_tree("vllm", version, cache_dir())
    done = engine_python([foreign, SIMULATED_GB10, install()], PLUGIN_SCRIPT)
    assert done.returncode != 0
    assert (
        f"ForeignReleaseError: dspark: this is not the vLLM that the plugin was written on: vLLM observed {version}, "
    )
    for words in (f"vLLM observed {version}, expected 0.32.0", *differs):
        assert words in done.stderr


def _edited(tree: Path, target: Path, before: str, after: str) -> Path:
    """A copy of the release with one edit of its attention module."""
    shutil.copytree(tree, target)
    module = target / "vllm/models/deepseek_v4/attention.py"
    text = module.read_text(encoding="utf-8")
    assert text.count(before) == 1
    module.write_text(text.replace(before, after), encoding="utf-8")
    return target


def test_one_byte_in_a_guarded_function_is_refused(
    tree: Path, install: Install, engine_python: EnginePython, tmp_path: Path
) -> None:
    edited = _edited(
        tree,
        tmp_path / "edited",
        "state_content_bytes=584 if uses_fp8_ds_mla_layout else None,",
        "state_content_bytes=585 if uses_fp8_ds_mla_layout else None,",
    )
    done = engine_python([edited, SIMULATED_GB10, install()], PLUGIN_SCRIPT)
    assert done.returncode != 0
    assert "DeepseekV4Attention.get_kv_cache_spec: source observed sha256" in done.stderr


def test_a_function_that_somebody_else_rebound_is_refused(
    tree: Path, install: Install, engine_python: EnginePython
) -> None:
    """b12x registers plugins of its own: whoever comes first must not change what is promised here."""
    script = (
        "import vllm.v1.attention.backends.mla.sparse_swa as swa\n"
        "swa.DeepseekV4SWACache.get_kv_cache_spec = lambda self, vllm_config: None\n" + PLUGIN_SCRIPT
    )
    done = engine_python([tree, SIMULATED_GB10, install()], script)
    assert done.returncode != 0
    assert "DeepseekV4SWACache.get_kv_cache_spec: bound to a function of" in done.stderr


def test_the_releases_own_specs_have_the_envelopes_numbers(
    tree: Path, install: Install, engine_python: EnginePython
) -> None:
    """Stage C's numbers are what the planner is given: 64 tokens of a C4 page and of a window page are 37,440 bytes."""
    script = """
from types import SimpleNamespace as Fake
import torch
from dspark_vllm.envelope import envelope_of
from dspark_vllm.records import RECORDS
from vllm.models.deepseek_v4.attention import DeepseekV4Attention
from vllm.v1.attention.backends.mla.sparse_swa import DeepseekV4SWACache
envelope = envelope_of(RECORDS["fp8"])
config = Fake(cache_config=Fake(block_size=256, cache_dtype="fp8_ds_mla"))
layer = Fake(compress_ratio=4, kv_cache_dtype="fp8_ds_mla", kv_cache_torch_dtype=torch.uint8, head_dim=512)
main = DeepseekV4Attention.get_kv_cache_spec(layer, config)
cache = Fake(cache_config=config.cache_config, bounded_replay=False, block_size=64, head_dim=512, dtype=torch.uint8,
             window_size=128, packed_bytes_per_token=envelope.token_bytes,
             packed_page_alignment=envelope.page_alignment_bytes)
window = DeepseekV4SWACache.get_kv_cache_spec(cache, config)
print(main.state_content_bytes == envelope.token_bytes, main.alignment == envelope.page_alignment_bytes)
print(main.page_size_bytes, window.page_size_bytes)
"""
    done = engine_python([tree, SIMULATED_GB10, install()], script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True", "True", "37440", "37440"]
