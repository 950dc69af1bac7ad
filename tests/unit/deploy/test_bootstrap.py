"""The order of a bootstrap, what each failure leads to, and that nothing runs after a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES
from dspark_ops.deploy import bootstrap as subject
from dspark_ops.deploy.bootstrap import bootstrap, host_variables
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.report.models import Change, Report
from tests.unit.deploy.conftest import SiteMaker
from tests.unit.deploy.played_pair import LOST, Answer, PlayedPair, failed, played

RAILS = Change(node="worker", what="rails: /etc/netplan/60-dspark-fabric.yaml", diff="+ addresses")


@dataclass
class Pair(PlayedPair):
    """The same, bootstrapped."""

    def run(self, loaded: LoadedSite, **more: Any) -> Report:
        return bootstrap(loaded, consent=self.asked.append, progress=lambda _: None, **more)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A pair on which one file would change."""
    pair = Pair(answers={"plan": played(changes=[RAILS]), "fabric": played(changes=[RAILS])})
    pair.connect(monkeypatch, tmp_path / "state", subject)
    return pair


def test_each_node_is_told_its_own_ports_and_the_other_ends_address(make_site: SiteMaker) -> None:
    """The ends of a rail have different port names here: nothing of one end may reach the other."""
    told = host_variables(make_site().site, {"head": "ubuntu", "worker": "nvidia"})
    assert told["head"]["fabric_rails"] == [
        {"name": "p0a", "netdev": "enp1s0f0np0", "address": "10.77.0.1/24", "peer": "10.77.0.2"},
        {"name": "p0b", "netdev": "enP2p1s0f0np0", "address": "10.77.1.1/24", "peer": "10.77.1.2"},
    ]
    assert told["worker"]["fabric_rails"] == [
        {"name": "p0a", "netdev": "enp1s0f1np1", "address": "10.77.0.2/24", "peer": "10.77.0.1"},
        {"name": "p0b", "netdev": "enP2p1s0f1np1", "address": "10.77.1.2/24", "peer": "10.77.1.1"},
    ]
    assert told["worker"]["host_baseline_rail_netdevs"] == ["enp1s0f1np1", "enP2p1s0f1np1"]
    assert [told[role]["host_baseline_service_user"] for role in ROLES] == ["ubuntu", "nvidia"]


def test_all_phases_in_order_after_consent_to_a_plan_that_names_node_and_file(pair: Pair, loaded: LoadedSite) -> None:
    report = pair.run(loaded)
    assert pair.runs == ["plan", "baseline", "fabric", "verify+confirm"]
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert [(c.node, c.what, c.diff) for c in report.changes] == [("worker", RAILS.what, None)]
    assert [phase.name for phase in report.phases] == ["reach", "plan", "baseline", "fabric", "prove", "settle"]
    assert len(pair.asked) == 1
    assert "worker" in pair.asked[0]
    assert RAILS.what in pair.asked[0]
    assert all(told == host_variables(loaded.site, dict.fromkeys(ROLES, "ubuntu")) for told in pair.variables)


def test_a_difference_is_shown_when_asked_for(pair: Pair, loaded: LoadedSite) -> None:
    assert pair.run(loaded, diff=True).changes[0].diff == "+ addresses"


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ({"reachable": False, "error": "spark-worker: connection refused", "user": None}, "connection refused"),
        ({"sudo": False}, "ubuntu may not use sudo without a password"),
        ({"sudo": None}, "ubuntu may not use sudo without a password"),
    ],
)
def test_a_node_that_cannot_be_used_ends_it_before_any_play(
    pair: Pair, loaded: LoadedSite, reading: dict[str, Any], words: str
) -> None:
    pair.readings["worker"] = reading
    with pytest.raises(NoVerdictError) as caught:
        pair.run(loaded)
    assert caught.value.exit_code == 3
    assert words in caught.value.message
    assert "worker" in caught.value.message
    assert "head" not in caught.value.message
    assert "nothing was changed" in caught.value.message
    assert caught.value.hint
    assert pair.runs == []


def test_a_failed_precheck_refuses_with_the_nodes_own_words_and_nothing_else_runs(
    pair: Pair, loaded: LoadedSite
) -> None:
    pair.answers["plan"] = failed("/etc/netplan/98.yaml configures enp1s0f0np0 [fabric.foreign_netplan]")
    with pytest.raises(RefusedError) as caught:
        pair.run(loaded)
    assert caught.value.exit_code == 4
    assert "worker: /etc/netplan/98.yaml configures enp1s0f0np0" in caught.value.message
    assert pair.runs == ["plan"]
    assert pair.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(LOST, id="node lost"),
        pytest.param(failed("bootstrap.yml did not end within 1800 s", node=None), id="over time"),
        pytest.param(DsparkError("ansible-playbook cannot be started"), id="not started"),
    ],
)
def test_what_keeps_the_question_from_being_answered_is_no_verdict(
    pair: Pair, loaded: LoadedSite, answer: Answer
) -> None:
    """A precheck that was cut off has refused nothing: exit 3, not 4."""
    pair.answers["plan"] = answer
    with pytest.raises(DsparkError) as caught:
        pair.run(loaded)
    assert caught.value.exit_code == 3
    assert "None" not in caught.value.message
    assert pair.runs == ["plan"]
    assert pair.asked == []


def test_a_declined_plan_runs_nothing_more(pair: Pair, loaded: LoadedSite) -> None:
    def decline(plan: str) -> None:
        raise RefusedError("declined")

    with pytest.raises(RefusedError, match="declined"):
        bootstrap(loaded, consent=decline, progress=lambda _: None)
    assert pair.runs == ["plan"]


def test_check_shows_the_plan_and_asks_and_changes_nothing(pair: Pair, loaded: LoadedSite) -> None:
    report = pair.run(loaded, check=True)
    assert (report.verdict, report.exit_code, report.changes[0].what) == ("planned", 0, RAILS.what)
    assert pair.runs == ["plan"]
    assert pair.asked == []


def test_with_nothing_to_change_an_earlier_run_is_settled_and_nobody_is_asked(pair: Pair, loaded: LoadedSite) -> None:
    pair.answers["plan"] = played()
    report = pair.run(loaded)
    assert pair.runs == ["plan", "verify+confirm"]
    assert (report.verdict, report.exit_code, report.changes) == ("unchanged", 0, ())
    assert pair.asked == []


@pytest.mark.parametrize("phase", ["fabric", "verify+confirm"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failed("no carrier [fabric.no_carrier]"), "worker: no carrier"),
        (LOST, "worker could not be reached any more"),
        (failed("did not end within 1800 s", node=None), "pair: did not end"),
        (played(250), "ansible-playbook ended with 250"),
        (DsparkError("the run directory cannot be written: No space left on device"), "No space left"),
    ],
    ids=["failed", "lost", "over time", "crashed", "not started"],
)
def test_once_the_rails_may_have_changed_any_failure_puts_both_back(
    pair: Pair, loaded: LoadedSite, phase: str, answer: Answer, words: str
) -> None:
    pair.answers[phase] = answer
    report = pair.run(loaded)
    assert pair.runs[-2:] == [phase, "revert"]
    assert (report.verdict, report.exit_code, report.left) == ("restored", 5, ())
    assert words in report.message
    assert "as they were" in report.message
    assert [p.name for p in report.phases if p.status == "failed"] == [{"fabric": "fabric"}.get(phase, "settle")]


def test_a_confirmation_that_one_node_may_have_had_is_not_called_restored(pair: Pair, loaded: LoadedSite) -> None:
    """The head was confirmed, the worker was lost: the revert passes the head over, so the two may differ now."""
    pair.answers["verify+confirm"] = LOST
    pair.journals["head"] = "confirmed"
    report = pair.run(loaded)
    assert pair.runs[-2:] == ["verify+confirm", "revert"]
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "already confirmed" in report.left[0]
    assert "as they were" not in report.message


@pytest.mark.parametrize(
    ("answer", "state", "left"),
    [
        (failed("the file was edited since [fabric.revert]"), "reverted", "worker: the file was edited since"),
        (LOST, "open", "worker: answers, and its revert is not done yet"),
        (LOST, "revert-incomplete", "worker: its revert is incomplete"),
        (DsparkError("ansible-playbook cannot be started"), "open", "the revert could not be run"),
        (KeyboardInterrupt(), "open", "puts its rails back by itself"),
    ],
    ids=["failed", "lost", "incomplete", "not started", "interrupted"],
)
def test_a_revert_that_is_not_complete_says_what_is_left(
    pair: Pair, loaded: LoadedSite, answer: Answer, state: str, left: str
) -> None:
    pair.answers |= {"fabric": failed("boom"), "revert": answer}
    pair.journals["worker"] = state
    report = pair.run(loaded)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert any(left in line for line in report.left), report.left
    assert "as they were" not in report.message


@pytest.mark.parametrize("answer", [LOST, DsparkError("ansible-playbook cannot be started")], ids=["lost", "no play"])
def test_a_node_that_put_itself_back_meanwhile_is_restored(pair: Pair, loaded: LoadedSite, answer: Answer) -> None:
    """The control host cannot revert it any more; the node's own journal says that it did."""
    pair.answers |= {"fabric": LOST, "revert": answer}
    report = pair.run(loaded)
    assert (report.verdict, report.exit_code, report.left) == ("restored", 5, ())
    assert "put back" in (report.phases[-1].detail or "")


def test_rails_that_do_not_carry_full_packets_are_never_confirmed(pair: Pair, loaded: LoadedSite) -> None:
    pair.silent_rail = "p0b"
    report = pair.run(loaded)
    assert pair.runs[-2:] == ["fabric", "revert"]
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert "rail p0b" in report.message


def test_a_failed_baseline_leaves_the_rails_alone_and_says_what_may_be_left(pair: Pair, loaded: LoadedSite) -> None:
    pair.answers["baseline"] = failed("apt is broken [host.packages]")
    report = pair.run(loaded)
    assert pair.runs == ["plan", "baseline"]
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert "baseline" in report.left[0]


@pytest.mark.parametrize(
    ("phase", "runs", "left"),
    [
        ("baseline", ["baseline"], 1),
        ("fabric", ["fabric", "revert"], 0),
        ("verify+confirm", ["verify+confirm", "revert"], 0),
    ],
)
def test_an_interrupt_undoes_and_ends_with_130(
    pair: Pair, loaded: LoadedSite, phase: str, runs: list[str], left: int
) -> None:
    pair.answers[phase] = KeyboardInterrupt()
    report = pair.run(loaded)
    assert pair.runs[-len(runs) :] == runs
    assert (report.verdict, report.exit_code, len(report.left)) == ("interrupted", 130, left)


def test_the_site_is_locked_while_it_runs_and_free_afterwards(
    pair: Pair, loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspark_ops.ansible_run.lock import inherited_descriptors

    held: list[int] = []
    play: Callable[..., PlayResult] = pair.play

    def watch(*args: Any, **more: Any) -> PlayResult:
        held.append(len(inherited_descriptors()))
        return play(*args, **more)

    monkeypatch.setattr(subject, "run_playbook", watch)
    pair.run(loaded)
    assert held == [1] * 4
    assert inherited_descriptors() == ()
