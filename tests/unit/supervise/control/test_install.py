"""`supervise install` and `remove`: what is adopted, what is refused, and that a failure leaves nothing half."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy import looking
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.run_journal import OpenRun, write_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.facts.rank import LABEL
from dspark_ops.facts.supervisor import ABSENT, SupervisorFacts
from dspark_ops.report.models import Change, Report, now
from dspark_ops.supervise.control import install
from dspark_ops.supervise.control.document import Adopted, adopt, kept_stopped
from dspark_ops.supervise.control.reading import find_door, worker_problem
from dspark_ops.supervise.zipapp import build
from dspark_ops.transport.base import NodeReading, ProbeResult, RecordedRunner
from tests.unit.deploy.conftest import rank_of, seen
from tests.unit.deploy.test_launch import Kept, Stage
from tests.unit.supervise.control.conftest import DOOR, SERVING, supervised, supervisor_of

CHANGE = Change(node="head", what="Write the unit", diff=None)


class Nodes:
    """The runs of supervise.yml; `changes` is what a run finds to do, `fail` the state whose applying fails."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, bool]] = []
        self.variables: Mapping[str, Any] = {}
        self.changes: tuple[Change, ...] = (CHANGE,)
        self.fail: str | None = None
        self.answer: tuple[str | None, str | None] = (None, "serving")
        self.plans: list[str] = []
        self.meanwhile: SupervisorFacts | None = None

    def play(
        self, name: str, _loaded: LoadedSite, *, variables: Mapping[str, Any], check: bool, **_: Any
    ) -> PlayResult:
        assert name == "supervise.yml"
        state = str(variables["pair_supervisor_state"])
        self.runs.append((state, check))
        if state == "present":
            self.variables = variables
        failures = (TaskFailure("worker", "Let the key in", "no"),) if state == self.fail and not check else ()
        changes = () if failures else self.changes
        return PlayResult(2 if failures else 0, {}, changes, failures, (), 1.0, Path("log"))

    @property
    def config(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.variables["pair_supervisor_config"]
        return found


@pytest.fixture
def nodes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    found = Nodes()
    monkeypatch.setattr(install, "run_playbook", found.play)
    monkeypatch.setattr(install, "find_door", lambda _: DOOR)
    monkeypatch.setattr(install, "read_again", lambda _: found.meanwhile or stage.observation.supervisor)
    monkeypatch.setattr(install, "wait_for_answer", lambda _: found.answer)
    monkeypatch.setattr(looking, "observe", lambda *_: stage.observation)
    return found


@pytest.fixture
def run(stage: Stage, nodes: Nodes) -> Callable[..., Report]:
    def verb(which: Callable[..., Report] = install.install, **more: Any) -> Report:
        return which(stage.loaded, consent=nodes.plans.append, progress=lambda _: None, **more)

    return verb


def kept(loaded: LoadedSite) -> Adopted:
    return adopt(Documents.of(render_pair(loaded.site, loaded.profile), "e1"))


def test_an_empty_pair_gets_a_supervisor_that_starts_nothing(nodes: Nodes, run: Callable[..., Report]) -> None:
    report = run()
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert nodes.runs == [("present", True), ("present", False)]
    assert (nodes.config["wanted"], nodes.config["ranks"]) == ("stopped", None)
    assert "192.168.7.12 port 22, else at 10.77.0.2" in nodes.plans[0]
    assert Path(nodes.variables["pair_supervisor_program"]).read_bytes().startswith(b"#!/usr/bin/python3\n")


def test_it_adopts_what_runs_as_it_is_on_record_and_not_what_the_site_says(
    stage: Stage, served: Kept, nodes: Nodes, run: Callable[..., Report]
) -> None:
    run()
    head = nodes.config["ranks"]["head"]
    assert head["labels"][f"{LABEL}release"] == served.id
    assert "--max-num-seqs=3" in head["command"]
    assert nodes.config["wanted"] == "serving"


def test_a_release_of_another_control_host_is_known_by_the_site(
    stage: Stage, nodes: Nodes, run: Callable[..., Report]
) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    stage.observation = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]))
    run()
    assert nodes.config["ranks"]["worker"]["labels"][f"{LABEL}release"] == specs["worker"].release


def test_a_second_installation_keeps_what_the_first_was_told_since(
    stage: Stage, served: Kept, nodes: Nodes, run: Callable[..., Report]
) -> None:
    """It was stopped meanwhile; what runs at this moment says nothing about what is wanted."""
    supervised(stage, supervisor_of(served.loaded, kept_stopped(kept(served.loaded))))
    nodes.changes = ()
    report = run()
    assert (report.verdict, nodes.plans) == ("unchanged", [])
    assert nodes.runs == [("present", True)]
    assert nodes.config["wanted"] == "stopped"


def test_an_update_asks_what_is_kept_and_not_what_the_site_file_says_since(
    stage: Stage, served: Kept, nodes: Nodes, run: Callable[..., Report], make_site: Callable[..., LoadedSite]
) -> None:
    """With the port or the name of a release that nobody deployed, a healthy pair would never answer."""
    supervised(stage, supervisor_of(served.loaded, kept(served.loaded)))
    stage.loaded = make_site("serve.api_port=8111", "model.served_name=other")
    run()
    assert nodes.config["api"]["url"].endswith(f":{served.loaded.site.serve.api_port}")
    assert nodes.config["api"]["model"] == served.loaded.site.model.served_name


def test_what_is_kept_and_not_known_here_is_refused(
    stage: Stage, nodes: Nodes, run: Callable[..., Report], make_site: Callable[..., LoadedSite]
) -> None:
    supervised(stage, supervisor_of(stage.loaded, kept(stage.loaded)))
    stage.loaded = make_site("serve.api_port=8111")
    with pytest.raises(RefusedError, match="not on this machine"):
        run()


@pytest.mark.parametrize("verb", [install.install, install.remove])
def test_two_control_hosts_take_turns(
    stage: Stage, nodes: Nodes, run: Callable[..., Report], verb: Callable[..., Report]
) -> None:
    """A deploy of the other one would be forgotten, and its ranks be orphans."""
    hold = {"owner": "run of ann@elsewhere", "reason": "deploy of r-1", "left_s": 600.0}
    supervised(stage, supervisor_of(stage.loaded, hold=hold))
    with pytest.raises(RefusedError, match="ann@elsewhere"):
        run(verb)
    assert nodes.runs == []


@pytest.mark.parametrize("verb", [install.install, install.remove])
def test_what_was_told_while_the_plan_was_read_is_not_overwritten(
    stage: Stage, nodes: Nodes, run: Callable[..., Report], verb: Callable[..., Report]
) -> None:
    supervised(stage, supervisor_of(stage.loaded))
    nodes.meanwhile = supervisor_of(stage.loaded, kept(stage.loaded))
    with pytest.raises(RefusedError, match="while the plan was shown"):
        run(verb)
    assert [check for _, check in nodes.runs] == [True]


def test_removing_needs_to_know_whose_it_is(stage: Stage, nodes: Nodes, run: Callable[..., Report]) -> None:
    supervised(stage, SupervisorFacts(problem="sudo refused"))
    with pytest.raises(NoVerdictError, match="sudo refused"):
        run(install.remove)
    supervised(stage, supervisor_of(stage.loaded, None, {**SERVING, "site": "lab"}))  # its configuration is damaged
    with pytest.raises(RefusedError, match="keeps site 'lab'"):
        run(install.remove)
    assert nodes.runs == []


@pytest.mark.parametrize("text", ["", "10.0.0.1 5 127.0.0.1 22", "::1 5 ::1 22", "fe80::2%eth0 5 fe80::1%eth0 22"])
def test_an_address_that_only_the_worker_itself_has_is_no_way_to_it(text: str) -> None:
    said = ProbeResult(id="supervise.door", rc=0, stdout=text)
    runner: Any = RecordedRunner(NodeReading(node="worker", reachable=True, results={said.id: said}))
    with pytest.raises(NoVerdictError, match="management address"):
        find_door(runner)


@pytest.mark.parametrize("case", ["half", "unknown-release", "restarts", "cut-off", "another", "unclear"])
def test_what_could_go_wrong_later_is_refused_now(
    stage: Stage, nodes: Nodes, run: Callable[..., Report], make_site: Callable[..., LoadedSite], case: str
) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    other = make_site("serve.max_num_seqs=2")
    others = render_pair(other.site, other.profile)
    every: dict[str, dict[str, Any]] = {
        "half": {"head": rank_of(specs["head"])},
        "unknown-release": {role: rank_of(others[role]) for role in others},
        "restarts": {role: rank_of(specs[role], restart_policy="always") for role in specs},
    }
    stage.observation = seen(stage.loaded, **every.get(case, {}))
    if case == "cut-off":
        write_open(OpenRun(run="a" * 32, site="desk", verb="deploy", release="r-abcdef", before=None, began_at=now()))
    if case == "another":
        facts = supervisor_of(stage.loaded)
        supervised(
            stage, facts.model_copy(update={"config": str(facts.config).replace('"site": "desk"', '"site": "lab"')})
        )
    if case == "unclear":
        supervised(stage, SupervisorFacts(problem="sudo refused"))
    with pytest.raises(NoVerdictError if case == "unclear" else RefusedError):
        run()
    assert nodes.runs == []


def test_a_first_installation_that_fails_leaves_nothing(nodes: Nodes, run: Callable[..., Report]) -> None:
    nodes.fail = "present"
    report = run()
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert nodes.runs[-1] == ("absent", False)
    assert "Let the key in" in report.message


def test_one_whose_worker_does_not_let_it_in_is_undone(nodes: Nodes, run: Callable[..., Report]) -> None:
    nodes.answer = ("its end on the worker was not reached", "starting")
    report = run()
    assert (report.exit_code, nodes.runs[-1]) == (5, ("absent", False))


def test_an_update_that_fails_does_not_take_the_old_one_away(
    stage: Stage, nodes: Nodes, run: Callable[..., Report]
) -> None:
    supervised(stage, supervisor_of(stage.loaded))
    nodes.fail = "present"
    report = run()
    assert report.exit_code == 6
    assert ("absent", False) not in nodes.runs


def test_a_first_installation_that_was_cut_off_is_still_the_first_one(
    stage: Stage, nodes: Nodes, run: Callable[..., Report]
) -> None:
    """Its unit is there and has never run: what fails now leaves nothing, as it would have the first time."""
    cut_off = supervisor_of(stage.loaded, status=None)
    supervised(stage, cut_off.model_copy(update={"ran": False}))
    nodes.fail = "present"
    report = run()
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert nodes.runs[-1] == ("absent", False)


def test_check_writes_nothing(nodes: Nodes, run: Callable[..., Report]) -> None:
    report = run(check=True)
    assert (report.verdict, nodes.runs, nodes.plans) == ("planned", [("present", True)], [])
    assert "1 changes would be made" in report.message


def test_declined_is_nothing_done(stage: Stage, nodes: Nodes) -> None:
    def decline(_: str) -> None:
        raise RefusedError("declined")

    with pytest.raises(RefusedError):
        install.install(stage.loaded, consent=decline, progress=lambda _: None)
    assert nodes.runs == [("present", True)]


def test_removing_asks_and_says_what_goes(stage: Stage, nodes: Nodes, run: Callable[..., Report]) -> None:
    supervised(stage, supervisor_of(stage.loaded, kept(stage.loaded)))
    report = run(install.remove)
    assert report.exit_code == 0
    assert nodes.runs == [("absent", True), ("absent", False)]
    assert "the ranks stay as they are" in nodes.plans[0]


def test_removing_what_is_not_there_changes_nothing(stage: Stage, nodes: Nodes, run: Callable[..., Report]) -> None:
    stage.observation = replace(stage.observation, supervisor=ABSENT)
    nodes.changes = ()
    assert (run(install.remove).verdict, nodes.runs) == ("unchanged", [("absent", True)])


def test_removing_half_an_installation_is_told_when_it_fails(nodes: Nodes, run: Callable[..., Report]) -> None:
    nodes.fail = "absent"
    assert run(install.remove).exit_code == 6


@pytest.mark.parametrize(
    ("worker", "word"),
    [({"reachable": True}, None), ({"reachable": False}, "was not reached"), ({"reachable": None}, "not been looked")],
)
def test_half_a_link_is_no_proof(worker: Mapping[str, Any], word: str | None) -> None:
    said = worker_problem({**SERVING, "nodes": {"worker": worker}, "problems": ["permission denied"]})
    assert said is None if word is None else said is not None and word in said and "permission denied" in said


def test_the_program_is_the_same_bytes_every_time() -> None:
    assert build() == build()
