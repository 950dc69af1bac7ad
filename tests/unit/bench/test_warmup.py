"""The warm-up: it ends when the rate stands still, and only then, or at its bound."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dspark_ops.bench.records import WarmUp
from dspark_ops.bench.warmup import is_steady, rate_of, warm_up
from dspark_ops.openai_api.model import Answer
from tests.unit.bench.answers import failed_answer, made_answer


def _answer(rate: float) -> Answer:
    return made_answer(last_s=12.0 + 96 / rate)


def _run(rates: Sequence[float | None], *, least: int = 5, most: int = 20, change: float = 0.03) -> tuple[WarmUp, int]:
    asked = 0

    async def ask(number: int) -> Answer:
        nonlocal asked
        asked += 1
        rate = rates[min(number, len(rates) - 1)]
        return failed_answer() if rate is None else _answer(rate)

    done = asyncio.run(warm_up(ask, arm="a", at_s=1.0, least=least, most=most, change=change, say=lambda _: None))
    return done, asked


def test_a_rate_that_climbs_is_waited_for() -> None:
    climbing = [58.5, 66.0, 72.0, 78.0, 80.0, 82.5, 83.1, 83.3, 83.2, 83.4, 83.3]
    done, asked = _run(climbing)
    assert done.stable
    assert asked == 10  # 82.5 to 83.4 are the first five within 3 %
    assert done.rates == pytest.approx(climbing[:10])


def test_at_least_five_are_asked_for_even_if_all_are_alike() -> None:
    assert _run([50.0])[1] == 5
    assert _run([50.0], least=7)[1] == 7


def test_a_rate_that_never_stands_still_ends_at_the_bound_and_says_so() -> None:
    done, asked = _run([50.0, 60.0] * 10, most=8)
    assert (done.stable, asked) == (False, 8)
    assert "8 generations" in done.why


def test_a_slow_drift_is_not_steady() -> None:
    assert not is_steady([100.0, 101.5, 103.0, 104.5, 106.0], 0.03)
    assert is_steady([100.0, 101.0, 100.5, 101.5, 102.9], 0.03)
    assert not is_steady([100.0] * 4, 0.03)


def test_a_failure_breaks_the_row_and_is_counted() -> None:
    done, asked = _run([50.0, 50.0, 50.0, 50.0, None, 50.0])
    assert (done.stable, done.failures, asked) == (True, 1, 10)
    assert len(done.rates) == 9
    nothing, asked = _run([None], most=6)
    assert (nothing.stable, nothing.failures, asked) == (False, 6, 6)


def test_time_that_is_over_ends_it() -> None:
    async def ask(_: int) -> Answer:
        return _answer(50.0)

    done = asyncio.run(
        warm_up(ask, arm="", at_s=0.0, least=5, most=20, change=0.03, say=lambda _: None, over=lambda: True)
    )
    assert not done.stable
    assert done.rates == ()


def test_a_server_that_does_not_tell_the_first_chunk_can_still_be_warmed_up() -> None:
    assert rate_of(made_answer(n1=None)) == pytest.approx(25.0)
    assert rate_of(made_answer()) == pytest.approx(24.0)
    assert rate_of(made_answer(usage=None, n1=None)) is None
    assert rate_of(failed_answer()) is None
