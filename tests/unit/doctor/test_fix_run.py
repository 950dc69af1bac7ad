"""A fix from the first reading to the second, on a pair of facts whose actions change facts instead of nodes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.engine import run_checks
from dspark_ops.doctor.fix.actions import ACTIONS, Action, ActionId, Conduct
from dspark_ops.doctor.fix.record import path_of, read_open
from dspark_ops.doctor.fix.run import FixRun
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Change, Report, Verdict, now
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts, unreachable

MTU_LOW: tuple[list[Any], Any] = (["worker", "links", "enp1s0f0np0", "mtu"], 1500)
REMOVED: tuple[list[Any], Any] = (["head", "system", "remove_ipc"], True)
CATALOGUE = load_catalogue()
LOADED = load_case_site()
ONLY = (
    "reach.*",
    "host.sudo",
    "host.docker_engine",
    "host.removeipc_linger",
    "fabric.mtu",
    "fabric.ports_up",
    "host.disk_free",
)


class Killed(BaseException):
    """The process is gone: nothing of ours runs after this, not even what an interrupt would do."""


@dataclass
class Patient:
    """A pair whose faults are what lies over the healthy facts; an action takes some of them away, or does otherwise.

    carried: what ran, with "?" behind it under check. does: what an action does instead of curing its own faults.
    """

    faults: dict[str, tuple[list[Any], Any]] = field(default_factory=dict)
    carried: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    does: dict[str, Callable[[], Report | None]] = field(default_factory=dict)
    cures: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"baseline": ("shm",), "rails": ("mtu",), "start": (), "deploy": ()}
    )
    foretold: dict[str, int] = field(default_factory=dict)
    answers: dict[str, BaseException] = field(default_factory=dict)
    judged: int = 0

    def judge(self) -> Report:
        self.judged += 1
        return run_checks(pair_facts({"set": list(self.faults.values())}), LOADED, only=ONLY)

    def action(self, name: ActionId) -> Action:
        def carry(_loaded: Any, how: Conduct) -> Report:
            self.carried.append(f"{name}?" if how.check else str(name))
            present = [fault for fault in self.cures.get(name, ()) if fault in self.faults]
            count = self.foretold.get(name, len(present))
            if how.check:
                if f"{name}?" in self.answers:
                    raise self.answers[f"{name}?"]
                return made("planned", ExitCode.OK, count)
            if name in self.answers:
                raise self.answers[name]
            instead = self.does.get(name, lambda: None)()
            if instead is not None:
                return instead
            for fault in present:
                del self.faults[fault]
            return made("changed", ExitCode.OK, len(present))

        return Action(ACTIONS[name].does, ACTIONS[name].least, ACTIONS[name].stands_on, carry)

    def fix(self, *consented: str, **more: Any) -> Report:
        values: dict[str, Any] = {
            "loaded": LOADED,
            "catalogue": CATALOGUE,
            "judge": self.judge,
            "consent": self.asked.append,
            "progress": lambda _: None,
            "consented": frozenset(consented),
            "actions": {name: self.action(name) for name in ActionId},
        }
        return FixRun(**(values | more)).run()


def made(verdict: Verdict, code: ExitCode, changes: int = 0, message: str = "", **more: Any) -> Report:
    told = tuple(Change(node="worker", what=f"thing {number}") for number in range(changes))
    moment = now()
    return Report(
        verb="made", started_at=moment, finished_at=moment, verdict=verdict, exit_code=int(code), changes=told,
        message=message, **more,
    )  # fmt: skip


def fates(report: Report) -> dict[tuple[str, str], str]:
    return {(f.id, f.node): f.outcome for f in report.fixes}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def patient() -> Patient:
    """Head with memory removed at logout (class A), worker with MTU 1500 (class C)."""
    return Patient(faults={"shm": REMOVED, "mtu": MTU_LOW})


def test_the_base_of_these_tests_is_a_pair_with_exactly_these_two_faults(patient: Patient) -> None:
    bad = [(f.id, f.node, f.status) for f in patient.judge().findings if f.status not in ("ok", "skip")]
    assert bad == [("host.removeipc_linger", "head", "warn"), ("fabric.mtu", "worker", "fail")]


def test_a_healthy_pair_is_left_alone_and_nobody_is_asked() -> None:
    well = Patient()
    report = well.fix()
    assert (report.verdict, report.exit_code, report.changes, report.fixes) == ("unchanged", 0, (), ())
    assert (well.carried, well.asked, well.judged) == ([], [], 1)
    assert "zero changes" in report.message


def test_class_a_is_cured_and_class_c_withheld_and_the_verdict_is_that_of_the_second_reading(patient: Patient) -> None:
    report = patient.fix()
    assert patient.carried == ["baseline?", "baseline"]
    assert fates(report) == {("host.removeipc_linger", "head"): "fixed", ("fabric.mtu", "worker"): "withheld"}
    assert (report.verdict, report.exit_code) == ("blocked", 1)
    assert report.next_step == "dspark-ops doctor --fix --consent fabric.mtu"
    assert len(report.changes) == 1
    assert patient.judged == 2
    assert len(patient.asked) == 1
    assert "cures host.removeipc_linger on the head" in patient.asked[0]
    assert "thing 0" in patient.asked[0]
    assert "withheld fabric.mtu" in patient.asked[0]


def test_with_consent_both_are_cured_in_order_and_the_second_fix_changes_nothing(patient: Patient) -> None:
    report = patient.fix("fabric.mtu")
    assert patient.carried == ["baseline?", "rails?", "baseline", "rails"]
    assert set(fates(report).values()) == {"fixed"}
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert [phase.name for phase in report.phases] == ["read", "plan", "baseline", "rails", "read again"]
    again = patient.fix("fabric.mtu")
    assert (again.verdict, again.exit_code, again.changes) == ("unchanged", 0, ())
    assert len(patient.carried) == 4


def test_a_declined_plan_changes_nothing_and_leaves_no_record(patient: Patient) -> None:
    def decline(_plan: str) -> None:
        raise RefusedError("declined; nothing was changed")

    with pytest.raises(RefusedError):
        patient.fix("fabric.mtu", consent=decline)
    assert patient.carried == ["baseline?", "rails?"]
    assert read_open(LOADED.site.name) is None


def test_check_says_what_would_be_done_and_carries_nothing_out(patient: Patient) -> None:
    report = patient.fix(check=True)
    assert (report.verdict, report.exit_code) == ("planned", 0)
    assert fates(report) == {("host.removeipc_linger", "head"): "planned", ("fabric.mtu", "worker"): "withheld"}
    assert [c.what for c in report.changes] == ["thing 0"]
    assert (patient.carried, patient.asked, patient.judged) == (["baseline?"], [], 1)


def test_check_with_nothing_to_do_has_the_verdict_of_the_pair(patient: Patient) -> None:
    del patient.faults["shm"]
    report = patient.fix(check=True)
    assert (report.verdict, report.exit_code, patient.carried) == ("blocked", 1, [])


def test_an_action_that_would_change_nothing_is_not_what_cures_it(patient: Patient) -> None:
    patient.foretold["baseline"] = 0
    report = patient.fix()
    assert patient.carried == ["baseline?"]
    assert patient.asked == []
    (shm,) = [f for f in report.fixes if f.id == "host.removeipc_linger"]
    assert shm.outcome == "withheld"
    assert "would change nothing" in (shm.reason or "")


@pytest.mark.parametrize("refusal", [RefusedError("a rank runs"), NoVerdictError("the worker is away")])
def test_an_action_that_refuses_beforehand_is_withheld_with_its_words_and_the_others_go_on(
    patient: Patient, refusal: Exception
) -> None:
    patient.answers["rails?"] = refusal
    report = patient.fix("fabric.mtu")
    assert patient.carried == ["baseline?", "rails?", "baseline"]
    (mtu,) = [f for f in report.fixes if f.id == "fabric.mtu"]
    assert (mtu.outcome, mtu.reason) == ("withheld", f"rails refuses: {refusal}")


def test_an_action_that_refuses_only_when_it_is_carried_out_keeps_the_others_going(patient: Patient) -> None:
    patient.answers["baseline"] = RefusedError("busy")
    report = patient.fix("fabric.mtu")
    assert patient.carried == ["baseline?", "rails?", "baseline", "rails"]
    assert fates(report) == {("host.removeipc_linger", "head"): "withheld", ("fabric.mtu", "worker"): "fixed"}
    assert read_open(LOADED.site.name) is None


@pytest.mark.parametrize(
    ("verdict", "code"), [("restored", ExitCode.RESTORED), ("restore-incomplete", ExitCode.RESTORE_INCOMPLETE)]
)
def test_a_step_that_fails_ends_it_with_its_own_code_and_what_it_left(
    patient: Patient, verdict: Verdict, code: ExitCode
) -> None:
    patient.does["baseline"] = lambda: made(verdict, code, message="apt is broken", left=("half of it",))
    report = patient.fix("fabric.mtu")
    assert patient.carried[-1] == "baseline"
    assert (report.verdict, report.exit_code, report.left) == (verdict, int(code), ("half of it",))
    assert "apt is broken" in report.message
    assert patient.judged == 2
    outcomes = {f.id: (f.outcome, f.reason) for f in report.fixes}
    assert outcomes["host.removeipc_linger"][0] == "still-bad"
    assert outcomes["fabric.mtu"] == ("withheld", "an earlier step failed")


def test_an_interrupted_step_ends_it_with_130_and_is_not_read_again(patient: Patient) -> None:
    patient.does["baseline"] = lambda: made("interrupted", ExitCode.INTERRUPTED, message="interrupted")
    assert (patient.fix().exit_code, patient.judged) == (130, 1)
    patient.answers["baseline"] = KeyboardInterrupt()
    assert (patient.fix().exit_code, patient.judged) == (130, 2)
    assert read_open(LOADED.site.name) is None


def test_what_the_fix_made_worse_is_told_first_and_is_no_success(patient: Patient) -> None:
    def harm() -> None:
        patient.faults["disk"] = (["worker", "links", "enP2p1s0f0np0", "mtu"], 1500)

    del patient.faults["mtu"]
    patient.does["baseline"] = harm
    report = patient.fix()
    assert fates(report) == {("host.removeipc_linger", "head"): "fixed", ("fabric.mtu", "worker"): "worse"}
    assert report.exit_code == 1
    assert report.message.startswith("worse than before: fabric.mtu on the worker")


def test_a_warning_that_the_fix_made_is_no_success_either(patient: Patient) -> None:
    def harm() -> None:
        patient.faults["other"] = (["worker", "system", "remove_ipc"], True)

    del patient.faults["mtu"]
    patient.does["baseline"] = harm
    report = patient.fix()
    assert fates(report)["host.removeipc_linger", "worker"] == "worse"
    assert (report.verdict, report.exit_code) == ("failed", 1)


def test_a_node_that_is_away_keeps_everything_as_it_is(patient: Patient) -> None:
    patient.faults["away"] = (["worker"], unreachable("worker"))
    del patient.faults["mtu"]
    report = patient.fix()
    assert (patient.carried, report.exit_code) == ([], 3)
    (shm,) = [f for f in report.fixes if f.id == "host.removeipc_linger" and f.node == "head"]
    assert shm.reason == "depends on reach.ssh, which stays as it is"
    (lost,) = [f for f in report.fixes if f.id == "fabric.mtu" and f.node == "worker"]
    assert lost.reason == "follows from reach.ssh, about which nothing is done"


def test_a_killed_fix_is_finished_by_the_next_one_also_when_all_looks_well(patient: Patient) -> None:
    """As with rails that are right and not confirmed: without the record the next fix would see a healthy pair."""
    patient.answers["rails"] = Killed()
    with pytest.raises(Killed):
        patient.fix("fabric.mtu")
    left = read_open(LOADED.site.name)
    assert left is not None
    assert [(s.action, s.ids) for s in left.steps] == [(ActionId.RAILS, ("fabric.mtu",))]
    del patient.answers["rails"], patient.faults["mtu"]
    patient.carried.clear()

    bare = patient.fix()
    assert (patient.carried, bare.exit_code) == ([], 0)
    assert "goes on with --consent fabric.mtu" in bare.message

    report = patient.fix("fabric.mtu")
    assert patient.carried == ["rails?", "rails"]
    assert report.exit_code == 0
    assert read_open(LOADED.site.name) is None
    assert "goes on with what an earlier run was cut off in" in patient.asked[-1]


def test_a_kill_in_the_first_step_leaves_both_on_record(patient: Patient) -> None:
    patient.answers["baseline"] = Killed()
    with pytest.raises(Killed):
        patient.fix("fabric.mtu")
    left = read_open(LOADED.site.name)
    assert left is not None
    assert [s.action for s in left.steps] == [ActionId.BASELINE, ActionId.RAILS]


@pytest.mark.parametrize("text", ["{", '{"schema": "dspark-ops/fix/v9", "site": "x", "steps": []}', "\udcff"])
def test_a_record_that_cannot_be_read_ends_it_before_anything_is_read(patient: Patient, text: str) -> None:
    path = path_of(LOADED.site.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(NoVerdictError, match="cannot be read"):
        patient.fix()
    assert patient.judged == 0


def test_a_record_that_cannot_be_written_ends_it_before_anything_is_changed(patient: Patient) -> None:
    path_of(LOADED.site.name).parent.parent.mkdir(parents=True, exist_ok=True)
    path_of(LOADED.site.name).parent.write_text("a file where the directory should be")
    with pytest.raises(NoVerdictError):
        patient.fix()
    assert "baseline" not in patient.carried


def test_what_comes_to_light_afterwards_is_uncovered_and_the_next_fix_is_named() -> None:
    hidden = Patient(faults={"shm": REMOVED, "unread": (["worker", "links"], None)})

    def uncover() -> None:
        hidden.faults["unread"] = MTU_LOW

    hidden.does["baseline"] = uncover
    report = hidden.fix()
    assert fates(report)["fabric.mtu", "worker"] == "uncovered"
    assert report.next_step == "dspark-ops doctor --fix"


def test_two_fixes_at_once_are_refused(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    from dspark_ops.ansible_run import lock
    from dspark_ops.doctor.fix import run

    original = lock.site_lock
    monkeypatch.setattr(run, "site_lock", lambda name, **more: original(name, **(more | {"wait_s": 0.0})))
    seen: list[type[BaseException]] = []

    def again(_plan: str) -> None:
        with pytest.raises(RefusedError, match="busy") as caught:
            patient.fix()
        seen.append(caught.type)

    patient.fix(consent=again)
    assert seen == [RefusedError]


def test_the_text_says_what_became_of_each_finding(patient: Patient) -> None:
    from dspark_ops.report.text import render

    text = render(patient.fix())
    assert re.search(r"fixed +head +host\.removeipc_linger.* by baseline", text)
    assert re.search(r"withheld +worker +fabric\.mtu.* needs consent: --consent fabric\.mtu", text)


def killed_in_the_rails(patient: Patient) -> None:
    """What a killed run leaves: rails on record, and both ends of them look right."""
    patient.answers["rails"] = Killed()
    with pytest.raises(Killed):
        patient.fix("fabric.mtu")
    del patient.answers["rails"], patient.faults["mtu"]
    patient.faults["shm"] = REMOVED


def rails_on_record() -> bool:
    left = read_open(LOADED.site.name)
    return left is not None and [(s.action, s.ids) for s in left.steps] == [(ActionId.RAILS, ("fabric.mtu",))]


def test_another_fix_keeps_on_record_what_it_may_not_finish(patient: Patient) -> None:
    killed_in_the_rails(patient)
    report = patient.fix()
    assert "goes on with --consent fabric.mtu" in report.message
    assert (patient.carried[-1], "shm" in patient.faults) == ("baseline", False)
    assert rails_on_record()
    patient.fix("fabric.mtu")
    assert patient.carried[-1] == "rails"
    assert read_open(LOADED.site.name) is None


@pytest.mark.parametrize("does", ["fails", "refuses"])
def test_what_an_earlier_run_began_stays_on_record_until_it_has_ended(patient: Patient, does: str) -> None:
    killed_in_the_rails(patient)
    if does == "fails":
        patient.does["baseline"] = lambda: made("failed", ExitCode.VERDICT_BAD)
    else:
        patient.answers["rails"] = RefusedError("a rank runs")
    patient.fix("fabric.mtu")
    assert rails_on_record()
