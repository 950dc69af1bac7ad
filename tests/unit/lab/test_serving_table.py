"""The table of the fault matrix: counts with a bound, goals beside, nothing that was not run passes as run."""

from __future__ import annotations

import pytest

from tests.lab.serving_table import render, spread, upper_bound
from tests.lab.serving_timeline import Expect, Measured

GOOD = Measured("process", 3.0, 50.0, 51.5, right=9, lost=2, cloud=0, wrong=0, false_actions=0)
BAD = Measured("canary", 12.0, None, None, right=0, lost=5, cloud=1, wrong=1, false_actions=1, problems=("it hung",))
EXPECT = Expect("restart", detect_goal_s=10.0)


@pytest.mark.parametrize(
    ("failures", "trials", "bound"), [(0, 20, 0.139), (0, 1, 0.95), (1, 20, 0.216), (5, 5, 1.0), (0, 100, 0.0295)]
)
def test_the_bound_is_the_exact_one(failures: int, trials: int, bound: float) -> None:
    assert upper_bound(failures, trials) == pytest.approx(bound, abs=0.001)


@pytest.mark.parametrize(("failures", "trials"), [(0, 0), (2, 1), (-1, 5)])
def test_a_share_of_nothing_is_refused(failures: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= failures <= trials"):
        upper_bound(failures, trials)


def test_a_goal_is_judged_by_the_slowest_and_what_is_unknown_is_told() -> None:
    assert spread([3.0, 5.0, 4.0], 10.0, 3) == "4.0 (5.0) <= 10"
    assert spread([3.0, 12.0], 10.0, 2) == "7.5 (12.0) OVER 10"
    assert spread([3.0, None], 10.0, 2) == "3.0 (3.0) 1/2 <= 10"
    assert spread([None, None], 10.0, 2) == "-"
    assert spread([3.0], None, 1) == "3.0 (3.0)"


def test_a_row_counts_over_its_trials_and_every_problem_is_told() -> None:
    text = render({"kill": (EXPECT, [GOOD, BAD]), "empty": (EXPECT, [])}, {"loss": "no netem here"})
    (row,) = [line for line in text.splitlines() if line.startswith("| kill")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "kill", "restart", "1/2", "97 %", "process 1, canary 1", "7.5 (12.0) OVER 10", "50.0 (50.0) 1/2",
        "-", "51.5 (51.5) 1/2", "7", "1", "1", "1",
    ]  # fmt: skip
    assert "- kill, trial 2: it hung" in text
    assert "- loss: not run: no netem here" in text
    assert "| empty" not in text
