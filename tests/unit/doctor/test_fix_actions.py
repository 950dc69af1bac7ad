"""The baseline action against played playbooks, and what the other actions ask of the verbs that carry them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.deploy.bootstrap import host_variables
from dspark_ops.doctor.fix import actions, baseline, redeploy
from dspark_ops.doctor.fix.actions import ACTIONS, ActionId, Conduct
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Change, Report, Verdict
from tests.unit.deploy.played_pair import LOST, Answer, PlayedPair, failed, played
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.doctor.test_fix_run import made

LOADED = load_case_site()
LOGIND = Change(node="head", what="Set RemoveIPC=no", diff="+ RemoveIPC=no")


@dataclass
class Hosts(PlayedPair):
    """Two hosts whose baseline would change one file."""

    def run(self, **more: Any) -> Report:
        return baseline.apply_baseline(LOADED, consent=self.asked.append, progress=lambda _: None, **more)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts(answers={"plan": played(changes=[LOGIND]), "baseline": played(changes=[LOGIND])})
    hosts.connect(monkeypatch, tmp_path / "state", baseline)
    return hosts


def test_the_baseline_plays_no_task_of_the_fabric(
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags: list[tuple[str, ...]] = []
    play: Callable[..., Any] = hosts.play

    def watch(*args: Any, **more: Any) -> Any:
        tags.append(tuple(more["tags"]))
        return play(*args, **more)

    monkeypatch.setattr(baseline, "run_playbook", watch)
    report = hosts.run()
    assert tags == [("host_precheck", "baseline"), ("baseline",)]
    assert hosts.runs == ["plan", "baseline"]
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert [(c.what, c.diff) for c in report.changes] == [(LOGIND.what, None)]
    assert LOGIND.what in hosts.asked[0]
    assert all(told == host_variables(LOADED.site, dict.fromkeys(ROLES, "ubuntu")) for told in hosts.variables)


def test_check_foretells_and_changes_nothing(hosts: Hosts) -> None:
    report = hosts.run(check=True, diff=True)
    assert (report.verdict, report.exit_code, hosts.runs, hosts.asked) == ("planned", 0, ["plan"], [])
    assert report.changes[0].diff == "+ RemoveIPC=no"


def test_with_nothing_to_change_it_still_finishes_what_a_killed_run_left(
    hosts: Hosts,
) -> None:
    hosts.answers = {"plan": played(), "baseline": played()}
    report = hosts.run()
    assert (hosts.runs, hosts.asked) == (["plan", "baseline"], [])
    assert (report.verdict, report.changes) == ("unchanged", ())


def test_a_precheck_of_the_host_refuses_before_anything(hosts: Hosts) -> None:
    hosts.answers["plan"] = failed("Docker comes from the snap [host.docker_snap]")
    with pytest.raises(RefusedError, match="snap"):
        hosts.run()
    assert hosts.runs == ["plan"]


def test_a_host_that_is_away_ends_it_before_any_play(hosts: Hosts) -> None:
    hosts.readings["worker"] = {"reachable": False, "error": "connection refused", "user": None}
    with pytest.raises(NoVerdictError):
        hosts.run()
    assert hosts.runs == []


@pytest.mark.parametrize(
    ("answer", "verdict", "code", "words"),
    [
        (failed("apt is broken"), "restore-incomplete", 6, "apt is broken"),
        (LOST, "restore-incomplete", 6, "worker could not be reached"),
        (played(250), "restore-incomplete", 6, "ended with 250"),
        (KeyboardInterrupt(), "interrupted", 130, "interrupted"),
    ],
)
def test_a_baseline_that_breaks_says_what_may_be_left(
    hosts: Hosts,
    answer: Answer,
    verdict: str,
    code: int,
    words: str,
) -> None:
    hosts.answers["baseline"] = answer
    report = hosts.run()
    assert (report.verdict, report.exit_code) == (verdict, code)
    assert words in report.message
    assert "partly applied" in report.left[0]


VERBS = {
    ActionId.RAILS: "apply_rails",
    ActionId.IMAGE_SYNC: "sync_image",
    ActionId.MODEL_FETCH: "fetch_model",
    ActionId.MODEL_SYNC: "sync_model",
    ActionId.DEPLOY: "redeploy",
    ActionId.START: "deploy_verb",
    ActionId.TENANTS: "restore_verb",
    ActionId.BASELINE: "apply_baseline",
}


@pytest.mark.parametrize("action", list(ActionId))
@pytest.mark.parametrize("check", [True, False])
def test_an_action_asks_its_verb_for_no_more_than_what_was_consented_to(
    monkeypatch: pytest.MonkeyPatch,
    action: ActionId,
    check: bool,
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(actions, VERBS[action], lambda _loaded, **words: calls.append(words))
    asked: list[str] = []
    how = Conduct(asked.append, lambda _: None, check=check, diff=True)
    ACTIONS[action].carry(load_case_site(), how)
    (words,) = calls
    assert words["consent"] == how.consent
    wishes = words.get("wishes")
    if wishes is None:
        assert (words["check"], words["diff"]) == (check, True)
        assert not words.get("allow_management")
        assert not words.get("start_processes")
    else:
        assert (wishes.check, wishes.diff, wishes.evict) == (check, True, False)
        assert not wishes.load_image
        assert words["verb"] == action.value


@pytest.mark.parametrize("action", [ActionId.RAILS, ActionId.DEPLOY, ActionId.START, ActionId.TENANTS])
def test_what_stops_a_release_or_moves_the_network_always_needs_consent(action: ActionId) -> None:
    assert ACTIONS[action].least == "C"


@dataclass
class Verbs:
    """A deploy and a stop that answer as told. called: each with its mode."""

    keeps: bool = False
    deployed: int = 0
    stopped: int = 0
    called: list[str] = field(default_factory=list)

    def deploy(self, _loaded: Any, *, verb: str, wishes: Any, **_: Any) -> Report:
        assert not wishes.evict
        self.called.append(f"{verb}?" if wishes.check else verb)
        if wishes.check:
            return made("planned", ExitCode.OK, 0 if self.keeps else 2)
        verdict: Verdict = {0: "changed", 5: "restored", 6: "restore-incomplete"}[self.deployed]  # type: ignore[assignment]
        return made(verdict, code_of(self.deployed), 2)

    def stop(self, _loaded: Any, *, remove: bool, check: bool = False, **_: Any) -> Report:
        assert remove
        self.called.append("stop?" if check else "stop")
        return made("planned" if check else "stopped", code_of(self.stopped), 2)

    def run(self, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Report:
        monkeypatch.setattr(redeploy, "deploy_verb", self.deploy)
        monkeypatch.setattr(redeploy, "stop_verb", self.stop)
        return redeploy.redeploy(LOADED, consent=lambda _: None, progress=lambda _: None, **more)


def code_of(number: int) -> ExitCode:
    return next(code for code in ExitCode if code == number)


def test_a_deploy_that_changes_something_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = Verbs()
    assert len(verbs.run(monkeypatch).changes) == 2
    assert verbs.called == ["deploy?", "deploy"]
    assert len(Verbs().run(monkeypatch, check=True).changes) == 2


def test_what_is_wrong_under_right_labels_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = Verbs(keeps=True)
    report = verbs.run(monkeypatch)
    assert verbs.called == ["deploy?", "stop", "deploy"]
    assert (len(report.changes), report.exit_code) == (4, 0)
    asked = Verbs(keeps=True)
    assert len(asked.run(monkeypatch, check=True).changes) == 2
    assert asked.called == ["deploy?", "stop?"]


def test_a_stop_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    verbs = Verbs(keeps=True, stopped=6)
    assert verbs.run(monkeypatch).exit_code == 6
    assert verbs.called == ["deploy?", "stop"]


def test_a_deploy_that_fails_after_the_stop_is_not_called_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Verbs(keeps=True, deployed=5).run(monkeypatch)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "nothing serves" in report.left[-1]
    assert Verbs(deployed=5).run(monkeypatch).exit_code == 5
