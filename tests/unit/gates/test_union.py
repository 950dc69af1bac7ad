"""Oracle, echo and likelihood together see every garble at every place; each of them is needed for some of it."""

from __future__ import annotations

import random

import pytest

from dspark_ops.gates.case import CaseKind
from dspark_ops.gates.oracles import judge
from tests.unit.gates.answers import answer, case_of
from tests.unit.gates.garbled import ROWS, garble
from tests.unit.gates.union import Judges, seen_by, tally

# `code` runs a process per answer; once is enough here, benchmarks/gate_detectors.py does more.
QUICK: tuple[CaseKind, ...] = ("arithmetic", "needle", "sorting", "json", "report", "second-turn")


@pytest.fixture(scope="module")
def judges() -> Judges:
    return Judges()


@pytest.mark.parametrize(("kinds", "seeds"), [(QUICK, range(3)), (("code",), range(1))])
def test_every_garble_fails_and_every_right_answer_passes(
    judges: Judges, kinds: tuple[CaseKind, ...], seeds: range
) -> None:
    rows, missed, healthy = tally(judges, seeds, kinds)
    assert missed == []
    assert healthy == {"pass": len(seeds) * len(kinds)}
    assert set(rows) == set(ROWS)
    assert all(found["n"] == found["all three"] > 0 for found in rows.values())


def test_a_fluent_wrong_value_is_for_the_oracle_alone(judges: Judges) -> None:
    for kind in QUICK:
        case = case_of(kind, 11)
        text = garble("wrong but fluent", "middle", case.ground_truth()[0], case, random.Random(1))  # noqa: S311
        assert seen_by(judges.judge(case, text)) == {"oracle"}


def test_the_prompt_told_again_within_the_form_is_for_the_echo_alone() -> None:
    for seed in range(6):
        case = case_of("report", seed)
        lines = case.ground_truth()[0].split("\n")
        lines[2] += " " + " ".join(case.request.messages[0]["content"].split()[10:34]).replace("#", "")
        verdict = judge(case, answer("\n".join(lines)))
        assert verdict.outcome == "fail"
        assert seen_by(verdict) == {"echo"}


def test_some_words_from_nowhere_within_the_form_are_for_likelihood_alone(judges: Judges) -> None:
    alone = 0
    for seed in range(12):
        case = case_of("report", seed)
        lines = case.ground_truth()[0].split("\n")
        lines[2] += (
            " Umbrella thereof quickly bishop oblique tuning mauve hence porcelain fetch downstream vortex whom."
        )
        verdict = judges.judge(case, "\n".join(lines))
        assert verdict.outcome == "fail"
        alone += seen_by(verdict) == {"likelihood"}
    assert alone == 12
