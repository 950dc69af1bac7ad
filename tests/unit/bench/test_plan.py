"""What a plan makes of its blocks: all cells alike, in random order that the seed decides, arms A B B A."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from dspark_ops.bench.corpus.model import CONTENT_CLASSES, ContentClass
from dspark_ops.bench.plan import PROFILES, BenchPlan, make_blocks, open_block

KEYS: dict[ContentClass, tuple[str, ...]] = {name: tuple(f"{name}-{i}" for i in range(12)) for name in CONTENT_CLASSES}


def _cells(plan: BenchPlan) -> Counter[tuple[Any, ...]]:
    return Counter((b.content_class, b.concurrency, b.cache, b.arm) for b in make_blocks(plan, KEYS))


def test_every_round_has_every_cell_once() -> None:
    plan = BenchPlan(rounds=3)
    cells = _cells(plan)
    assert set(cells.values()) == {3}
    assert len(cells) == 7 * 4 * 2 + 2  # and the mixed ones at 6
    for round_ in range(3):
        blocks = [b for b in make_blocks(plan, KEYS) if b.round == round_]
        assert len(blocks) == len(cells)


def test_the_order_is_random_and_the_seed_decides_it() -> None:
    first, again, other = (make_blocks(BenchPlan(seed=seed), KEYS) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    orders = [
        [(b.content_class, b.concurrency, b.cache) for b in blocks if b.round == round_]
        for blocks in (first, other)
        for round_ in (0, 1, 2)
    ]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])
    assert [block.index for block in first] == list(range(len(first)))


def test_a_block_uses_every_prompt_before_any_comes_again() -> None:
    for block in make_blocks(BenchPlan(per_block=12), KEYS):
        if block.content_class != "mixed":
            assert set(block.prompts) == set(KEYS[block.content_class])


def test_a_block_has_a_request_for_every_stream() -> None:
    blocks = make_blocks(BenchPlan(per_block=2, concurrency=(1, 6)), KEYS)
    assert {len(b.prompts) for b in blocks if b.concurrency == 6} == {6}


def test_two_arms_take_turns_in_both_orders_with_the_same_prompts() -> None:
    plan = BenchPlan(arms=("a", "b"), rounds=2, mixed_at=None)
    blocks = make_blocks(plan, KEYS)
    for one, two in zip(blocks[::2], blocks[1::2], strict=True):
        assert (one.content_class, one.concurrency, one.cache) == (two.content_class, two.concurrency, two.cache)
        assert one.prompts == two.prompts
        assert [one.arm, two.arm] == (["a", "b"] if one.round == 0 else ["b", "a"])


def test_the_mixed_blocks_and_the_open_one_leave_the_predictable_class_out() -> None:
    plan = BenchPlan()
    mixed = [block for block in make_blocks(plan, KEYS) if block.content_class == "mixed"]
    opened = open_block(plan, KEYS, 99)
    assert opened is not None
    assert (opened.load, opened.index, len(opened.prompts)) == ("open", 99, plan.open_requests)
    for block in [*mixed, opened]:
        kinds = {key.rsplit("-", 1)[0] for key in block.prompts}
        assert "predictable" not in kinds
        assert len(kinds) == 6


def test_a_class_without_prompts_has_no_blocks() -> None:
    some: dict[ContentClass, tuple[str, ...]] = {"code": KEYS["code"]}
    assert {block.content_class for block in make_blocks(BenchPlan(), some)} == {"code"}
    assert open_block(BenchPlan(open_requests=0), KEYS, 0) is None
    assert open_block(BenchPlan(), {}, 0) is None


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_bounded_and_set_the_sampling(name: str) -> None:
    plan = PROFILES[name]()
    assert plan.profile == name
    assert plan.max_tokens >= 512
    assert plan.warmup_min == 5
    assert 0 < plan.budget_s <= 4 * 3600
    assert PROFILES[name](seed=7, temperature=0.0).temperature == 0.0


def test_the_standard_profile_has_what_a_published_figure_needs() -> None:
    plan = PROFILES["standard"]()
    assert plan.concurrency == (1, 2, 4, 6)
    assert plan.caches == ("cold", "warm")
    assert plan.classes == CONTENT_CLASSES
    assert plan.prompts_per_class >= 12
    assert plan.rounds * plan.per_block >= 30
    assert plan.open_requests >= 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ()},
        {"concurrency": (0,)},
        {"arms": ("a", "a")},
        {"arms": ("a", "b", "c")},
        {"warmup_min": 9, "warmup_max": 8},
        {"budget_s": 0},
        {"top_p": 0},
        {"unknown": 1},
    ],
)
def test_what_makes_no_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BenchPlan.model_validate(wrong)
