"""`exposure apply` and `remove`: what is played, in which order, and what is undone when the proof fails."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.errors import RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure import verb
from dspark_ops.fabric.transaction import NotProvenError
from dspark_ops.paths import data_dir
from dspark_ops.report.models import Change, Report

ONE = (Change(node="head", what="packet filter"),)


def result(
    *, changes: tuple[Change, ...] = (), failures: tuple[TaskFailure, ...] = (), lost: tuple[Any, ...] = ()
) -> PlayResult:
    rc = 4 if lost else 2 if failures else 0
    return PlayResult(rc, {}, changes, failures, lost, 0.1, Path("ansible.log"))


@dataclass
class Nodes:
    """Stands for playbook and nodes. plays: the tags of each run, check mode marked."""

    planned: tuple[Change, ...] = ONE
    answers: dict[str, list[PlayResult]] = field(default_factory=dict)
    proof: Exception | str = "proven"
    plays: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    def run(self, _name: str, _loaded: LoadedSite, *, tags: tuple[str, ...], check: bool, **more: Any) -> PlayResult:
        self.plays.append(" ".join(tags) + (" check" if check else ""))
        self.told.append(more["host_variables"])
        if check:
            return result(changes=self.planned)
        waiting = self.answers.get(tags[0])
        if waiting:
            return waiting.pop(0)
        return result(changes=ONE if tags[0] in ("exposure", "remove") else ())

    def prove(self, *_: object) -> str:
        if isinstance(self.proof, Exception):
            raise self.proof
        return self.proof


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Nodes:
    made = Nodes()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seen = type("Seen", (), {"table_known": False})()
    monkeypatch.setattr(verb, "site_lock", lambda *_, **__: nullcontext())
    monkeypatch.setattr(verb, "reach", lambda *_: {})
    monkeypatch.setattr(verb, "policies", lambda site: (verb.offline(site), {"head": seen, "worker": seen}))
    monkeypatch.setattr(verb, "_over_the_rails", lambda _: {"head": set(), "worker": set()})
    monkeypatch.setattr(verb, "_prove", made.prove)
    monkeypatch.setattr(verb, "run_playbook", made.run)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


def do(check: bool = False, consent: Any = lambda _: None) -> Report:
    loaded = load_site(data_dir("inventories") / "example" / "site.yml", environ={})
    return verb.apply(loaded, consent=consent, progress=lambda _: None, check=check)


def test_planned_consented_applied_proven_confirmed(nodes: Nodes) -> None:
    plans: list[str] = []
    report = do(consent=plans.append)
    assert nodes.plays == ["precheck exposure check", "exposure", "confirm"]
    assert (report.exit_code, report.verdict) == (0, "changed")
    assert "packet filter" in plans[0]
    assert [port["rule"] for port in nodes.told[0]["head"]["exposure_ports"]] == ["ssh", "gateway"]
    assert [port["rule"] for port in nodes.told[0]["worker"]["exposure_ports"]] == ["ssh"]


def test_check_mode_and_nothing_to_do_write_nothing(nodes: Nodes) -> None:
    assert do(check=True).verdict == "planned"
    assert nodes.plays == ["precheck exposure check"]
    nodes.plays.clear()
    nodes.planned = ()
    report = do(consent=lambda _: pytest.fail("nothing to consent to"))
    assert (report.verdict, report.changes) == ("unchanged", ())
    assert nodes.plays == ["precheck exposure check", "confirm"], "an open change of a killed run is settled"


def test_a_refusal_and_a_declined_plan_play_nothing_more(nodes: Nodes) -> None:
    def decline(_: str) -> None:
        raise RefusedError("declined")

    with pytest.raises(RefusedError):
        do(consent=decline)
    assert nodes.plays == ["precheck exposure check"]


def test_what_cannot_be_proven_is_put_back_on_both(nodes: Nodes) -> None:
    nodes.proof = NotProvenError("this host cannot log in any more: head: no answer")
    report = do()
    assert nodes.plays == ["precheck exposure check", "exposure", "revert"]
    assert (report.exit_code, report.verdict, report.left) == (ExitCode.RESTORED, "restored", ())
    assert "cannot log in any more" in report.message


def test_a_node_that_is_locked_out_is_waited_for(nodes: Nodes) -> None:
    nodes.proof = NotProvenError("lost")
    nodes.answers["revert"] = [result(lost=("worker",)), result(lost=("worker",)), result()]
    report = do()
    assert nodes.plays[2:] == ["revert"] * 3
    assert (report.exit_code, report.left) == (ExitCode.RESTORED, ())


def test_a_revert_that_is_not_complete_is_said(nodes: Nodes) -> None:
    nodes.answers["exposure"] = [result(failures=(TaskFailure("head", "t", "nft refuses"),))]
    nodes.answers["revert"] = [result(failures=(TaskFailure("head", "t", "the revert is not complete"),))]
    report = do()
    assert (report.exit_code, report.left) == (ExitCode.RESTORE_INCOMPLETE, ("head: the revert is not complete",))


def test_an_interrupt_is_put_back_too(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "_prove", interrupted)
    report = do()
    assert nodes.plays[-1] == "revert"
    assert report.exit_code == ExitCode.INTERRUPTED


def test_removed_once_and_no_more(nodes: Nodes) -> None:
    loaded = load_site(data_dir("inventories") / "example" / "site.yml", environ={})
    report = verb.remove(loaded, consent=lambda _: None, progress=lambda _: None)
    assert (nodes.plays, report.verdict) == (["remove check", "remove"], "changed")
    assert nodes.told[0]["head"]["exposure_rails"], "Ansible wants the role's arguments for every entry"
    nodes.planned = ()
    assert verb.remove(loaded, consent=lambda _: None, progress=lambda _: None).verdict == "unchanged"
    nodes.planned = ONE
    nodes.answers["remove"] = [result(lost=("worker",))]
    assert verb.remove(loaded, consent=lambda _: None, progress=lambda _: None).exit_code == ExitCode.RESTORE_INCOMPLETE
