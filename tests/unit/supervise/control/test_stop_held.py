"""stop and `tenants evict` over a supervisor: what is stopped by a person stays stopped; memory is not raced for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dspark_ops.deploy import looking, reach, stopping
from dspark_ops.deploy.apply import Documents, StepFailedError
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.report.models import Report
from dspark_ops.supervise.control.document import Adopted, adopt
from dspark_ops.supervise.control.words import run_owner
from dspark_ops.tenants import evict
from dspark_ops.tenants.sight import NodeTenants, TenantSight
from dspark_ops.transport.base import NodeReading
from tests.unit.deploy.conftest import rank_of, seen
from tests.unit.deploy.test_launch import Stage
from tests.unit.deploy.test_launch import played as result
from tests.unit.supervise.control.conftest import Keeping, head_reading, supervised, supervisor_of
from tests.unit.tenants.test_policy import tenant

HOG = tenant()


def kept(stage: Stage) -> Adopted:
    return adopt(Documents.of(render_pair(stage.loaded.site, stage.loaded.profile), "e1"))


@pytest.fixture
def stop(stage: Stage, keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    monkeypatch.setattr(stopping, "owed_lines", lambda _: [])
    monkeypatch.setattr(looking, "observe", lambda *_: stage.observation)

    def run(**more: Any) -> Report:
        given = {"consent": stage.plans.append, "progress": lambda _: None} | more
        return stopping.stop(stage.loaded, **given)

    return run


def running(stage: Stage) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    stage.observation = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]))


def test_a_stopped_pair_stays_stopped(stage: Stage, keeping: Keeping, stop: Callable[..., Report]) -> None:
    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage)))
    report = stop()
    assert stage.steps == ["held", "stop.yml", "told"]
    assert report.verdict == "stopped"
    assert keeping.told()["wanted"] == "stopped"
    assert keeping.told()["ranks"] is not None  # `start` and explain know the release still


def test_a_pair_between_two_starts_of_the_supervisor_is_stopped_too(
    stage: Stage, keeping: Keeping, stop: Callable[..., Report]
) -> None:
    """No rank runs at this moment, and one would in the next."""
    stage.observation = seen(stage.loaded)
    supervised(stage, supervisor_of(stage.loaded, kept(stage), state="cooling"))
    report = stop()
    assert stage.steps == ["held", "stop.yml", "told"]
    assert (report.verdict, report.exit_code) == ("stopped", 0)
    assert keeping.told()["wanted"] == "stopped"


def test_a_second_stop_changes_nothing(stage: Stage, keeping: Keeping, stop: Callable[..., Report]) -> None:
    stage.observation = seen(stage.loaded)
    supervised(stage, supervisor_of(stage.loaded, replace(kept(stage), wanted="stopped")))
    assert (stop().verdict, stage.steps) == ("unchanged", [])


def test_a_stop_that_fails_leaves_it_held(stage: Stage, keeping: Keeping, stop: Callable[..., Report]) -> None:
    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage)))
    stage.outcome["stop.yml"] = result(unreachable=("worker",))
    report = stop()
    assert report.exit_code == 6
    assert "told" not in stage.steps
    assert any("stays held" in line for line in report.left)


def test_records_that_cannot_be_written_do_not_bring_the_pair_back(
    stage: Stage, keeping: Keeping, stop: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NoVerdictError("no space left on device")

    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage)))
    monkeypatch.setattr(stopping, "close_open", full)
    with pytest.raises(NoVerdictError, match="no space left"):
        stop()
    assert stage.steps == ["held", "stop.yml", "told"]
    assert keeping.told()["wanted"] == "stopped"


def test_a_stop_that_it_was_not_told_of_is_stopped_again(
    stage: Stage, keeping: Keeping, stop: Callable[..., Report]
) -> None:
    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage)))
    keeping.fail = "told"
    report = stop()
    assert (report.exit_code, report.next_step) == (6, "dspark-ops stop")


def test_check_holds_nothing(stage: Stage, keeping: Keeping, stop: Callable[..., Report]) -> None:
    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage)))
    assert stop(check=True).verdict == "planned"
    assert stage.steps == ["stop.yml"]


def test_one_that_cannot_be_asked_refuses_a_stop(stage: Stage, keeping: Keeping, stop: Callable[..., Report]) -> None:
    running(stage)
    supervised(stage, supervisor_of(stage.loaded, kept(stage), None))
    with pytest.raises(RefusedError, match="cannot be asked"):
        stop()
    assert stage.steps == []


def test_a_hold_that_is_not_given_back_does_not_hide_why_it_ended(
    stage: Stage, keeping: Keeping, evicting: Callable[[], Report]
) -> None:
    stage.outcome["evict"] = KeyboardInterrupt()
    keeping.fail = "resumed"
    with pytest.raises(KeyboardInterrupt):
        evicting()


def test_an_eviction_whose_hold_is_not_given_back_says_how_it_is(
    stage: Stage, keeping: Keeping, evicting: Callable[[], Report]
) -> None:
    keeping.fail = "resumed"
    report = evicting()
    assert (report.exit_code, report.next_step) == (6, "dspark-ops supervise resume")


@pytest.fixture
def evicting(stage: Stage, keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Report]:
    head = head_reading(stage.loaded, kept(stage))
    worker = NodeReading(node="worker", reachable=True, sudo=True)
    monkeypatch.setattr(reach, "read_pair", lambda *_: {"head": head, "worker": worker})
    sight = TenantSight({"head": NodeTenants((HOG,)), "worker": NodeTenants(())})
    monkeypatch.setattr(evict, "look_at_tenants", lambda *_: sight)

    def carry_out(*_: object, **__: object) -> tuple[()]:
        stage.steps.append("evict")
        outcome = stage.outcome.get("evict")
        if isinstance(outcome, BaseException):
            raise outcome
        return ()

    monkeypatch.setattr(evict, "evict", carry_out)
    return lambda: evict.evict_verb(
        stage.loaded, keys=(HOG.key,), everything=False, consent=stage.plans.append, progress=lambda _: None
    )


def test_tenants_leave_while_it_is_held_and_it_keeps_what_it_kept(
    stage: Stage, keeping: Keeping, evicting: Callable[[], Report]
) -> None:
    report = evicting()
    assert stage.steps == ["held", "evict", "resumed"]
    assert keeping.asked("resumed") == [["resume", "--owner", run_owner()]]
    assert "--drain" not in keeping.asked("held")[0]
    assert report.exit_code == 0
    assert "hold  the supervisor" in stage.plans[0]


def test_an_eviction_that_fails_gives_the_hold_back(
    stage: Stage, keeping: Keeping, evicting: Callable[[], Report]
) -> None:
    stage.outcome["evict"] = StepFailedError("it does not end")
    assert evicting().exit_code == 1
    assert stage.steps == ["held", "evict", "resumed"]


def test_an_interrupted_eviction_gives_the_hold_back(
    stage: Stage, keeping: Keeping, evicting: Callable[[], Report]
) -> None:
    stage.outcome["evict"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        evicting()
    assert stage.steps == ["held", "evict", "resumed"]
