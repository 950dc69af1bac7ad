"""Every way out of a deploy after consent: both ranks up, the previous state, or a list of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy import apply, giving_back, launch, looking, returning, taking_down, transaction
from dspark_ops.deploy import rollback as rollback_module
from dspark_ops.deploy.apply import Documents, StepFailedError
from dspark_ops.deploy.clearing import Clearing
from dspark_ops.deploy.launch import Wishes
from dspark_ops.deploy.observed import CanaryAnswer, Observation
from dspark_ops.deploy.readiness import Readiness
from dspark_ops.deploy.rollback import rollback
from dspark_ops.deploy.run_journal import OpenRun, read_open, write_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.memory import room
from dspark_ops.releases import store
from dspark_ops.releases.compose import compose
from dspark_ops.releases.effective import ReadBack
from dspark_ops.releases.model import EffectiveRank, GateResult
from dspark_ops.report.models import Report
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.restore import Restoration, RestoreOutcome
from tests.unit.deploy.conftest import SiteMaker, rank_of, seen

TEXT = "The quick brown fox jumps over the lazy dog."
READY = Readiness(True, TEXT, None, 20.0)
DIED = Readiness(False, None, "the rank on worker ended while starting: exit code 137: killed (SIGKILL)", 9.0)
RIGHT = CanaryAnswer(True, TEXT, None)
NOW = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)
HOG = Tenant(
    node="head",
    kind="container",
    key="container:hog",
    what="a container",
    memory_kib=9 << 20,
    stops_by="docker stop",
    comes_back_by="docker start",
)


def played(*failures: TaskFailure, unreachable: tuple[Role, ...] = ()) -> PlayResult:
    rc = 4 if unreachable else 2 if failures else 0
    return PlayResult(rc, {}, (), failures, unreachable, 1.0, Path("log"))


class Stage:
    """What the nodes and playbooks do; `steps` is what was run, in order."""

    def __init__(self, loaded: LoadedSite) -> None:
        self.loaded = loaded
        self.steps: list[str] = []
        self.outcome: dict[str, PlayResult | BaseException] = {}
        self.ends: list[Readiness | BaseException] = [READY]
        self.observation: Observation = seen(loaded)
        self.after_clearing: Observation | None = None
        self.clearing: Clearing | BaseException = Clearing()
        self.effective_max_num_seqs: str | None = None
        self.unread: dict[Role, str] = {}
        self.gate: GateResult | None = None
        self.left: tuple[Restoration, ...] = ()
        self.plans: list[str] = []
        self.dead: list[str | None] = []
        self.owed: list[str] = []

    def run_playbook(self, name: str, _loaded: LoadedSite, **words: Any) -> PlayResult:
        tag = name if name == "stop.yml" else words["tags"][0]
        self.steps.append(tag)
        outcome = self.outcome.get(tag, played())
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def wait_ready(self, *_args: object, **_words: object) -> Readiness:
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, BaseException):
            raise end
        return end

    def look_around(self, *_args: object, **_words: object) -> Clearing:
        if isinstance(self.clearing, BaseException):
            raise self.clearing
        return self.clearing

    def evict(self, *_args: object, **_words: object) -> None:
        self.steps.append("evict")
        outcome = self.outcome.get("evict")
        if isinstance(outcome, BaseException):
            raise outcome

    def restore(self, *_args: object, **_words: object) -> RestoreOutcome:
        self.steps.append("restore")
        back = Restoration(node="head", key="container:hog", outcome="restored", sentence="runs again")
        return RestoreOutcome(restored=() if self.left else (back,), left=self.left)

    def there(self) -> frozenset[str]:
        ranks = [node.rank for node in self.observation.pair.nodes]
        return frozenset(str(rank.label("release")) for rank in ranks if rank is not None)

    def read_back(self, _runners: object) -> ReadBack:
        found: dict[Role, EffectiveRank | None] = {}
        for role, spec in render_pair(self.loaded.site, self.loaded.profile).items():
            changed = self.effective_max_num_seqs
            argv = [f"--max-num-seqs={changed}" if changed and "--max-num-seqs" in w else w for w in spec.command]
            env = {str(name): str(value) for name, value in spec.env.items()}
            found[role] = EffectiveRank(
                container="c" * 64, image_id=spec.image_id, epoch="e", argv=tuple(argv), env=env, image_env={}
            )
        found |= dict.fromkeys(self.unread, None)
        return ReadBack(found, {}, {}, self.unread)


@pytest.fixture
def stage(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    stage = Stage(loaded)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(apply, "run_playbook", stage.run_playbook)
    for module in (transaction, returning):
        monkeypatch.setattr(module, "wait_ready", stage.wait_ready)
    for module in (launch, transaction):
        monkeypatch.setattr(module, "look_inside", lambda *_: None)
    for module in (transaction, returning):
        monkeypatch.setattr(module, "read_back", stage.read_back)
    monkeypatch.setattr(transaction, "rank_failure", lambda *_: stage.dead.pop(0) if stage.dead else None)
    monkeypatch.setattr(launch, "owed_lines", lambda *_: stage.owed)
    monkeypatch.setattr(rollback_module, "_there", lambda _: stage.there())
    monkeypatch.setattr(looking, "observe", lambda *_: stage.observation)
    monkeypatch.setattr(transaction, "observe", lambda *_: stage.after_clearing or stage.observation)
    monkeypatch.setattr(
        transaction, "collect_logs", lambda *_: {"worker": "2026-11-24T00:00:01Z ValueError: bad shard"}
    )
    monkeypatch.setattr(transaction, "evict", stage.evict)
    monkeypatch.setattr(transaction, "run_gate", lambda *_: stage.gate)
    monkeypatch.setattr(launch, "look_around", stage.look_around)
    monkeypatch.setattr(giving_back, "restore", stage.restore)
    for module in (taking_down, giving_back):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(room, "STILL_S", 0.0)
    return stage


@dataclass(frozen=True)
class Kept:
    """A release that serves already: another max_num_seqs of the same site."""

    loaded: LoadedSite
    id: str


@pytest.fixture
def served(stage: Stage, make_site: SiteMaker) -> Kept:
    """The pair serves another release than the site's, and its record is kept."""
    old = make_site("serve.max_num_seqs=3")
    specs = render_pair(old.site, old.profile)
    documents = Documents.of(specs, "e1")
    store.save(compose(old, documents.per_role, None, status="served", started_at=NOW, ready_at=NOW))
    ranks = {role: rank_of(specs[role]) for role in ROLES}
    stage.observation = seen(old, head=ranks["head"], worker=ranks["worker"], canary=RIGHT)
    return Kept(old, documents.release)


def deploy(stage: Stage, loaded: LoadedSite | None = None, **wishes: bool) -> Report:
    return launch.deploy(
        loaded or stage.loaded,
        verb="deploy",
        consent=stage.plans.append,
        progress=lambda _: None,
        wishes=Wishes(**wishes),
    )


def test_worker_before_head_and_ready_is_the_completion(stage: Stage) -> None:
    report = deploy(stage)
    assert stage.steps == ["settle", "worker", "head"]
    assert (report.verdict, report.exit_code) == ("ready", 0)
    assert "quick brown fox" in report.message
    assert read_open("desk") is None


def test_what_served_is_kept_as_a_release_with_its_phases(stage: Stage) -> None:
    deploy(stage)
    (release,) = store.all_of("desk").releases
    assert release.start.status == "served"
    assert release.differences == ()
    assert {"settle", "worker", "head", "ready"} <= release.start.phases_s.keys()


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("worker", played(TaskFailure("worker", "Start the worker", "no such image"))),
        ("head", played(unreachable=("head",))),
        ("head", DsparkError("ansible-playbook cannot be started")),
    ],
)
def test_a_failed_step_takes_both_ranks_down(stage: Stage, step: str, outcome: PlayResult | BaseException) -> None:
    stage.outcome[step] = outcome
    report = deploy(stage)
    assert stage.steps[-1] == "stop.yml"
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert "ValueError: bad shard" in report.message
    assert read_open("desk") is None


def test_a_rank_that_dies_while_starting_takes_both_down(stage: Stage) -> None:
    stage.ends = [DIED]
    report = deploy(stage)
    assert stage.steps[-1] == "stop.yml"
    assert report.exit_code == 5
    assert "SIGKILL" in report.message
    assert store.all_of("desk").releases[0].start.status == "failed"


def test_a_failed_load_touches_no_rank(stage: Stage) -> None:
    stage.outcome["image"] = played(TaskFailure("worker", "Load", "no space left on device"))
    stage.observation = seen(stage.loaded, change={"worker": {"images": ()}})
    report = deploy(stage)
    assert stage.steps == ["image"]
    assert report.exit_code == 5
    assert "no rank was touched" in report.message


def test_a_name_that_moved_meanwhile_is_a_refusal(stage: Stage) -> None:
    stage.outcome["image"] = played(TaskFailure("worker", "Load", "a:b is another image here [image.moved_tag]"))
    stage.observation = seen(stage.loaded, change={"worker": {"images": ()}})
    report = deploy(stage)
    assert (report.verdict, report.exit_code) == ("refused", 4)
    assert "no rank was touched" in report.message


def test_what_cannot_be_undone_is_listed_and_the_run_stays_open(stage: Stage) -> None:
    stage.ends = [DIED]
    stage.outcome["stop.yml"] = played(unreachable=("worker",))
    report = deploy(stage)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert any("worker" in item for item in report.left)
    assert read_open("desk") is not None


def test_an_interrupt_undoes_and_says_so(stage: Stage) -> None:
    stage.ends = [KeyboardInterrupt()]
    report = deploy(stage)
    assert stage.steps[-1] == "stop.yml"
    assert (report.verdict, report.exit_code) == ("interrupted", 130)


def test_a_refusal_before_consent_changes_and_records_nothing(stage: Stage) -> None:
    stage.clearing = RefusedError("there is no room")
    with pytest.raises(RefusedError):
        deploy(stage)
    assert (stage.steps, stage.plans, read_open("desk")) == ([], [], None)


def test_tenants_leave_first_and_the_plan_says_so(stage: Stage) -> None:
    stage.clearing = Clearing(evict=(HOG,))
    report = deploy(stage, evict=True)
    assert report.exit_code == 0
    assert stage.steps == ["evict", "settle", "worker", "head"]
    assert "container:hog" in stage.plans[0]
    assert "docker start" in stage.plans[0]


@pytest.mark.parametrize("where", ["evict", "worker"])
def test_after_a_failure_the_tenants_are_given_back(stage: Stage, where: str) -> None:
    stage.clearing = Clearing(evict=(HOG,))
    stage.outcome[where] = StepFailedError("it did not work")
    report = deploy(stage, evict=True)
    assert stage.steps[-1] == "restore"
    assert report.exit_code == 5
    assert "container:hog" in report.message
    if where == "evict":
        assert "stop.yml" not in stage.steps


def test_a_tenant_that_does_not_come_back_is_left_and_named(stage: Stage) -> None:
    stage.clearing = Clearing(evict=(HOG,))
    stage.ends = [DIED]
    stage.left = (Restoration(node="head", key="container:hog", outcome="left", sentence="it was removed"),)
    report = deploy(stage, evict=True)
    assert report.exit_code == 6
    assert report.left == ("head/container:hog: it was removed",)


def test_memory_that_is_still_short_after_clearing_ends_before_a_rank_starts(stage: Stage) -> None:
    short = MemoryFacts(mem_total_kib=120 << 20, mem_available_kib=1 << 10)
    stage.after_clearing = seen(stage.loaded, change={"head": {"memory": short}})
    stage.clearing = Clearing(evict=(HOG,))
    report = deploy(stage, evict=True)
    assert "worker" not in stage.steps
    assert report.exit_code == 5
    assert "head" in report.message
    assert stage.steps[-1] == "restore"


def test_what_runs_otherwise_than_asked_is_taken_down(stage: Stage) -> None:
    stage.effective_max_num_seqs = "2"
    report = deploy(stage)
    assert report.exit_code == 5
    assert "runs with '--max-num-seqs=2'" in report.message
    assert stage.steps[-1] == "stop.yml"


def test_what_cannot_be_read_back_is_unknown_and_not_equal(stage: Stage) -> None:
    stage.unread = {"worker": "its first process could not be read as root"}
    report = deploy(stage)
    assert report.exit_code == 0
    (finding,) = [f for f in report.findings if f.id == "service.effective"]
    assert finding.status == "unknown"
    assert store.all_of("desk").releases[0].differences is None


def gate_of(outcome: str) -> GateResult:
    return GateResult(
        command=("gate",), outcome=outcome, rc=1, started_at=NOW, elapsed_s=1.0, message=f"it {outcome}", tail=("x",)
    )  # type: ignore[arg-type]


def test_a_gate_that_fails_brings_the_previous_release_back(stage: Stage, served: Kept, make_site: SiteMaker) -> None:
    stage.gate = gate_of("failed")
    gated = make_site('gate.command=["gate"]')
    report = deploy(stage, gated)
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert f"release {served.id} serves again" in report.message
    assert stage.steps == ["settle", "worker", "head", "stop.yml", "settle", "worker", "head"]
    by_id = {release.id: release.start for release in store.all_of("desk").releases}
    assert by_id[served.id].status == "served"
    (failed,) = [start for id_, start in by_id.items() if id_ != served.id]
    assert (failed.status, failed.gate and failed.gate.outcome) == ("failed", "failed")


def test_what_served_before_and_does_not_come_back_is_incomplete(stage: Stage, served: Kept) -> None:
    stage.ends = [DIED]
    report = deploy(stage)
    assert report.exit_code == 6
    assert any(served.id in item for item in report.left)


def test_a_run_after_a_killed_one_returns_to_what_served_before_both(stage: Stage, served: Kept) -> None:
    write_open(OpenRun(run="a" * 32, site="desk", verb="deploy", release="r-abcdef", before=served.id, began_at=NOW))
    stage.observation = seen(stage.loaded)
    stage.ends = [DIED, READY]
    report = deploy(stage)
    assert report.exit_code == 5
    assert f"release {served.id} serves again" in report.message


def serve(stage: Stage) -> str:
    """The pair serves the site's own release, started by a run that ended well; its id."""
    deploy(stage)
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    release = store.load("desk", specs["head"].release)
    assert release is not None
    ranks = {role: rank_of(specs[role], release.start.epoch) for role in ROLES}
    stage.observation = seen(stage.loaded, head=ranks["head"], worker=ranks["worker"], canary=RIGHT)
    stage.steps.clear()
    stage.plans.clear()
    return release.id


def cut_off(release: str, before: str | None) -> None:
    """A run that did not end."""
    write_open(OpenRun(run="a" * 32, site="desk", verb="deploy", release=release, before=before, began_at=NOW))


def test_nothing_to_change_asks_nobody(stage: Stage) -> None:
    release = serve(stage)
    cut_off(release, None)
    report = deploy(stage)
    assert (report.verdict, report.exit_code, stage.steps, stage.plans) == ("unchanged", 0, [], [])
    assert read_open("desk") is None
    assert deploy(stage, ensure=True).verdict == "unchanged"


def test_checking_what_is_ensured_closes_no_record(stage: Stage) -> None:
    cut_off(serve(stage), None)
    assert deploy(stage, ensure=True, check=True).exit_code == 0
    assert read_open("desk") is not None


def test_what_answers_and_was_never_proven_is_proven_first(stage: Stage, make_site: SiteMaker) -> None:
    """A run that was killed while its gate ran: the gate has the last word still."""
    gated = make_site('gate.command=["gate"]')
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    stage.observation = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT)
    cut_off(specs["head"].release, None)
    stage.gate = gate_of("failed")
    report = deploy(stage, gated, ensure=True)
    assert report.exit_code == 5
    assert stage.steps == ["stop.yml", "restore"]
    assert store.current("desk") is None


def test_ranks_that_nobody_of_us_left_half_way_are_only_told_of(stage: Stage) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    stage.observation = seen(stage.loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT)
    stage.ends = [DIED]
    report = deploy(stage)
    assert (report.verdict, report.exit_code, stage.steps) == ("failed", 1, [])


def test_a_put_back_that_fails_leaves_no_rank_alone(stage: Stage, served: Kept) -> None:
    stage.ends = [DIED, DIED]
    report = deploy(stage)
    assert report.exit_code == 6
    assert stage.steps == ["settle", "worker", "head", "stop.yml", "settle", "worker", "head", "stop.yml"]


def test_a_failure_before_a_rank_after_a_killed_run_leaves_no_rank_of_that_run(stage: Stage, served: Kept) -> None:
    specs = render_pair(stage.loaded.site, stage.loaded.profile)
    cut_off(specs["head"].release, served.id)
    stage.observation = seen(stage.loaded, worker=rank_of(specs["worker"]))
    stage.clearing = Clearing(evict=(HOG,))
    stage.outcome["evict"] = StepFailedError("it does not end")
    report = deploy(stage, evict=True)
    assert report.exit_code == 5
    assert stage.steps == ["evict", "stop.yml", "settle", "worker", "head", "restore"]
    assert f"release {served.id} serves again" in report.message


def test_what_served_is_known_under_another_name_and_port(stage: Stage, served: Kept, make_site: SiteMaker) -> None:
    """The completion was asked of a port where nobody listens: what runs is still what served."""
    stage.observation = Observation(stage.observation.pair, CanaryAnswer(False, None, "connection refused"))
    stage.ends = [DIED, READY]
    report = deploy(stage, make_site("serve.api_port=8100", "model.served_name=other"))
    assert report.exit_code == 5
    assert f"release {served.id} serves again" in report.message


def test_what_was_never_proven_is_not_what_served_before(stage: Stage, served: Kept, make_site: SiteMaker) -> None:
    unproven = make_site("serve.max_num_seqs=2")
    specs = render_pair(unproven.site, unproven.profile)
    stage.observation = seen(unproven, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]), canary=RIGHT)
    cut_off(specs["head"].release, served.id)
    stage.ends = [DIED, READY]
    report = deploy(stage)
    assert f"release {served.id} serves again" in report.message


def test_a_node_that_went_away_meanwhile_took_what_served_with_it(stage: Stage, served: Kept) -> None:
    """The head restarted while a tenant was evicted: its rank is gone, the worker's is alone."""
    stage.clearing = Clearing(evict=(HOG,))
    stage.outcome["evict"] = StepFailedError("evict: head could not be reached any more")
    stage.after_clearing = seen(served.loaded, worker=stage.observation.pair.worker.rank)
    report = deploy(stage, evict=True)
    assert stage.steps == ["evict", "stop.yml", "settle", "worker", "head", "restore"]
    assert f"release {served.id} serves again" in report.message


def test_a_return_that_fails_does_not_forget_where_to(stage: Stage, served: Kept) -> None:
    cut_off("r-abcdef", served.id)
    stage.observation = seen(stage.loaded)
    stage.ends = [DIED]
    report = rollback(stage.loaded, None, consent=stage.plans.append, progress=lambda _: None, wishes=Wishes())
    assert report.exit_code == 6
    opened = read_open("desk")
    assert opened is not None
    assert opened.before == served.id


def test_after_a_killed_run_that_was_stopped_the_return_is_to_what_served(stage: Stage, served: Kept) -> None:
    older = served.loaded
    assert rollback_module.choose("desk", None, there=frozenset({"r-abcdef"})).id == served.id
    store.ended("desk", served.id)
    with pytest.raises(RefusedError):
        rollback_module.choose(older.site.name, None, there=frozenset())


@pytest.mark.parametrize("after", [0, 1], ids=["read back", "gate"])
def test_a_rank_that_died_meanwhile_does_not_serve(stage: Stage, make_site: SiteMaker, after: int) -> None:
    stage.gate = gate_of("passed")
    stage.dead = [*[None] * after, "the rank on worker ended after it was ready"]
    report = deploy(stage, make_site('gate.command=["gate"]'))
    assert report.exit_code == 5
    assert stage.steps[-1] == "stop.yml"


@pytest.mark.parametrize("trouble", [OSError("no space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_no_trouble_with_the_evidence_keeps_a_rank_alive(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    def collect(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(transaction, "collect_logs", collect)
    stage.ends = [DIED]
    report = deploy(stage)
    assert stage.steps[-1] == "stop.yml"
    assert report.exit_code == 5


def test_an_error_of_another_kind_is_undone_too(stage: Stage) -> None:
    stage.ends = [RuntimeError("a bug of ours")]
    report = deploy(stage)
    assert stage.steps[-1] == "stop.yml"
    assert "RuntimeError: a bug of ours" in report.message


def test_a_return_gives_back_whom_the_killed_run_let_go(stage: Stage) -> None:
    release = serve(stage)
    cut_off("r-abcdef", release)
    stage.owed = ["head: owed their place: container:other"]
    report = rollback(stage.loaded, None, consent=stage.plans.append, progress=lambda _: None, wishes=Wishes())
    assert (report.exit_code, stage.steps) == (0, ["restore"])
    assert "container:other" in report.message
    assert report.next_step == "dspark-ops tenants restore"


def test_rollback_returns_to_the_release_before_with_its_own_documents(
    stage: Stage, served: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(stage)
    sent: list[Mapping[str, Any]] = []
    plain = stage.run_playbook
    monkeypatch.setattr(apply, "run_playbook", lambda *a, **w: (sent.append(w["host_variables"]), plain(*a, **w))[1])
    stage.loaded = served.loaded  # what is read back now
    report = rollback(served.loaded, None, consent=stage.plans.append, progress=lambda _: None, wishes=Wishes())
    assert report.exit_code == 0, report
    assert stage.steps == ["settle", "worker", "head"]
    old = render_pair(served.loaded.site, served.loaded.profile)
    assert {r: sent[-1][r]["rank_service_spec"]["command"] for r in ROLES} == {r: list(old[r].command) for r in ROLES}
    current = store.current("desk")
    assert current is not None
    assert current.id == served.id
    assert store.previous("desk") is None  # what was left is marked as rolled back


def test_rollback_with_nothing_before_is_refused(stage: Stage) -> None:
    serve(stage)
    with pytest.raises(RefusedError, match="no release to return to"):
        rollback(stage.loaded, None, consent=stage.plans.append, progress=lambda _: None, wishes=Wishes())


def test_an_unreadable_record_of_a_run_stops_everything(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "state/dspark-ops/runs-open"
    folder.mkdir(parents=True)
    (folder / "desk.json").write_text("{")
    with pytest.raises(NoVerdictError):
        deploy(stage)
    assert stage.steps == []
