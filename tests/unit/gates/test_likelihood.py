"""Likelihood: what a plain forward pass would not have said is found, and nothing is claimed without a baseline."""

from __future__ import annotations

import math
import random

import pytest

from dspark_ops.gates.likelihood import FEWEST, Baseline, learn, likelihood, unlikely
from dspark_ops.gates.oracles import judge
from tests.unit.gates.answers import case_of, right


def drawn(seed: int, tokens: int, mean: float) -> list[float]:
    rng = random.Random(seed)  # noqa: S311
    return [-rng.expovariate(1 / mean) for _ in range(tokens)]


def baseline() -> Baseline:
    return learn({"report": [drawn(seed, 180, 0.35) for seed in range(12)]})


def test_means_windows_and_openings() -> None:
    read = likelihood([-1.0] * 4 + [0.0] * 100 + [-3.2] * 10 + [0.0] * 22)
    assert read is not None
    assert read.tokens == 136
    assert read.opening == pytest.approx(1.0)
    assert read.window == pytest.approx(1.0)
    assert read.mean == pytest.approx(36 / 136)
    short = likelihood([-2.0, -4.0])
    assert short is not None
    assert (short.mean, short.window, short.opening) == (3.0, 3.0, 3.0)


def test_healthy_answers_are_below_their_limits() -> None:
    limits = baseline()
    for seed in range(100, 600):
        assert unlikely("report", drawn(seed, 150 + seed % 100, 0.35), limits) == (), seed


def test_a_whole_a_part_and_a_beginning_from_nowhere_are_found() -> None:
    limits = baseline()
    salad = drawn(1, 180, 0.35)[:20] + [-8.0] * 160
    assert {r.code for r in unlikely("report", salad, limits) or ()} >= {"unlikely-mean", "unlikely-window"}
    patch = drawn(2, 180, 0.35)
    patch[80:100] = [-7.0] * 20
    assert [r.code for r in unlikely("report", patch, limits) or ()] == ["unlikely-window"]
    opening = [-9.0, -8.0, -6.0, -5.0, *drawn(3, 180, 0.35)]
    assert [r.code for r in unlikely("report", opening, limits) or ()] == ["unlikely-opening"]


def test_without_numbers_or_a_baseline_nothing_is_judged() -> None:
    limits = baseline()
    assert unlikely("report", None, limits) is None
    assert unlikely("report", [], limits) is None
    assert unlikely("report", [math.nan] * 50, limits) is None
    assert unlikely("report", [-1.0] * 50, None) is None
    assert unlikely("json", [-1.0] * 50, limits) is None
    assert learn({"report": [drawn(n, 50, 0.3) for n in range(FEWEST - 1)]}) == {}
    assert learn({"report": [[] for _ in range(20)]}) == {}


def test_an_impossible_token_is_a_number_too() -> None:
    limits = baseline()
    assert unlikely("report", [-math.inf, *drawn(1, 100, 0.3)], limits)


def test_answers_that_are_all_alike_leave_room_for_the_next_one() -> None:
    limits = learn({"report": [[-0.01] * 100] * 10})
    assert unlikely("report", [-0.5] * 100, limits) == ()
    assert unlikely("report", [-2.0] * 100, limits)


def test_the_verdict_says_whether_likelihood_was_judged() -> None:
    case = case_of("report")
    good = right(case, prompt_logprobs=tuple(drawn(1, 150, 0.35)))
    assert "likelihood" in judge(case, good, baseline=baseline()).judged
    assert "likelihood" not in judge(case, good).judged
    bad = right(case, prompt_logprobs=tuple(drawn(1, 150, 6.0)))
    verdict = judge(case, bad, baseline=baseline())
    assert verdict.outcome == "fail"
    assert all(reason.code.startswith("unlikely") for reason in verdict.reasons)
