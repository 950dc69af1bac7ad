"""The sequential test keeps what it promises, by following every path of it; bounds and exact tests as published."""

from __future__ import annotations

import random

import pytest

from dspark_ops.gates.sequential import (
    RELEASE,
    SequentialPlan,
    bound,
    burst_rate,
    fisher,
    intra_burst_correlation,
    mcnemar,
    operation,
    upper_bound,
)

# As a textbook has it, with errors of 5 % each.
NOMINAL = SequentialPlan(healthy=0.005, broken=0.05, alpha=0.05, beta=0.05, cap=2000)


def test_a_fault_in_one_of_twenty_bursts_is_rejected_with_95_percent() -> None:
    assert operation(RELEASE, 0.05).reject >= 0.95


def test_a_fault_in_one_of_twenty_requests_is_rejected_however_failures_hang_together() -> None:
    for correlation in ("none", "full"):
        assert operation(RELEASE, burst_rate(0.05, 6, correlation)).reject >= 0.95
    assert burst_rate(0.05, 6, "none") == pytest.approx(0.2649, abs=1e-4)


def test_a_healthy_server_is_rejected_in_less_than_one_run_of_a_hundred() -> None:
    assert operation(RELEASE, 0.005).reject <= 0.01
    assert operation(RELEASE, 0.0).reject == 0


def test_the_textbook_plan_would_not_keep_the_promise() -> None:
    nominal = operation(NOMINAL, 0.05)
    assert nominal.accept > 0.05
    assert operation(NOMINAL, 0.005).reject > 0.02


def test_every_path_ends_and_the_chances_add_up() -> None:
    for rate in (0.0, 0.005, 0.02, 0.05, 0.3, 1.0):
        found = operation(RELEASE, rate)
        assert found.accept + found.reject + found.undecided == pytest.approx(1)
        assert found.undecided < 0.06


def test_it_accepts_after_66_good_bursts_and_one_bad_burst_costs_more() -> None:
    assert RELEASE.still_to_go(0, 0) == 66
    assert [RELEASE.decide(0, good) for good in (65, 66)] == ["go-on", "accept"]
    assert RELEASE.decide(1, 0) == RELEASE.decide(1, 66) == "go-on"
    assert RELEASE.still_to_go(1, 10) > 66
    assert RELEASE.decide(3, 5) == "reject"
    assert RELEASE.decide(2, RELEASE.cap - 2) in ("accept", "undecided")


def test_the_walk_agrees_with_a_simulation_of_it() -> None:
    rng = random.Random(5)  # noqa: S311 - a simulation
    rejected = 0
    for _ in range(2000):
        bad = good = 0
        while (decision := RELEASE.decide(bad, good)) == "go-on":
            if rng.random() < 0.03:
                bad += 1
            else:
                good += 1
        rejected += decision == "reject"
    assert rejected / 2000 == pytest.approx(operation(RELEASE, 0.03).reject, abs=0.04)


@pytest.mark.parametrize(("bad", "trials", "upper"), [(0, 6, 0.393), (0, 10, 0.259), (0, 60, 0.049), (0, 300, 0.0099)])
def test_upper_bounds_as_published(bad: int, trials: int, upper: float) -> None:
    assert upper_bound(bad, trials) == pytest.approx(upper, rel=0.02)


def test_nothing_tried_bounds_nothing() -> None:
    assert upper_bound(0, 0) == upper_bound(6, 6) == 1.0
    assert bound([], 6).words == "no burst was judged: nothing is known"


def test_the_bound_is_said_in_words_per_burst_and_per_request() -> None:
    found = bound([0] * 66, 6)
    assert found.words.startswith("0 of 66 bursts were bad: at most 4.4 % of bursts are (95 %)")
    assert found.requests_upper == found.bursts_upper
    assert found.correlation is None
    assert "1 of 66 bursts was bad" in bound([0] * 65 + [2], 6).words


def test_requests_are_bounded_apart_only_where_the_correlation_is_known() -> None:
    alone, together = bound([1] * 8 + [0] * 58, 6), bound([6] * 8 + [0] * 58, 6)
    assert alone.correlation == pytest.approx(0, abs=0.05)
    assert together.correlation == 1.0
    assert alone.requests_upper < together.requests_upper <= together.bursts_upper
    assert "correlation within a burst 1.00" in together.words
    assert intra_burst_correlation([1] * 4 + [0] * 60, 6) is None


def test_exact_tests_as_published() -> None:
    assert fisher(11, 12, 0, 10) == pytest.approx(3.4e-5, rel=0.01)
    assert fisher(3, 10, 0, 10) == pytest.approx(0.21, abs=0.005)
    assert fisher(6, 60, 0, 60) == pytest.approx(0.027, abs=0.001)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(8, 0) < 0.01 < mcnemar(7, 0)
