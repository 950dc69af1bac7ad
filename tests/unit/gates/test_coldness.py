"""Each thing that a burst must show, taken away one at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dspark_ops.gates.coldness import Watched, prove
from dspark_ops.openai_api.model import Answer, EngineCounters, Failure, Usage

WALL = datetime(2026, 11, 27, tzinfo=UTC)


def answer(sent_s: float = 10.0, first_s: float | None = 12.0, **changes: Any) -> Answer:
    usage = Usage(prompt_tokens=1000, completion_tokens=50, cached_tokens=changes.pop("cached", 0))
    return Answer(sent_s=sent_s, first_s=first_s, last_s=first_s, end_s=20.0, wall=WALL, usage=usage, **changes)


def counters(**changes: Any) -> EngineCounters:
    idle = {
        "at_s": 0.0,
        "running": 0,
        "waiting": 0,
        "prompt_tokens": 0,
        "generation_tokens": 0,
        "prefix_queries": 0,
        "prefix_hits": 0,
        "finished": {"stop": 0.0},
        "process_start": 1.7e9,
    }
    return EngineCounters(**(idle | changes))


def watched(**changes: Any) -> Watched:
    after = {"prompt_tokens": 6000, "generation_tokens": 300, "prefix_queries": 6000, "finished": {"stop": 6.0}}
    good: dict[str, Any] = {
        "answers": tuple(answer(10.0 + n / 1000) for n in range(6)),
        "before": counters(),
        "after": counters(**(after | changes.pop("after", {}))),
        "samples": (counters(running=2, waiting=4), counters(running=6)),
    }
    return Watched(**(good | changes))


def codes(seen: Watched, **how: Any) -> list[str]:
    return [doubt.code for doubt in prove(seen, width=6, **how).doubts]


def test_a_cold_concurrent_burst_is_proven() -> None:
    proof = prove(watched(), width=6)
    assert proof.proven
    assert (proof.most_running, proof.hits, proof.finished) == (6, 0, 6)
    assert proof.spread_s == pytest.approx(0.005)
    assert proof.overlap_s == pytest.approx(1.995)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"before": None}, "no-metrics"),
        ({"after_gone": True}, "no-metrics"),
        ({"after": {"prefix_hits": 16}}, "prefix-hits"),
        ({"after": {"prompt_tokens_cached": 32}, "before": counters(prompt_tokens_cached=0)}, "cached-tokens"),
        ({"answers": (*(answer(10.0) for _ in range(5)), answer(10.0, cached=16))}, "cached-tokens"),
        ({"after": {"prefix_hits": None}}, "no-counter"),
        ({"after": {"prompt_tokens": 5000}}, "prompt-tokens"),
        ({"answers": (*(answer(10.0) for _ in range(5)), answer(10.051))}, "t0-spread"),
        ({"samples": (counters(running=5, waiting=1),)}, "not-concurrent"),
        ({"samples": ()}, "no-samples"),
        ({"samples": (counters(running=7),)}, "foreign-requests"),
        ({"after": {"finished": {"stop": 6.0, "length": 1.0}}}, "foreign-requests"),
        ({"after": {"finished": {"stop": 5.0}}}, "unaccounted"),
        ({"after": {"finished": None}}, "no-counter"),
        ({"before": counters(running=1)}, "foreign-requests"),
        ({"after": {"waiting": 1}}, "foreign-requests"),
        ({"after": {"running": None}}, "no-counter"),
        ({"after": {"process_start": 1.8e9}}, "restarted"),
        ({"after": {"process_start": None}}, "no-counter"),
        ({"before": counters(generation_tokens=900)}, "restarted"),
        ({"answers": tuple(answer() for _ in range(5)), "after": {"finished": {"stop": 5.0}}}, "width"),
        ({"answers": (*(answer(10.04) for _ in range(5)), answer(10.0, 10.03))}, "no-overlap"),
        ({"answers": tuple(answer(first_s=None) for _ in range(6))}, "no-overlap"),
    ],
)
def test_each_missing_piece_is_its_own_doubt(changes: dict[str, Any], code: str) -> None:
    seen = watched(**{k: v for k, v in changes.items() if k != "after_gone"})
    if changes.get("after_gone"):
        seen = seen.model_copy(update={"after": None})
    assert codes(seen) == [code]


def test_only_our_own_clock_may_be_late_without_blame() -> None:
    late = watched(answers=(*(answer(10.0) for _ in range(5)), answer(10.051)))
    assert [doubt.client for doubt in prove(late, width=6).doubts] == [True]
    assert not any(doubt.client for doubt in prove(watched(samples=()), width=6).doubts)


def test_a_request_that_failed_was_in_prefill_until_then() -> None:
    failed = answer(first_s=None, failure=Failure(kind="cut", message="gone"))
    seen = watched(answers=(*(answer() for _ in range(5)), failed), after={"finished": {"stop": 5.0, "abort": 1.0}})
    assert codes(seen) == []


def test_warm_by_intent_may_hit_the_cache_and_nothing_else() -> None:
    assert codes(watched(after={"prefix_hits": 900}), cold=False) == []
    assert codes(watched(after={"prefix_hits": 900, "process_start": 2e9}), cold=False) == ["restarted"]


def test_what_followed_each_other_need_not_run_at_once() -> None:
    seen = watched(samples=(counters(running=1),), answers=tuple(answer(10.0 + n) for n in range(6)))
    assert codes(seen, cold=False, together=False) == []
    assert codes(seen, cold=False) != []
