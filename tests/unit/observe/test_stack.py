"""`monitor install` and `remove`: what is asked, told and reported; the playbook is the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.observe import stack
from dspark_ops.report.models import Change
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.doctor.pair_fixture import load_case_site

TEXTFILE = f"/var/lib/prometheus/node-exporter/dspark_doctor_{load_case_site().site.name.replace('-', '_')}.prom"


class Plays:
    """Runs of the playbook as they were asked for, and what each gives."""

    def __init__(self, *changes: int, fails: bool = False) -> None:
        self.given: list[dict[str, Any]] = []
        self.changes, self.fails = list(changes), fails

    def __call__(self, name: str, _loaded: object, **told: Any) -> PlayResult:
        program = Path(told["variables"]["node_exporter_dspark_program"])
        self.given.append(told | {"name": name, "program_there": program.is_file()})
        bad = self.fails and not told["check"]
        return PlayResult(
            rc=2 if bad else 0,
            changed={},
            changes=tuple(Change(node="head", what=f"change {n}") for n in range(self.changes.pop(0))),
            failures=(TaskFailure(node="head", task="Install", message="no space left"),) if bad else (),
            unreachable=(),
            elapsed_s=0.1,
            log=Path("/log"),
        )


@pytest.fixture(autouse=True)
def _pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(stack, "reach", lambda *_: {})
    on_head(monkeypatch, {})


def on_head(monkeypatch: pytest.MonkeyPatch, files: dict[str, str] | None) -> None:
    found = ProbeResult(id="monitoring.beside", files=files, error=None if files is not None else "no such user")
    reading = NodeReading(node="head", reachable=True, results={found.id: found})
    monkeypatch.setattr(stack, "read_pair", lambda *_: {"head": reading})


def run(monkeypatch: pytest.MonkeyPatch, plays: Plays, wanted: stack.Wanted = "present", **words: Any) -> Any:
    monkeypatch.setattr(stack, "run_playbook", plays)
    words.setdefault("consent", lambda _: None)
    return stack.change_stack(load_case_site(), wanted, progress=lambda _: None, **words)


def test_check_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plays = Plays(3)
    report = run(monkeypatch, plays, check=True, consent=pytest.fail)
    assert (report.verdict, report.exit_code, len(report.changes)) == ("planned", 0, 3)
    assert [given["check"] for given in plays.given] == [True]


def test_the_plan_is_asked_for_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def decline(plan: str) -> None:
        assert "change 1" in plan
        raise RefusedError("declined")

    plays = Plays(2, 2)
    with pytest.raises(RefusedError):
        run(monkeypatch, plays, consent=decline)
    assert [given["check"] for given in plays.given] == [True]


def test_installed_with_the_exporter_and_a_second_time_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    plays = Plays(2, 2)
    report = run(monkeypatch, plays)
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert "alerts go to nobody" in report.message
    assert "dead_man_file" in report.message
    assert all(given["program_there"] for given in plays.given)
    assert run(monkeypatch, Plays(0, 0), consent=pytest.fail).verdict == "unchanged"


def test_the_exporter_is_told_what_else_is_on_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def config(files: dict[str, str]) -> dict[str, Any]:
        on_head(monkeypatch, files)
        plays = Plays(0, 0)
        report = run(monkeypatch, plays)
        found: dict[str, Any] = plays.given[0]["host_variables"]["head"]["node_exporter_dspark_config"]
        jobs = {job["name"] for job in plays.given[0]["variables"]["monitoring_jobs"]}
        assert ("dspark-supervisor" in jobs) == (found["supervisor_url"] is not None)
        assert ("no canary" in report.message) == (found["supervisor_url"] is None)
        return found

    assert config({})["supervisor_url"] is None
    assert config({stack.SUPERVISOR_UNIT: ""})["supervisor_url"] is not None

    assert config({})["gateway_url"] is None
    assert config({stack.GATEWAY_UNIT: ""})["gateway_url"] is not None
    assert config({})["doctor_textfile"] is None
    assert config({TEXTFILE: ""})["doctor_textfile"] == TEXTFILE


def test_what_cannot_be_read_is_not_taken_for_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    on_head(monkeypatch, None)
    with pytest.raises(NoVerdictError, match="cannot be read"):
        run(monkeypatch, Plays())


def test_a_failure_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(monkeypatch, Plays(2, 1, fails=True))
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "no space left" in report.message
    assert report.left


def test_removed_without_asking_the_head_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    on_head(monkeypatch, None)
    plays = Plays(1, 1)
    assert run(monkeypatch, plays, "absent").verdict == "changed"
    told = plays.given[0]["variables"]
    assert (told["monitoring_state"], told["node_exporter_dspark_state"]) == ("absent", "absent")
