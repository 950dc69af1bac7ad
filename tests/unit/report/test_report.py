"""A report for people, for programs, and for later."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dspark_ops.cli.options import finish
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Change, Finding, NodeReport, Phase, Remedy, Report, judge, now
from dspark_ops.report.store import last_phase_seconds, recent, reports_dir, save
from dspark_ops.report.text import MARKS, render, wants_colour

REMEDY = Remedy(text="Set it.", command=("dspark-ops", "bootstrap", "--site", "a b.yml"), remedy_class="C")
NODES = (
    NodeReport(role="head", host="node-a", reachable=True),
    NodeReport(role="worker", host="node-b", reachable=True),
)


def found(status: Any, **more: Any) -> Finding:
    fields: dict[str, Any] = {"id": "fabric.mtu", "node": "head", "title": "MTU", "observed": "seen", **more}
    return Finding(status=status, **fields)


def report(**more: Any) -> Report:
    moment = now()
    fields: dict[str, Any] = {
        "verb": "doctor",
        "started_at": moment,
        "finished_at": moment,
        "verdict": "ready",
        "exit_code": 0,
        "message": "m",
        **more,
    }
    return Report(**fields)


@pytest.mark.parametrize(
    ("findings", "nodes", "code"),
    [
        ([found("ok"), found("warn"), found("skip")], NODES, ExitCode.OK),
        ([found("ok"), found("fail")], NODES, ExitCode.VERDICT_BAD),
        ([found("ok"), found("unknown")], NODES, ExitCode.NO_VERDICT),
        ([found("ok"), found("unknown", severity="advised")], NODES, ExitCode.OK),
        ([found("unknown"), found("fail")], NODES, ExitCode.VERDICT_BAD),
        ([found("skip")], NODES, ExitCode.NO_VERDICT),
        ([], NODES, ExitCode.NO_VERDICT),
        (
            [found("fail")],
            (NODES[0], NodeReport(role="worker", host="node-b", reachable=False, error="x")),
            ExitCode.NO_VERDICT,
        ),
    ],
)
def test_unknown_and_nothing_are_never_healthy(findings: list[Finding], nodes: Any, code: ExitCode) -> None:
    assert judge(findings, nodes)[1] == code


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        report(surprise=1)


def test_json_has_the_schema_first_and_comes_back() -> None:
    made = report(findings=(found("fail", remedy=REMEDY),), left=("/etc/netplan/40-cx7.yaml",))
    assert made.to_json().splitlines()[1].strip() == '"schema": "dspark-ops/report/v1",'
    assert Report.model_validate_json(made.to_json()) == made


def test_text_repeats_failures_last_with_the_command_that_can_be_pasted() -> None:
    text = render(
        report(
            nodes=NODES,
            findings=(
                found("ok", id="reach.ssh", title="reached"),
                found("fail", observed="1500", expected="9000", remedy=REMEDY),
                found("fail", node="worker", observed="1400", expected="9000", remedy=REMEDY),
                found("unknown", id="x.y", caused_by="fabric.mtu", remedy=REMEDY),
                found("skip", id="service.health", title="health", observed="nothing is deployed"),
            ),
            next_step="dspark-ops bootstrap",
        )
    )
    lines = text.splitlines()
    table_end = next(i for i, line in enumerate(lines) if line.startswith("[skip]"))
    later = lines[table_end + 1 :]
    assert "health: nothing is deployed" in lines[table_end]
    assert "       head: 1500" in later
    assert "       worker: 1400" in later
    assert later.count("       $ dspark-ops bootstrap --site 'a b.yml'") == 1
    assert "       1 more follow from fabric.mtu: x.y" in later
    assert lines[-1] == "next: dspark-ops bootstrap"
    assert lines[-2] == "ready: m"


def test_every_status_has_an_ascii_mark_and_no_colour_unless_asked() -> None:
    assert all(mark.isascii() for mark in MARKS.values())
    made = report(findings=tuple(found(status) for status in MARKS))
    assert "\x1b" not in render(made)
    assert "\x1b[31m[fail]" in render(made, colour=True)


def test_no_color_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())  # type: ignore[arg-type]


def test_text_shows_phases_changes_and_what_is_left() -> None:
    text = render(
        report(
            phases=(Phase(name="worker", status="failed", elapsed_s=3.25, detail="died", last_s=20.0),),
            changes=(Change(node="head", what="/etc/x", before="a", after="b", diff="-a\n+b\n"),),
            left=("the file /etc/x",),
        )
    )
    assert "worker" in text
    assert "3.2 s (last time 20.0 s)  died" in text
    assert "head   /etc/x: a -> b" in text
    assert "    +b" in text
    assert "left behind: the file /etc/x" in text


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def test_the_last_20_reports_are_kept(state: Path) -> None:
    began = now()
    for number in range(25):
        moment = began + timedelta(seconds=number)
        save(report(started_at=moment, finished_at=moment, message=str(number)))
    kept = [item.message for item in recent()]
    assert kept == [str(number) for number in range(24, 4, -1)]
    assert len(list(reports_dir().iterdir())) == 20


def test_what_runs_often_does_not_push_out_what_another_verb_did(state: Path) -> None:
    began = now()
    for verb in ("monitor install", "deploy", "doctor"):
        for number in range(25 if verb == "doctor" else 2):
            moment = began + timedelta(seconds=number)
            save(report(verb=verb, started_at=moment, finished_at=moment), keep=3)
    kept = [item.verb for item in recent()]
    assert sorted(kept) == ["deploy"] * 2 + ["doctor"] * 3 + ["monitor install"] * 2


def test_two_reports_of_one_moment_are_both_kept(state: Path) -> None:
    made = report()
    assert save(made) != save(made)
    assert len(list(recent("doctor"))) == 2
    assert list(recent("deploy")) == []


def test_last_phase_seconds_is_of_the_newest_run_that_finished_the_phase(state: Path) -> None:
    began = now()
    for seconds, status in ((10.0, "done"), (12.0, "done"), (99.0, "failed")):
        began += timedelta(seconds=1)
        phase = Phase(name="image", status=status, elapsed_s=seconds)
        save(report(verb="deploy", started_at=began, finished_at=began, phases=(phase,)))
    assert last_phase_seconds("deploy") == {"image": 12.0}


def test_a_damaged_report_is_passed_over(state: Path) -> None:
    save(report())
    (reports_dir() / "99999999T000000.000Z-doctor.json").write_text("{")
    assert len(list(recent())) == 1


def test_a_report_that_is_no_text_is_passed_over(state: Path) -> None:
    save(report())
    (reports_dir() / "99999999T000000.000Z-doctor.json").write_bytes(b'{"verb": "\xff"}')
    assert len(list(recent())) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_report_that_cannot_be_kept_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    (tmp_path / "dspark-ops").write_text("a file where the state directory should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert finish(report(verdict="blocked", exit_code=1, message="what was found"), as_json=as_json) == 1
    told = capsys.readouterr()
    assert "what was found" in told.out
    assert told.err.startswith("warning: the report cannot be kept in ")


def test_of_one_millisecond_the_later_report_is_the_newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    moment = now()
    for number in range(12):
        save(report(started_at=moment, message=str(number)))
    assert [kept.message for kept in recent("doctor")] == [str(number) for number in reversed(range(12))]
