"""Boot logs: real ones of a CPU rank, and the lines of a GPU rank as vLLM 0.32.0's source prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import NoVerdictError
from dspark_ops.kv.bootlog import BootFacts, parse_boot_log
from dspark_ops.kv.compare import compare, pool_of_log
from dspark_ops.kv.geometry import FLASH_0731, PlainGeometry
from dspark_ops.kv.memory import rounded_pool
from dspark_ops.kv.records import RECORDS
from dspark_ops.kv.setting import Setting
from tests.unit.kv.conftest import LOGS

SETTING = Setting(
    model="0731",
    geometry=FLASH_0731,
    record=RECORDS["fp8"],
    max_num_batched_tokens=8192,
    asynchronous=False,
    max_model_len=1_048_576,
    ranks=2,
    drafting=True,
    block_tokens=256,
)
TINY = SETTING.model_copy(
    update={
        "geometry": PlainGeometry(layer_count=2, kv_heads=2, head_dim=32),
        "record": None,
        "max_num_batched_tokens": None,
        "max_model_len": 4096,
        "ranks": 1,
        "element_bytes": 4,
        "block_tokens": 128,
    }
)


def gpu_log(tokens: int, *, available: tuple[float, ...] = (12.0, 12.0), length: int = 1_048_576) -> str:
    """What two GPU ranks print of it, by the formats of gpu_worker.py and kv_cache_utils.py."""
    lines = [
        f"(Worker_TP{rank} pid=7{rank}) INFO 11-25 06:40:36 [gpu_worker.py:759] "
        f"Available KV cache memory: {gib:.2f} GiB"
        for rank, gib in enumerate(available)
    ]
    lines.append(
        f"(EngineCore pid=16) INFO 11-25 06:40:36 [kv_cache_utils.py:2327] GPU KV cache size: {tokens:,} tokens, "
        f"Maximum concurrency for {length:,} tokens per request: {tokens / length:.2f}x"
    )
    return "\n".join(lines)


def real(name: str) -> BootFacts:
    facts = parse_boot_log((LOGS / name).read_text(encoding="utf-8"))
    assert facts is not None
    return facts


def test_a_real_boot_is_read() -> None:
    facts = real("fixed.log")
    assert (facts.tokens, facts.max_model_len, facts.concurrency) == (65_536, 4_096, 16.0)
    assert (facts.pool_bytes, facts.memory_gib) == (67_108_864, (0.06,))
    assert (facts.vllm, facts.kv_cache_dtype, facts.ranks) == ("0.32.0", "auto", 1)
    assert facts.asynchronous is None
    assert real("odd.log").asynchronous is False


@pytest.mark.parametrize(("name", "length"), [("fixed.log", 4096), ("odd.log", 1000)])
def test_the_plan_agrees_with_real_boots(name: str, length: int) -> None:
    facts = real(name)
    verdict = compare(facts, TINY.model_copy(update={"max_model_len": length}), pool_of_log(facts))
    assert verdict.agrees
    assert verdict.planned_tokens == facts.tokens


def test_prefixes_colours_and_older_lines_are_read() -> None:
    text = (
        "\x1b[1;36m2026-11-25T06:40:36Z spark-head\x1b[0m | INFO [x.py:1] Available KV cache memory: 12.00 GiB\r\n"
        "spark-head | INFO [x.py:2] # GPU blocks: 12856, # CPU blocks: 0\n"
        "spark-head | INFO [x.py:2] GPU KV cache size: 1,809,462 tokens\n"
        "spark-head | INFO [x.py:3] Maximum concurrency for 1,048,576 tokens per request: 1.73x\n"
    )
    facts = parse_boot_log(text)
    assert facts is not None
    assert (facts.tokens, facts.max_model_len, facts.blocks, facts.memory_gib) == (
        1_809_462,
        1_048_576,
        12_856,
        (12.0,),
    )


def test_the_last_boot_counts_and_the_other_rank_is_heard() -> None:
    start = "(APIServer pid=1) INFO [api_utils.py:286] non-default args: {'max_model_len': 4096}\n"
    other = start + "(Worker_TP1 pid=9) INFO [gpu_worker.py:759] Available KV cache memory: 11.00 GiB\n"
    text = start + gpu_log(111) + "\n" + start + gpu_log(1_658_673, available=(12.0,)) + "\n" + other
    facts = parse_boot_log(text)
    assert facts is not None
    assert facts.tokens == 1_658_673
    assert facts.memory_gib == (12.0, 11.0)
    pool = pool_of_log(facts)
    assert pool is not None
    assert pool.pool_bytes == 11 << 30


def test_a_log_without_a_size_has_no_figure() -> None:
    assert parse_boot_log("") is None
    assert parse_boot_log("INFO Available KV cache memory: 12.00 GiB\n") is None


def test_a_size_without_its_memory_is_no_verdict() -> None:
    facts = parse_boot_log(gpu_log(1_809_462, available=()))
    assert facts is not None
    with pytest.raises(NoVerdictError, match="1,809,462 tokens"):
        compare(facts, SETTING, None)


def test_the_planned_figure_agrees_within_one_block() -> None:
    exact = SETTING.capacity(12 << 30)
    per_block = 1_048_576 / exact.request_blocks
    pool = rounded_pool(12.0, "test").model_copy(update={"low_bytes": 12 << 30, "high_bytes": 12 << 30})
    for blocks, agrees in ((-2, False), (-1, True), (0, True), (1, True), (2, False)):
        facts = BootFacts(tokens=int(exact.tokens + blocks * per_block), max_model_len=1_048_576)
        assert compare(facts, SETTING, pool).agrees is agrees, blocks


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"asynchronous": True}, "asynchronous scheduling on"),
        ({"record": RECORDS["alias-584"]}, "record alias-584"),
        ({"record": RECORDS["nvfp4-384"]}, "record nvfp4-384 "),
        ({"max_model_len": 262_144}, "max_model_len 262144 instead of 1048576"),
    ],
)
def test_the_lever_that_explains_a_difference_is_named(change: dict[str, object], named: str) -> None:
    real_setting = SETTING.model_copy(update=change)
    pool = rounded_pool(12.0, "test").model_copy(update={"low_bytes": 12 << 30, "high_bytes": 12 << 30})
    facts = BootFacts(tokens=real_setting.capacity(12 << 30).tokens, max_model_len=real_setting.max_model_len)
    verdict = compare(facts, SETTING, pool)
    assert not verdict.agrees
    assert any(named in text for text in verdict.explained_by), verdict.explained_by


def test_two_levers_together_are_named_when_one_is_not_enough() -> None:
    both = SETTING.model_copy(update={"asynchronous": True, "max_model_len": 524_288})
    facts = BootFacts(tokens=both.capacity(12 << 30).tokens, max_model_len=524_288)
    pool = rounded_pool(12.0, "test")
    verdict = compare(facts, SETTING, pool)
    assert "max_model_len 524288 instead of 1048576 and asynchronous scheduling on (two batches in flight)" in (
        verdict.explained_by
    )


def test_a_figure_that_nothing_explains_says_so() -> None:
    facts = parse_boot_log(gpu_log(777))
    assert facts is not None
    verdict = compare(facts, SETTING, None)
    assert not verdict.agrees
    assert verdict.explained_by == ()


def test_another_number_of_ranks_explains_a_plain_cache() -> None:
    facts = real("fixed.log")
    verdict = compare(facts, TINY.model_copy(update={"ranks": 2}), pool_of_log(facts))
    assert verdict.explained_by == ("tensor parallelism 1 instead of 2",)


@given(st.text())
def test_any_text_is_read_without_a_crash(text: str) -> None:
    parse_boot_log(text)


@given(st.integers(0, 10**12), st.integers(1, 1 << 20), st.text(alphabet="abc |:[]()0", max_size=30))
def test_a_size_is_found_behind_any_prefix(tokens: int, length: int, prefix: str) -> None:
    line = f"GPU KV cache size: {tokens:,} tokens, Maximum concurrency for {length:,} tokens per request: 1.00x"
    facts = parse_boot_log(f"noise\n{prefix} {line}\nnoise")
    assert facts is not None
    assert (facts.tokens, facts.max_model_len) == (tokens, length)
