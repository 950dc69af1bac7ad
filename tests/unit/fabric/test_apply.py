"""`fabric apply` and `fabric restore`: nothing before consent, nothing confirmed unproven, both nodes or neither."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.fabric import apply as subject
from dspark_ops.facts.supervisor import CONFIG, SCHEMA, UNIT_FILE
from dspark_ops.report.models import Change, Report
from dspark_ops.supervise.control import keeper
from dspark_ops.supervise.control.document import NOTHING, Door, render
from dspark_ops.transport.base import ProbeResult
from tests.unit.deploy.played_pair import LOST, PlayedPair, failed, played
from tests.unit.doctor.pair_fixture import load_case_site

FILE = Change(node="head", what="rails: /etc/netplan/60-dspark-fabric.yaml", diff="+ addresses")


@pytest.fixture
def loaded() -> LoadedSite:
    return load_case_site()


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedPair:
    pair = PlayedPair(
        answers={step: played(changes=[FILE]) for step in ("plan", "fabric", "restore")}, playbook="fabric.yml"
    )
    pair.connect(monkeypatch, tmp_path, subject)
    return pair


@pytest.fixture
def apply(pair: PlayedPair, loaded: LoadedSite) -> Callable[..., Report]:
    return lambda **more: subject.apply(loaded, consent=pair.asked.append, progress=lambda _: None, **more)


@pytest.fixture
def restore(pair: PlayedPair, loaded: LoadedSite) -> Callable[..., Report]:
    return lambda **more: subject.restore(loaded, consent=pair.asked.append, progress=lambda _: None, **more)


def test_apply_asks_applies_proves_and_only_then_confirms(pair: PlayedPair, apply: Callable[..., Report]) -> None:
    report = apply()
    assert pair.runs == ["plan", "fabric", "confirm"]
    assert [phase.name for phase in report.phases] == ["reach", "plan", "fabric", "prove", "confirm"]
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert FILE.what in pair.asked[0]
    assert "cross 2 rails both ways" in report.message


def test_a_rail_that_carries_no_full_packet_is_never_confirmed(pair: PlayedPair, apply: Callable[..., Report]) -> None:
    pair.silent_rail = "p0b"
    report = apply()
    assert pair.runs == ["plan", "fabric", "revert"]
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert "rail p0b" in report.message


def test_a_login_that_fails_after_the_change_reverts(
    pair: PlayedPair, apply: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change played well, but nobody can log in anew: what Ansible's kept connection saw proves nothing."""
    read: Callable[..., Any] = pair.read

    def lost_after_the_change(*args: Any, **more: Any) -> Any:
        if "fabric" in pair.runs and "revert" not in pair.runs:
            pair.readings["worker"] = {"reachable": False, "error": "spark-worker: no answer within 10 s"}
        else:
            pair.readings.clear()
        return read(*args, **more)

    monkeypatch.setattr("dspark_ops.fabric.transaction.read_pair", lost_after_the_change)
    report = apply()
    assert pair.runs == ["plan", "fabric", "revert"]
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert "cannot log in any more" in report.message


def test_a_conflict_is_refused_before_anybody_is_asked(pair: PlayedPair, apply: Callable[..., Report]) -> None:
    pair.answers["plan"] = failed("/etc/netplan/98.yaml gives enp1s0f0np0 192.168.177.12/24 [fabric.foreign_netplan]")
    with pytest.raises(RefusedError, match="192") as caught:
        apply()
    assert caught.value.exit_code == 4
    assert (pair.runs, pair.asked) == (["plan"], [])


def test_a_lost_node_while_planning_is_no_verdict(pair: PlayedPair, apply: Callable[..., Report]) -> None:
    pair.answers["plan"] = LOST
    with pytest.raises(NoVerdictError):
        apply()
    assert pair.asked == []


def test_nothing_to_change_still_proves_and_settles_what_a_killed_run_left(
    pair: PlayedPair, apply: Callable[..., Report]
) -> None:
    pair.answers["plan"] = played()
    report = apply()
    assert pair.runs == ["plan", "confirm"]
    assert (report.verdict, report.exit_code, report.changes) == ("unchanged", 0, ())
    assert pair.asked == []


@pytest.mark.parametrize("verb", ["apply", "restore"])
def test_check_changes_nothing(pair: PlayedPair, verb: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(verb)(check=True, diff=True)
    assert pair.runs == ["plan"]
    assert (report.verdict, report.changes[0].diff) == ("planned", "+ addresses")


def test_an_interrupt_reverts_and_ends_with_130(pair: PlayedPair, apply: Callable[..., Report]) -> None:
    pair.answers["fabric"] = KeyboardInterrupt()
    report = apply()
    assert pair.runs == ["plan", "fabric", "revert"]
    assert (report.verdict, report.exit_code, report.left) == ("interrupted", 130, ())


def test_restore_is_proven_by_a_login_alone_because_the_rails_may_have_no_address_then(
    pair: PlayedPair, restore: Callable[..., Report]
) -> None:
    pair.silent_rail = "p0a"
    report = restore()
    assert pair.runs == ["plan", "restore", "confirm"]
    assert (report.verdict, report.exit_code) == ("changed", 0)


def test_restore_of_an_edited_file_is_refused(pair: PlayedPair, restore: Callable[..., Report]) -> None:
    pair.answers["plan"] = failed("60-dspark-fabric.yaml was edited since [fabric.edited]")
    with pytest.raises(RefusedError, match="edited since"):
        restore()
    assert pair.asked == []


def test_nothing_to_restore_changes_nothing_and_asks_nobody(pair: PlayedPair, restore: Callable[..., Report]) -> None:
    pair.answers["plan"] = played()
    report = restore()
    assert (report.verdict, report.exit_code, pair.runs, pair.asked) == ("unchanged", 0, ["plan"], [])


def test_consent_to_touch_the_management_path_reaches_the_nodes_only_when_given(
    pair: PlayedPair, loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    play = pair.play

    def watch(*args: Any, **more: Any) -> Any:
        told.append(more["variables"]["fabric_allow_management"])
        return play(*args, **more)

    monkeypatch.setattr(subject, "run_playbook", watch)
    for allowed in (False, True):
        subject.apply(loaded, consent=pair.asked.append, progress=lambda _: None, check=True, allow_management=allowed)
    assert told == [False, True]


def test_a_lost_node_is_waited_for_as_long_as_its_own_timer_was_told(
    pair: PlayedPair, apply: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a long window the node answers late; giving up sooner would call a restored pair incomplete."""
    pair.answers |= {"fabric": LOST, "revert": LOST}
    pair.journals["worker"] = "open"
    clock = [0.0]
    monkeypatch.setattr("dspark_ops.fabric.transaction.REVERT_MARGIN_S", 30.0)
    monkeypatch.setattr("dspark_ops.fabric.transaction.time.monotonic", lambda: clock[0])

    def pass_time(_seconds: float) -> None:
        clock[0] += 10
        pair.journals["worker"] = "reverted" if clock[0] > 200 else "open"

    monkeypatch.setattr("dspark_ops.fabric.transaction.time.sleep", pass_time)
    assert apply(revert_after_s=300).exit_code == 5
    clock[0], pair.journals["worker"] = 0.0, "open"
    pair.runs.clear()
    assert apply(revert_after_s=60).exit_code == 6


SUPERVISED = {UNIT_FILE: "[Unit]"}


@pytest.fixture
def held(pair: PlayedPair, loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A supervisor on the head; what it is told is among the runs of the pair."""
    document = render(loaded, NOTHING, Door("10.0.0.2", 22), {"head": 119.0, "worker": 119.0})
    pair.supervisor = {**SUPERVISED, CONFIG: json.dumps(document)}
    says = {"schema": SCHEMA, "site": loaded.site.name, "state": "serving", "hold": None}
    pair.supervisor_says = ProbeResult(id="supervise.status", rc=200, stdout=json.dumps(says))

    def play(_name: str, _loaded: LoadedSite, *, variables: Mapping[str, Any], **_: Any) -> PlayResult:
        pair.runs.append(str(variables["pair_supervisor_state"]))
        return played()

    monkeypatch.setattr(keeper, "run_playbook", play)
    return pair.runs


def test_a_supervisor_is_held_while_rails_change(
    pair: PlayedPair, held: list[str], apply: Callable[..., Report], restore: Callable[..., Report]
) -> None:
    """It would take the rail that vanishes for a fault, or start a rank over it."""
    assert apply().exit_code == 0
    assert held == ["plan", "held", "fabric", "confirm", "resumed"]
    assert "hold  the supervisor" in pair.asked[0]
    held.clear()
    assert restore().exit_code == 0
    assert held == ["plan", "held", "restore", "confirm", "resumed"]


def test_rails_that_were_put_back_give_the_hold_back(
    pair: PlayedPair, held: list[str], apply: Callable[..., Report]
) -> None:
    pair.silent_rail = "p0b"
    assert apply().exit_code == 5
    assert held == ["plan", "held", "fabric", "revert", "resumed"]


def test_rails_that_may_be_half_way_leave_it_held(
    pair: PlayedPair, held: list[str], apply: Callable[..., Report]
) -> None:
    pair.silent_rail = "p0b"
    pair.journals = {"head": "reverted", "worker": "armed"}
    report = apply()
    assert report.exit_code == 6
    assert "resumed" not in held
    assert any("stays held" in line for line in report.left)


def test_no_change_and_no_plan_need_no_supervisor(
    pair: PlayedPair, held: list[str], apply: Callable[..., Report]
) -> None:
    assert apply(check=True).verdict == "planned"
    pair.answers["plan"] = played()
    pair.supervisor_says = ProbeResult(id="supervise.status", error="connection refused")
    assert apply().verdict == "unchanged"
    assert not {"held", "resumed"} & set(held)


def test_one_that_cannot_be_asked_refuses_a_change_of_the_rails(
    pair: PlayedPair, held: list[str], apply: Callable[..., Report]
) -> None:
    pair.supervisor_says = ProbeResult(id="supervise.status", error="connection refused")
    with pytest.raises(RefusedError, match="cannot be asked"):
        apply()
    assert apply(force_hold=True).exit_code == 0
    assert held[1:] == ["plan", "held", "fabric", "confirm", "resumed"]
