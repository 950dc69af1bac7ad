"""The run as a document and as a bar: every verdict has its exit code and its words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dspark_ops.gates.case import Reason
from dspark_ops.gates.coldness import Doubt
from dspark_ops.gates.outcome import GateVerdict, Judged, PartResult, RunResult
from dspark_ops.gates.report import Bar, bar_line, report_of
from dspark_ops.gates.sequential import bound
from dspark_ops.report.models import Report
from dspark_ops.report.text import render

BEGAN = datetime(2026, 11, 27, tzinfo=UTC)


def bad(number: int) -> Judged:
    reason = Reason(code="wrong-value", observed="RESULT: 41", expected="42")
    return Judged(name=f"bursts/{number}/0", kind="arithmetic", outcome="fail", reasons=(reason,))


def report(result: RunResult) -> Report:
    return report_of(result, [], level="release", target="here", folder="/runs/x", started_at=BEGAN)


@pytest.mark.parametrize(
    ("verdict", "word", "code"),
    [("pass", "ready", 0), ("review", "ready", 0), ("fail", "failed", 1), ("void", "indeterminate", 3)],
)
def test_each_verdict_has_its_exit_code(verdict: GateVerdict, word: str, code: int) -> None:
    made = report(RunResult(verdict=verdict, message="words"))
    assert (made.verdict, made.exit_code) == (word, code)
    assert made.findings[0].title == f"release gate: {verdict}"


def test_what_was_wrong_is_told_and_a_long_list_is_not() -> None:
    part = PartResult(name="bursts", title="bursts", asked=600, bad=50)
    made = report(RunResult(verdict="fail", message="no", parts=(part,), bad=tuple(bad(n) for n in range(50))))
    text = render(made)
    assert "wrong-value: RESULT: 41" in text
    assert "expected: 42" in text
    assert "30 more are in the run's folder" in [finding.observed for finding in made.findings]
    assert len(text.splitlines()) < 60


def test_a_void_run_says_what_was_not_shown() -> None:
    doubt = Doubt(code="prefix-hits", observed="16 tokens came out of the prefix cache", expected="0")
    made = report(RunResult(verdict="void", message="void", doubts=(doubt, doubt)))
    assert [(finding.id, finding.status) for finding in made.findings[1:]] == [("gate.proof.prefix-hits", "unknown")]


def test_the_bound_is_among_the_numbers() -> None:
    made = report(RunResult(verdict="pass", message="good", bound=bound([0] * 66, 6)))
    upper = {m.subject: m.value for m in made.measurements if m.what == "upper"}
    assert upper["bursts"] == pytest.approx(4.44, abs=0.01)
    assert upper["requests"] == upper["bursts"]


def test_the_bar_has_the_time_left_by_the_pace_so_far() -> None:
    line = bar_line(12, 66, "0 of 12 bursts bad so far", 720.0)
    assert line == "[####....................]  12 of 66  54 min left  0 of 12 bursts bad so far"
    assert "left" not in bar_line(0, 66, "beginning", 0.0)
    assert "left" not in bar_line(66, 66, "done", 9.0)


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    said: list[str] = []
    moments = iter(float(n) for n in range(100))
    bar = Bar(said.append, in_place=False, clock=lambda: next(moments))
    for done in range(40):
        bar.say(done, 41, "x")
    assert len(said) == 3
    assert all(line.endswith("\n") and "\r" not in line for line in said)
