"""Any stream of looks, however absurd: what must never happen does not, and a healthy world ends serving or latched."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspark_ops.supervise.core import machine
from dspark_ops.supervise.core.explain import explain
from dspark_ops.supervise.core.model import (
    ROLES,
    Action,
    CanarySight,
    EngineSight,
    Event,
    EvidenceSight,
    FatalLine,
    GateSight,
    Memory,
    NodeSight,
    Observation,
    RankSight,
    Role,
    Settings,
    State,
    Wanted,
    needs_saving,
)

SETTINGS = Settings(memory_needed_gib=90.0, memory_floor_gib=3.0)
WANTED = Wanted(release="r-1")
HEALTHY = EngineSight(
    health="ok", metrics_answered=True, running=1, waiting=0, generation=1.0, prompt=1.0, kv_usage=0.1
)


@dataclass
class Adversary:
    """A world that does what it is told, or lies. true_s is the time that really passed; nobody shows it."""

    memory: Memory = field(default_factory=lambda: Memory(seed="any"))
    stored: Memory = field(default_factory=lambda: Memory(seed="any"))
    true_s: float = 0.0
    monotonic_s: float = 500.0
    jump_s: float = 1.7e9
    boot: int = 0
    worker_boot: int = 0
    synced: bool = True
    ranks: dict[Role, RankSight] = field(default_factory=lambda: {r: RankSight(state="absent") for r in ROLES})
    obeys: bool = True
    starts: list[tuple[float, str]] = field(default_factory=list)
    seen_epochs: set[str] = field(default_factory=set)
    last: Observation | None = None

    def look(self, **lies: Any) -> None:
        """One step, checked, and then what the daemon does with it."""
        observation = self.observation(**lies)
        before = self.memory
        done = machine.step(SETTINGS, before, observation)
        assert machine.step(SETTINGS, before, observation) == done
        self._judge(before, done, observation)
        self.memory, self.last = done.memory, observation
        if needs_saving(self.stored, done.memory):
            self.stored = done.memory
        for action in done.actions:
            self._act(action)

    def observation(self, **lies: Any) -> Observation:
        given_nodes = lies.pop("nodes", {})
        nodes = {
            role: NodeSight(
                **{
                    "by_management": True,
                    "boot_id": f"{role}-{self.boot if role == 'head' else self.worker_boot}",
                    "mem_available_gib": 100.0,
                    "clock_synced": self.synced,
                    "rank": self.ranks[role],
                }
                | given_nodes.get(role, {})
            )
            for role in ROLES
        }
        base: dict[str, Any] = {"engine": HEALTHY, "wanted": WANTED} | nodes
        wall_s = self.true_s + self.jump_s
        return Observation(wall_s=wall_s, monotonic_s=self.monotonic_s, boot_id=f"head-{self.boot}", **(base | lies))

    def _act(self, action: Action) -> None:
        if action.role is None or not self.obeys:
            return
        if action.kind.startswith("start_"):
            self.ranks[action.role] = RankSight(state="running", epoch=action.epoch, release="r-1")
            self.seen_epochs.add(action.epoch or "")
        elif action.kind == "remove_orphan":
            self.ranks[action.role] = RankSight(state="absent")
        elif self.ranks[action.role].state == "running":
            self.ranks[action.role] = replace(self.ranks[action.role], state="exited", exit_code=137)

    def _judge(self, before: Memory, done: machine.Step, seen: Observation) -> None:
        kinds = [action.kind for action in done.actions]
        self._judge_starts(done, seen)
        for name in ("stop", "kill"):
            if f"{name}_worker" in kinds:
                assert seen.head.rank.down, "the worker was stopped before the head"
        for action in done.actions:
            if action.role is not None:
                assert seen.rank(action.role).state != "unknown", f"{action.kind} of a rank that nobody could see"
        if before.hold is not None and done.memory.hold is not None:
            assert set(kinds) <= {"alert"}, "something was done under a hold"
        self._judge_changes(done)
        if any(kind.startswith(("start_", "stop_", "kill_")) for kind in kinds):
            assert done.memory.state in ("starting", "stopping")

    def _judge_changes(self, done: machine.Step) -> None:
        for transition in done.transitions:
            came_from = transition.source
            if came_from in ("serving", "suspect") and transition.target in ("draining", "stopping"):
                named = {witness.kind for witness in transition.witnesses}
                assert "process" in named or len(named) >= 2, f"restarted for {named}"
            if transition.target == "starting":
                assert done.memory.epoch not in self.seen_epochs, "a start with an epoch of before"
            if transition.target == "serving":
                assert came_from in ("gate", "suspect")

    def _judge_starts(self, done: machine.Step, seen: Observation) -> None:
        for action in done.actions:
            if action.kind == "start_head":
                assert (seen.worker.rank.state, seen.worker.rank.epoch) == ("running", action.epoch) or not self.obeys
            if action.kind != "start_worker":
                continue
            assert seen.head.rank.state != "running", "a worker was started beside a running head"
            assert done.memory.harm is None
            epoch = action.epoch or ""
            if epoch not in [name for _, name in self.starts]:
                assert epoch not in self.seen_epochs, "a start with an epoch of before"
                for role in ROLES:
                    has = seen.node(role).mem_available_gib
                    assert has is not None
                    assert has >= SETTINGS.memory_needed_gib
                self.starts.append((self.true_s, epoch))
        window = [at for at, _ in self.starts if self.true_s - at < SETTINGS.budget_window_s]
        assert len(window) <= SETTINGS.budget, f"{len(window)} starts in {SETTINGS.budget_window_s} s"

    def passes(self, seconds: float) -> None:
        self.true_s += seconds
        self.monotonic_s += seconds


def _pass(adversary: Adversary, seconds: float) -> None:
    adversary.passes(seconds)


def _end(adversary: Adversary, role: Role) -> None:
    adversary.ranks[role] = replace(adversary.ranks[role], state="exited", exit_code=0)


def _foreign(adversary: Adversary, role: Role) -> None:
    """Somebody puts an old container there, and runs it."""
    adversary.ranks[role] = RankSight(state="running", epoch="s1-old", release="r-0")
    adversary.seen_epochs.add("s1-old")


def _jump(adversary: Adversary, seconds: float) -> None:
    """Setting a clock takes the kernel's word that it is synchronised away."""
    adversary.jump_s += seconds
    adversary.synced = False


def _reboot(adversary: Adversary, off_s: float) -> None:
    adversary.true_s += off_s
    adversary.boot += 1
    adversary.monotonic_s = 30.0
    for role in ("head",):
        _end(adversary, role)  # type: ignore[arg-type]
    adversary.memory = adversary.stored


def _restart(adversary: Adversary, _: object) -> None:
    adversary.memory = adversary.stored


def _synchronise(adversary: Adversary, _: object) -> None:
    adversary.jump_s, adversary.synced = 1.7e9, True


def _worker_reboot(adversary: Adversary, _: object) -> None:
    adversary.worker_boot += 1
    _end(adversary, "worker")


def _obey(adversary: Adversary, yes: bool) -> None:
    adversary.obeys = yes


roles = st.sampled_from(ROLES)
moves = st.one_of(
    st.tuples(st.just(_pass), st.floats(0.0, 4 * 3600.0)),
    st.tuples(st.just(_pass), st.floats(1.0, 20.0)),
    st.tuples(st.just(_end), roles),
    st.tuples(st.just(_foreign), roles),
    st.tuples(st.just(_jump), st.sampled_from([-3600.0, 3600.0, 86400.0])),
    st.tuples(st.just(_reboot), st.floats(10.0, 7 * 3600.0)),
    st.tuples(st.sampled_from([_restart, _synchronise, _worker_reboot]), st.none()),
    st.tuples(st.just(_obey), st.booleans()),
)
engines = st.builds(
    EngineSight,
    health=st.sampled_from(["ok", "ok", "dead", "refused", "timeout", "unknown"]),
    metrics_answered=st.sampled_from([True, False, None]),
    running=st.sampled_from([None, 0, 1, 6]),
    waiting=st.sampled_from([None, 0, 3]),
    generation=st.sampled_from([None, 0.0, 1.0, 2.0, float("nan")]),
    prompt=st.sampled_from([None, 1.0]),
    kv_usage=st.sampled_from([None, 0.1, 0.2]),
)
canaries = st.tuples(
    st.sampled_from(["correct", "wrong", "timeout", "refused", "error", "busy", "unknown"]), st.floats(0, 90)
)
gates = st.sampled_from(["passed", "failed", "unknown"])
evidences = st.sampled_from(["running", "done", "failed"])
node_lies = st.fixed_dictionaries(
    {},
    optional={
        "by_management": st.sampled_from([True, False, None]),
        "by_fabric": st.sampled_from([True, False, None]),
        "mem_available_gib": st.sampled_from([None, 1.0, 50.0, 100.0]),
        "clock_synced": st.sampled_from([True, False, None]),
        "rank": st.builds(RankSight, state=st.sampled_from(["unknown", "absent", "created", "foreign", "exited"])),
        "port_holders": st.sampled_from([(), ("nc",)]),
        "gpu_power_w": st.sampled_from([None, 0.0, 20.0, 45.0]),
        "gpu_util_percent": st.sampled_from([None, 95.0]),
        "api_listening": st.sampled_from([None, True, False]),
        "ended_in_order": st.sampled_from([None, True, False]),
        "fatal": st.sampled_from([(), (), (), (FatalLine(key="f", kind="xid", code=79),)]),
    },
)
looks = st.fixed_dictionaries(
    {},
    optional={
        "engine": st.one_of(st.none(), engines),
        "canary": canaries,
        "gate": gates,
        "evidence": evidences,
        "died": roles,
        "state_saved": st.booleans(),
        "wanted": st.sampled_from([WANTED, WANTED, None, Wanted(release="r-1", run=False)]),
        "nodes": st.dictionaries(roles, node_lies, max_size=2),
        "canary_pending_s": st.one_of(st.none(), st.floats(0, 1e6)),
    },
)


def _tell(adversary: Adversary, look: dict[str, Any]) -> None:
    lies = dict(look)
    memory, now = adversary.memory, adversary.monotonic_s
    if "canary" in lies:
        verdict, took_s = lies.pop("canary")
        lies["canary"] = CanarySight(verdict=verdict, sent_s=now - took_s, ended_s=now)
    if "gate" in lies:
        lies["gate"] = GateSight(epoch=memory.epoch or "none", verdict=lies.pop("gate"), ended_s=now)
    if "evidence" in lies:
        lies["evidence"] = EvidenceSight(incident=memory.evidence_id or "none", state=lies.pop("evidence"))
    if "died" in lies:
        lies["events"] = (Event(kind="died", role=lies.pop("died"), epoch=memory.epoch or "none"),)
    adversary.look(**lies)


@given(st.lists(st.tuples(moves, looks), max_size=30))
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_no_stream_of_looks_breaks_a_rule_and_a_healthy_world_serves_or_is_latched(
    stream: list[tuple[tuple[Any, Any], dict[str, Any]]],
) -> None:
    adversary = Adversary()
    for (move, argument), look in stream:
        move(adversary, argument)
        _tell(adversary, look)
    _becomes_healthy(adversary)


def _becomes_healthy(adversary: Adversary) -> None:
    """From here everything does as it should. The longest way: the last backoff, a start, the gate."""
    assert Memory.from_document(json.loads(json.dumps(adversary.memory.document()))) == adversary.memory
    if adversary.last is not None:
        assert explain(SETTINGS, adversary.memory, adversary.last)
    adversary.obeys, adversary.jump_s, adversary.synced = True, 1.7e9, True
    adversary.memory = replace(adversary.memory, hold=None)
    generation = 10.0
    for _ in range(200):
        adversary.passes(19.0)
        generation += 1
        now, memory = adversary.monotonic_s, adversary.memory
        adversary.look(
            engine=replace(HEALTHY, generation=generation),
            canary=CanarySight(verdict="correct", sent_s=now - 1, ended_s=now),
            gate=GateSight(epoch=memory.epoch or "none", verdict="passed", ended_s=now),
            evidence=EvidenceSight(incident=memory.evidence_id or "none", state="done"),
        )
        if adversary.memory.state in ("serving", "failed"):
            break
    assert adversary.memory.state in ("serving", "failed"), adversary.memory.waits_for
    if adversary.memory.state == "failed":
        assert adversary.memory.latched
        assert "latched" in {alert.key for alert in adversary.memory.alerts}


@given(st.lists(st.tuples(st.floats(1.0, 1200.0), st.booleans()), min_size=5, max_size=40))
@settings(max_examples=60)
def test_a_pair_that_never_lasts_gets_its_budget_and_no_more_however_time_goes(steps: list[tuple[float, bool]]) -> None:
    adversary = Adversary()
    for seconds, rebooted in steps:
        if rebooted:
            _reboot(adversary, seconds)
        for _ in range(4):
            adversary.passes(seconds / 4)
            now, memory = adversary.monotonic_s, adversary.memory
            adversary.look(
                gate=GateSight(epoch=memory.epoch or "none", verdict="passed", ended_s=now),
                evidence=EvidenceSight(incident=memory.evidence_id or "none", state="done"),
            )
        _end(adversary, "worker")
    assert adversary.starts or adversary.memory.state == "failed"


@given(st.lists(looks, min_size=1, max_size=30), st.sampled_from(["serving", "suspect", "gate", "cooling"]))
@settings(max_examples=40)
def test_looks_that_tell_nothing_never_end_in_serving(stream: list[dict[str, Any]], state: State) -> None:
    """Whatever was known before: three minutes later nobody says that it serves."""
    adversary = Adversary(memory=replace(Memory(seed="any"), state=state, epoch="e", started=ROLES))
    adversary.ranks = {role: RankSight(state="running", epoch="e", release="r-1") for role in ROLES}
    for look in stream:
        adversary.passes(5.0)
        _tell(adversary, look)
    for _ in range(14):
        adversary.passes(15.0)
        nothing: dict[str, Any] = {role: {"rank": RankSight(), "by_management": None} for role in ROLES}
        adversary.look(engine=None, canary=adversary.last.canary if adversary.last else None, nodes=nothing)
    assert adversary.memory.state != "serving"
