"""The arithmetic: figures that others measured, and what must hold for any model."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import LayerCache
from dspark_ops.kv.geometry import FLASH_0731, PlainGeometry
from dspark_ops.kv.plan import Capacity, Layout, in_flight
from dspark_ops.kv.records import RECORDS, record_of_dtype
from tests.unit.kv.cases import GOLDEN, GOLDEN_TOKENS, TABLE, TIE, Case, case_of, chance_case


def test_the_golden_case_is_the_figure_that_two_gb10_printed() -> None:
    plan = GOLDEN.ours()
    assert plan.tokens == GOLDEN_TOKENS
    assert (plan.block_bytes, plan.blocks, plan.request_blocks) == (991_040, 21_508, 7_450)


@pytest.mark.parametrize(("record", "in_flight_tokens"), TABLE)
def test_every_record_at_every_f(record: str, in_flight_tokens: int) -> None:
    assert case_of(record, in_flight_tokens).ours().tokens == TABLE[(record, in_flight_tokens)]


def test_page_sizes_are_those_of_vllm_issue_54703() -> None:
    pages = [group.page_bytes for group in case_of("fp8", 8192).ours().groups]
    assert pages == [861_120, 861_120, 1_002_240, 870_912, 656_640]


def test_a_page_is_padded_after_all_its_records() -> None:
    by_name = {layer.name: layer.page_bytes for layer in FLASH_0731.layers(RECORDS["fp8"])}
    assert by_name["model.layers.2.attn"] == 37_440
    assert by_name["model.layers.2.attn.swa_cache"] == 37_440
    assert by_name["model.layers.3.attn"] == 1_728
    assert by_name["model.layers.2.attn.indexer.k_cache"] == 8_640


def test_draft_layers_cost_only_when_something_drafts() -> None:
    record = RECORDS["fp8"]
    with_drafts, without = (FLASH_0731.layers(record, drafting=drafting) for drafting in (True, False))
    assert len(with_drafts) - len(without) == FLASH_0731.draft_layers


def test_of_two_depths_that_waste_the_same_the_larger_is_taken() -> None:
    assert [group.caches for group in TIE.ours().groups] == [3, 2, 7, 4, 3]


def test_draft_layers_do_not_widen_the_0731_block() -> None:
    record = RECORDS["fp8"]
    plans = [
        Layout.of(FLASH_0731.layers(record, drafting=drafting)).capacity(
            12 << 30, max_model_len=1_048_576, in_flight_tokens=8192
        )
        for drafting in (True, False)
    ]
    assert plans[0].tokens == plans[1].tokens


def test_asynchronous_scheduling_has_two_batches_in_flight() -> None:
    assert in_flight(8192, asynchronous=True) == 16_384
    assert in_flight(8192, asynchronous=False) == 8_192


@pytest.mark.parametrize(
    ("pool_bytes", "max_model_len", "tokens"), [(64 << 20, 4096, 65_536), (50 << 20, 1000, 50_000)]
)
def test_plain_attention_is_what_real_boots_printed(pool_bytes: int, max_model_len: int, tokens: int) -> None:
    tiny = PlainGeometry(layer_count=2, kv_heads=2, head_dim=32)
    layout = Layout.of(tiny.layers(ranks=1, element_bytes=4, block_tokens=128))
    assert layout.capacity(pool_bytes, max_model_len=max_model_len, in_flight_tokens=0).tokens == tokens


def test_fewer_heads_than_ranks_are_replicated() -> None:
    one = PlainGeometry(layer_count=1, kv_heads=1, head_dim=64)
    alone, paired = (one.layers(ranks=ranks, element_bytes=2, block_tokens=16) for ranks in (1, 2))
    assert alone == paired


def test_one_request_must_fit_beside_a_spare_block() -> None:
    case = case_of("fp8", 8192)
    needed = case.ours().request_blocks
    width = case.ours().block_bytes
    assert not case_of("fp8", 8192, pool_bytes=needed * width).ours().fits
    assert case_of("fp8", 8192, pool_bytes=(needed + 1) * width).ours().fits


def test_the_longest_length_is_the_longest_that_fits() -> None:
    small = case_of("fp8", 8192, pool_bytes=5 << 30).ours()
    assert not small.fits
    longest = small.longest_model_len
    assert longest is not None
    assert case_of("fp8", 8192, pool_bytes=5 << 30, max_model_len=longest).ours().fits
    assert not case_of("fp8", 8192, pool_bytes=5 << 30, max_model_len=longest + 1).ours().fits
    assert case_of("fp8", 8192, pool_bytes=1 << 20).ours().longest_model_len is None


def test_kinds_of_one_page_size_are_refused() -> None:
    full = LayerCache(name="model.layers.0.attn", kind="full", block_tokens=16, record_bytes=64)
    window = LayerCache(name="model.layers.1.attn", kind="window", block_tokens=16, record_bytes=64, window=8)
    with pytest.raises(ConfigError, match="one page size"):
        Layout.of((full, window))


def test_the_seeds_name_is_called_what_it_stores() -> None:
    alias = record_of_dtype("nvfp4_ds_mla", lane="seed")
    assert alias.name == "alias-584"
    assert "FP8 in a 584-byte envelope" in alias.label
    with pytest.raises(ConfigError, match="lane current"):
        record_of_dtype("nvfp4_ds_mla", lane="current")
    assert "not carried by this build" in RECORDS["nvfp4-384"].honest


@given(chance=st.randoms(use_true_random=False), more=st.integers(0, 1 << 30))
def test_more_memory_never_holds_less(chance: Random, more: int) -> None:
    case = chance_case(chance)
    before = _planned(case)
    case.pool_bytes += more
    after = _planned(case)
    if before is not None and after is not None:
        assert after.tokens >= before.tokens
        assert after.blocks - before.blocks <= more // before.block_bytes + 1


@given(chance=st.randoms(use_true_random=False), more=st.integers(1, 1 << 16))
def test_more_in_flight_never_holds_more(chance: Random, more: int) -> None:
    case = chance_case(chance)
    before = _planned(case)
    case.in_flight_tokens += more
    after = _planned(case)
    if before is not None and after is not None:
        assert after.tokens <= before.tokens
        assert after.block_bytes == before.block_bytes


@given(chance=st.randoms(use_true_random=False))
def test_the_pool_is_whole_blocks_and_no_cache_is_lost(chance: Random) -> None:
    case = chance_case(chance)
    plan = _planned(case)
    if plan is None:
        return
    assert sum(group.caches for group in plan.groups) == len(case.layers)
    assert 0 <= case.pool_bytes - plan.blocks * plan.block_bytes < plan.block_bytes
    assert plan.request_blocks == sum(group.request_blocks for group in plan.groups)
    assert abs(plan.tokens - plan.blocks * plan.max_model_len // plan.request_blocks) <= 1


def _planned(case: Case) -> Capacity | None:
    """The plan, or None where the plan says that it does not know the layout."""
    try:
        return case.ours()
    except ConfigError:
        return None
