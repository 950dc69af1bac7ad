"""From a site and the command line to a setting and a pool; what is not known is asked for, never made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.kv.geometry import FLASH_0731, geometry_of
from dspark_ops.kv.memory import GIB, MIB, MemoryOptions, pool_of
from dspark_ops.kv.setting import Levers, setting_of
from tests.unit.kv.conftest import LOGS, ROOT, Load

V4_CONFIG = ROOT / "tests" / "release" / "current" / "model_config.json"


def test_the_built_in_geometry_is_that_of_the_config() -> None:
    assert geometry_of(json.loads(V4_CONFIG.read_text()), "test") == FLASH_0731


def test_the_site_alone_says_the_setting(current: Load) -> None:
    setting = setting_of(current(), Levers())
    assert setting.record is not None
    assert setting.record.name == "fp8"
    assert setting.in_flight_tokens == 16_384
    assert setting.drafting


def test_an_argument_of_the_site_switches_asynchronous_scheduling_off(current: Load) -> None:
    loaded = current('serve.extra_args=["--no-async-scheduling"]')
    assert not setting_of(loaded, Levers()).asynchronous
    assert setting_of(loaded, Levers(asynchronous=True)).asynchronous


def test_without_dspark_no_draft_layer_is_cached(current: Load) -> None:
    nothing = ("method=none", "tokens=null", "draft_sample_method=null")
    loaded = current(*(f"serve.speculative.{word}" for word in nothing))
    assert not setting_of(loaded, Levers()).drafting


def test_the_tiny_model_is_planned_from_its_own_config(rehearsal: Load) -> None:
    loaded = rehearsal()
    with pytest.raises(ConfigError, match="layers are not known"):
        setting_of(loaded, Levers())
    setting = setting_of(loaded, Levers(config=LOGS / "config.json"))
    pool = pool_of(MemoryOptions(), loaded.site.serve)
    assert (pool.pool_bytes, pool.sureness) == (64 * MIB, "exact")
    # Two ranks hold one head each: twice the tokens of the one rank whose log is kept.
    assert setting.capacity(pool.pool_bytes).tokens == 131_072


def test_a_draft_model_needs_its_config(rehearsal: Load) -> None:
    drafting = ("serve.speculative.method=draft_model", "serve.speculative.tokens=3")
    loaded = rehearsal(*drafting, "serve.speculative.draft_model=/models/draft")
    with pytest.raises(ConfigError, match="drafts with a model"):
        setting_of(loaded, Levers(config=LOGS / "config.json"))
    both = setting_of(loaded, Levers(config=LOGS / "config.json", draft_config=LOGS / "config.json"))
    assert both.capacity(64 * MIB).tokens == 65_536


def test_another_release_is_said_to_be_another(current: Load) -> None:
    notes = setting_of(current("profile=seed"), Levers()).notes
    assert any("0.22.1" in note for note in notes)


def test_the_layer_that_mtp_drafts_with_is_said_to_be_left_out(current: Load) -> None:
    notes = setting_of(current("profile=fp8-mtp"), Levers()).notes
    assert any("MTP layer is not counted" in note for note in notes)
    assert setting_of(current(), Levers()).notes == ()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "does not know"),
        ({"model_type": "deepseek_v4"}, "absent"),
        ({"model_type": "llama", "architectures": []}, "does not know"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": 4096}, "does not know"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_attention_heads": 0}, "not sound|absent"),
        ({"model_type": "deepseek_v4", "num_hidden_layers": 2, "compress_ratios": [4]}, "2 layers"),
        (
            {
                "model_type": "deepseek_v4",
                "num_hidden_layers": 1,
                "compress_ratios": [16],
                "sliding_window": 128,
                "head_dim": 512,
                "index_head_dim": 128,
            },
            "compress_ratios",
        ),
    ],
)
def test_a_config_that_is_not_understood_is_refused_by_name(document: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        geometry_of(document, "config.json")


def test_a_config_that_is_no_json_is_refused(current: Load, tmp_path: Path) -> None:
    for text in (b"", b"[1]", b"\xff"):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(ConfigError, match="config"):
            setting_of(current(), Levers(config=tmp_path / "config.json"))


def test_an_unknown_record_names_the_known_ones(current: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        setting_of(current(), Levers(record="nvfp4"))
    assert "nvfp4-384" in (refused.value.hint or "")


def test_without_a_size_the_missing_figures_are_named(current: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        pool_of(MemoryOptions(), current().site.serve)
    assert "--total-gib" in refused.value.message
    assert "--engine-gib" in refused.value.message
    with pytest.raises(ConfigError, match="engine-gib"):
        pool_of(MemoryOptions(total_gib=121), current().site.serve)


def test_an_estimate_is_called_one(current: Load) -> None:
    pool = pool_of(MemoryOptions(total_gib=121.0, engine_gib=82.0), current().site.serve)
    assert pool.sureness == "estimate"
    assert pool.pool_bytes == int((0.78 * 121.0 - 82.0) * GIB)
    with pytest.raises(ConfigError, match="leaves nothing"):
        pool_of(MemoryOptions(total_gib=121.0, engine_gib=100.0), current().site.serve)


def test_vllms_own_figure_is_known_to_two_decimals(current: Load) -> None:
    pool = pool_of(MemoryOptions(available_gib=12.34), current().site.serve)
    assert pool.sureness == "rounded"
    assert pool.low_bytes <= int(12.335 * GIB)
    assert pool.high_bytes >= int(12.345 * GIB)


@pytest.mark.parametrize(
    "options",
    [MemoryOptions(memory_gib=1, memory_bytes=1), MemoryOptions(memory_gib=0), MemoryOptions(memory_bytes=-1)],
)
def test_two_sizes_or_none_are_refused(current: Load, options: MemoryOptions) -> None:
    with pytest.raises(ConfigError):
        pool_of(options, current().site.serve)
