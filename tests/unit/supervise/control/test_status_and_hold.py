"""What is read of the supervisor, what people see of it, and a person's own hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts import supervisor
from dspark_ops.facts.supervisor import UNIT_FILE, read_supervisor
from dspark_ops.supervise.control import hold as holding
from dspark_ops.supervise.control import install, reading, status
from dspark_ops.supervise.control.document import NOTHING
from dspark_ops.supervise.control.words import person
from dspark_ops.transport.base import Command, NodeReading, ProbeResult, RecordedRunner
from dspark_ops.transport.readonly import PROGRAM, ReadOnlyViolationError, assert_read_only
from tests.unit.supervise.control.conftest import SERVING, head_reading, supervisor_of

HOLD = {"owner": "ann@desk", "reason": "new cable", "left_s": 3000.0, "drain": True}


class Runner(RecordedRunner):
    """The head, replayed."""

    def close(self) -> None:
        pass


def replay(monkeypatch: pytest.MonkeyPatch, found: NodeReading) -> None:
    monkeypatch.setattr(reading, "open_runner", lambda *_: Runner(found))


def test_a_head_without_the_unit_has_none() -> None:
    files = ProbeResult(id="supervise.files", files={})
    assert read_supervisor(NodeReading(node="head", reachable=True, results={files.id: files})).installed is False


def test_a_unit_that_could_not_be_looked_for_is_not_absent() -> None:
    seen = read_supervisor(NodeReading(node="head", reachable=False))
    assert seen.installed is None
    assert seen.problem


@pytest.mark.parametrize(
    "answer",
    [
        ProbeResult(id="supervise.status", error="connection refused"),
        ProbeResult(id="supervise.status", rc=500, stdout="{}"),
        ProbeResult(id="supervise.status", rc=200, stdout='{"schema": "somebody-else/v1", "state": "serving"}'),
        ProbeResult(id="supervise.status", rc=200, stdout="[1"),
    ],
)
def test_another_program_on_its_port_is_no_answer(answer: ProbeResult) -> None:
    files = ProbeResult(id="supervise.files", files={UNIT_FILE: "[Unit]"})
    seen = read_supervisor(NodeReading(node="head", reachable=True, results={r.id: r for r in (files, answer)}))
    assert (seen.installed, seen.answers, seen.state) == (True, False, None)
    assert seen.problem


def test_the_ranks_environment_is_in_no_document(loaded: LoadedSite) -> None:
    seen = supervisor_of(loaded)
    assert seen.config
    assert "config" not in seen.model_dump(mode="json")
    assert "config" not in repr(seen)


def test_reading_it_only_reads() -> None:
    assert_read_only([*supervisor.PROBES, Command("x", ("python3", PROGRAM, "explain"), root=True)])
    for words in (
        (PROGRAM, "resume"),
        (PROGRAM, "hold"),
        ("-c", "pass"),
        (PROGRAM.replace("supervise", "x"), "status"),
    ):
        with pytest.raises(ReadOnlyViolationError):
            assert_read_only([Command("x", ("python3", *words))])


@pytest.mark.parametrize(
    ("more", "wanted", "code"),
    [
        ({}, "serving", ExitCode.OK),
        ({"state": "starting"}, "serving", ExitCode.VERDICT_BAD),
        ({"state": "suspect"}, "serving", ExitCode.VERDICT_BAD),
        ({"state": "failed", "latched": "four starts"}, "serving", ExitCode.VERDICT_BAD),
        ({"state": "cooling"}, "stopped", ExitCode.OK),
        ({"state": "failed", "latched": "Xid 79"}, "stopped", ExitCode.VERDICT_BAD),
        ({"step_age_s": 600.0}, "serving", ExitCode.NO_VERDICT),
        ({"step_age_s": None}, "serving", ExitCode.NO_VERDICT),
    ],
)
def test_the_verdict_is_about_what_is_wanted(
    loaded: LoadedSite, more: Mapping[str, Any], wanted: str, code: ExitCode
) -> None:
    assert status.verdict(supervisor_of(loaded, **more), wanted) == code


def test_people_see_state_reason_hold_and_latch(loaded: LoadedSite) -> None:
    alerts = [{"key": "k", "text": "the management path to the worker is lost", "page": False}]
    more = {"latched": "four starts in six hours", "alerts": alerts, "waits_for": ["memory is back"]}
    seen = supervisor_of(loaded, hold=HOLD, **more)
    text = "\n".join(status.lines_of(seen, "desk"))
    for word in ("serving", "2 min", "the gate passed", "ann@desk", "new cable", "50 min", "four starts"):
        assert word in text
    assert "management path" in text
    assert "waits until memory is back" in text
    mute = "\n".join(status.lines_of(supervisor_of(loaded, status=None), "desk"))
    assert "does not answer" in mute
    assert "supervise resume" in mute
    assert status.lines_of(supervisor.ABSENT, "desk") == []
    assert "looked 10 min ago" in "\n".join(status.lines_of(supervisor_of(loaded, step_age_s=600.0), "desk"))
    (other,) = status.lines_of(supervisor_of(loaded), "lab")
    assert "another site, 'desk'" in other


def test_the_status_verb_has_its_own_words_whole(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    replay(monkeypatch, head_reading(loaded, number=7))
    found = status.supervisor_status(loaded)
    assert found.document is not None
    assert found.document["number"] == 7
    assert found.keeps == NOTHING.words()
    json.dumps(found.model_dump(mode="json"))
    replay(monkeypatch, NodeReading(node="head", reachable=False, error="no route", hint="look"))
    with pytest.raises(NoVerdictError, match="no route"):
        status.supervisor_status(loaded)


def test_explain_is_its_own_text_or_why_there_is_none(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    found = head_reading(loaded)
    said = ProbeResult(id="supervise.explain", rc=0, stdout="serving since noon\n", stderr="")
    replay(monkeypatch, found.model_copy(update={"results": {**found.results, said.id: said}}))
    assert reading.explain(loaded) == "serving since noon"
    mute = ProbeResult(id="supervise.explain", rc=3, stdout="", stderr="the supervisor cannot be asked")
    replay(monkeypatch, found.model_copy(update={"results": {**found.results, mute.id: mute}}))
    with pytest.raises(NoVerdictError, match="cannot be asked"):
        reading.explain(loaded)


class Asked:
    """The runs of the playbook."""

    def __init__(self) -> None:
        self.variables: list[Mapping[str, Any]] = []
        self.failures: tuple[TaskFailure, ...] = ()

    def play(self, _name: str, _loaded: LoadedSite, *, variables: Mapping[str, Any], **_: Any) -> PlayResult:
        self.variables.append(variables)
        return PlayResult(2 if self.failures else 0, {}, (), self.failures, (), 1.0, Path("log"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = Asked()
    monkeypatch.setattr(install, "run_playbook", found.play)
    return found


def hold(loaded: LoadedSite, plans: list[str] | None = None, **more: Any) -> Any:
    given: dict[str, Any] = {"for_s": 3600.0, "drain": False, "consent": (plans if plans is not None else []).append}
    return holding.hold(loaded, "new cable", progress=lambda _: None, **(given | more))


def resume(loaded: LoadedSite, plans: list[str], **more: Any) -> Any:
    return holding.resume(loaded, consent=plans.append, progress=lambda _: None, **more)


def test_a_hold_has_a_person_a_reason_and_an_end(
    loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay(monkeypatch, head_reading(loaded))
    plans: list[str] = []
    report = hold(loaded, plans, drain=True)
    assert report.exit_code == 0
    assert "no new requests" in plans[0]
    assert asked.variables[0]["pair_supervisor_asks"] == [
        ["hold", "--reason", "new cable", "--owner", person(), "--for-s", "3600", "--drain"]
    ]


def test_nobody_takes_another_ones_hold(loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    replay(monkeypatch, head_reading(loaded, hold=HOLD))
    with pytest.raises(RefusedError, match="ann@desk"):
        hold(loaded)
    assert asked.variables == []


def test_what_cannot_be_asked_is_not_held(loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    replay(monkeypatch, head_reading(loaded, status=None))
    with pytest.raises(NoVerdictError, match="cannot be asked"):
        hold(loaded)
    replay(monkeypatch, head_reading(loaded))
    asked.failures = (TaskFailure("head", "Ask the supervisor", "the supervisor did not do it"),)
    with pytest.raises(NoVerdictError, match="did not do it"):
        hold(loaded)


def test_resume_ends_hold_and_latch_and_says_both_before(
    loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay(monkeypatch, head_reading(loaded, hold=HOLD, latched="four starts"))
    plans: list[str] = []
    assert resume(loaded, plans).verdict == "changed"
    assert "ann@desk" in plans[0]
    assert "four starts" in plans[0]
    assert asked.variables[0]["pair_supervisor_asks"] == [["resume"]]


def test_resume_without_anything_to_end_changes_nothing(
    loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay(monkeypatch, head_reading(loaded))
    assert resume(loaded, []).verdict == "unchanged"
    assert asked.variables == []


def test_resume_starts_a_unit_that_does_not_answer(
    loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay(monkeypatch, head_reading(loaded, status=None))
    assert resume(loaded, []).verdict == "changed"
    assert asked.variables[0]["pair_supervisor_by_unit"] is True
    assert asked.variables[0]["pair_supervisor_asks"] == [["resume"]]  # what it remembers of a hold ends too


def test_nobody_is_told_of_another_sites_supervisor_as_of_ones_own(
    loaded: LoadedSite, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = head_reading(loaded, None, {**SERVING, "site": "lab"})
    replay(monkeypatch, other)
    for verb in (status.supervisor_status, reading.explain, hold, lambda site: resume(site, [])):
        with pytest.raises(RefusedError, match="keeps site 'lab'"):
            verb(loaded)
    assert asked.variables == []
