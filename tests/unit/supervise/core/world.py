"""A pair in virtual time: containers, engine, nodes and a daemon around the machine, one second at a time.

It plays what the study of the real engine found: an engine that dies exits with 0, a dead head leaves its worker, a
frozen rank leaves /health at 200 with counters that stand, a prefill moves KV usage per chunk and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from dspark_ops.supervise.core import machine
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
    StartRefusal,
    Transition,
    Wanted,
    needs_saving,
)

Load = Literal["idle", "decode", "prefill", "saturated"]
RELEASE = "r-1"
SETTINGS = Settings(memory_needed_gib=97.0, memory_floor_gib=3.0, boot_delay_s=0.0)


@dataclass
class Container:
    epoch: str
    state: Literal["running", "exited", "created"] = "running"
    release: str = RELEASE
    exit_code: int | None = None
    since: float = 0.0


@dataclass
class Node:
    """One machine. down_until: it is off until then."""

    boot: int = 0
    booted: float = 0.0
    down_until: float | None = None
    in_order: bool | None = None
    container: Container | None = None
    memory_gib: float = 118.0
    memory_back_at: float = 0.0
    hog_gib: float = 0.0
    docker: bool = True
    management: bool = True
    fabric: bool = True
    synced: bool = True
    fatal: tuple[FatalLine, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass
class Pending:
    """An action that the daemon began; it ends at `at`."""

    action: Action
    at: float


@dataclass
class World:
    """The truth, and the daemon that acts on it. Every look is one `step`."""

    settings: Settings = SETTINGS
    load_s: float = 60.0
    load: Load = "idle"
    chunk_s: float = 9.0
    frozen: bool = False
    silent: bool = False
    garbled: bool = False
    bad_image: bool = False
    t: float = 1000.0
    wall_offset: float = 1.7e9
    saved_ok: bool = True
    wanted: Wanted | None = field(default_factory=lambda: Wanted(release=RELEASE))
    nodes: dict[Role, Node] = field(default_factory=lambda: {role: Node() for role in ROLES})
    memory: Memory = field(default_factory=lambda: Memory(seed="world"))
    stored: str = ""
    pending: dict[str, Pending] = field(default_factory=dict)
    log: list[tuple[float, Action]] = field(default_factory=list)
    transitions: list[tuple[float, Transition]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refusals: list[StartRefusal] = field(default_factory=list)
    evidence: EvidenceSight | None = None
    gate: GateSight | None = None
    canary: CanarySight | None = None
    canary_sent: float | None = None
    canary_next: float = 0.0
    generation: float = 0.0
    prompt: float = 0.0
    kv: float = 0.0
    looked: float = -1e9
    last: Observation | None = None
    on_look: Callable[[World], None] | None = None

    # The truth ------------------------------------------------------------------------------------------------------

    def up(self, role: Role) -> bool:
        return self.nodes[role].down_until is None

    def rank(self, role: Role) -> Container | None:
        return self.nodes[role].container if self.up(role) else None

    def engine_up(self) -> bool:
        """The API server answers: both ranks of one start run and the weights are loaded."""
        head, worker = self.rank("head"), self.rank("worker")
        if head is None or head.state != "running":
            return False
        joined = worker is not None and worker.state == "running" and worker.epoch == head.epoch
        return (joined or self.was_up(head)) and self.t - head.since >= self.load_s

    def was_up(self, head: Container) -> bool:
        return self.t - head.since > self.load_s + 5

    def works(self) -> bool:
        """A request can be answered."""
        head, worker = self.rank("head"), self.rank("worker")
        both = head is not None and worker is not None and head.state == worker.state == "running"
        fabric = self.nodes["worker"].fabric and self.up("worker")
        return self.engine_up() and both and fabric and not self.frozen and not self.silent

    def end(self, role: Role, code: int = 0) -> None:
        """The rank's first process is gone."""
        node = self.nodes[role]
        container = node.container
        if container is None or container.state != "running":
            return
        container.state, container.exit_code = "exited", code
        node.memory_back_at = self.t + 3
        self.frozen = self.silent = False
        self.events.append(Event(kind="died", role=role, epoch=container.epoch, exit_code=code))

    def reset(self, role: Role, off_s: float, in_order: bool | None = False) -> None:
        """The node goes down now and is back after off_s. The head takes the daemon with it."""
        node = self.nodes[role]
        if node.container is not None and node.container.state == "running":
            node.container.state, node.container.exit_code = "exited", 255
        node.down_until, node.in_order = self.t + off_s, in_order
        node.fatal, node.memory_back_at = (), 0.0
        if role == "head":
            self.crash()

    # The daemon -----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """kill -9 of the supervisor: what it began is lost or done, what it saved is there."""
        self.pending.clear()
        self.events.clear()
        self.refusals.clear()
        self.canary, self.canary_sent, self.canary_next = None, None, 0.0
        self.evidence, self.gate = None, None
        self.memory = Memory.from_document(json.loads(self.stored)) if self.stored else Memory(seed="world")

    def run(self, seconds: float) -> World:
        for _ in range(int(seconds)):
            self.tick()
        return self

    def skip(self, seconds: float) -> World:
        """Let time pass in which nobody looks."""
        self.t += seconds
        return self

    def run_until(self, wish: Callable[[World], bool], limit_s: float) -> float:
        """Seconds until the wish holds.

        Raises:
            AssertionError: it did not within the limit.
        """
        began = self.t
        while not wish(self):
            assert self.t - began < limit_s, f"not within {limit_s} s: {self.memory.state}, {self.memory.waits_for}"
            self.tick()
        return self.t - began

    def recovers(self, limit_s: float) -> float:
        """Seconds until it serves again, once it does not."""
        self.run_until(lambda world: world.state != "serving", 600)
        return self.run_until(lambda world: world.state == "serving", limit_s)

    def tick(self) -> None:
        self.t += 1
        for node in self.nodes.values():
            if node.down_until is not None and self.t >= node.down_until:
                node.boot, node.booted, node.down_until = node.boot + 1, self.t, None
        self._engine()
        ended = self._finish()
        if not self.up("head"):
            return
        self._canary()
        hurried = self.last is not None and machine.wants_looks(self.memory, self.last)
        every_s = 1.0 if hurried or self.state == "starting" else self.settings.probe_s
        if self.t - self.looked >= every_s or self.events or self.refusals or ended:
            self.look()

    def look(self) -> None:
        if self.on_look is not None:
            self.on_look(self)
        self.last = self.observe()
        self.events.clear()
        self.refusals.clear()
        self.looked = self.t
        before = self.memory
        done = machine.step(self.settings, before, self.last)
        self.memory = done.memory
        self.transitions += [(self.t, transition) for transition in done.transitions]
        if self.saved_ok and (not self.stored or needs_saving(before, done.memory)):
            self.stored = json.dumps(done.memory.document())
        for action in done.actions:
            self.begin(action)

    def begin(self, action: Action) -> None:
        if action.kind in ("alert", "drain", "undrain"):
            self.log.append((self.t, action))
            return
        if action.key in self.pending:
            return
        self.log.append((self.t, action))
        takes = {"start_worker": 2, "start_head": 2, "collect_evidence": 4, "run_gate": 5, "remove_orphan": 1}
        stops = min(action.limit_s or 60.0, self._ends_in_s(action))
        self.pending[action.key] = Pending(action, self.t + takes.get(action.kind, stops))

    def _ends_in_s(self, action: Action) -> float:
        """How long a rank takes that is asked to end: one whose peer is dead waits for it, as one that is frozen."""
        if not action.kind.startswith("stop_"):
            return 3.0
        peer = self.rank("worker" if action.role == "head" else "head")
        return 12.0 if self.frozen or peer is None or peer.state != "running" else 3.0

    def _finish(self) -> bool:
        """Do what is due; whether something was. The daemon looks at once when an action of its ends."""
        due = False
        for key, pending in list(self.pending.items()):
            if self.t >= pending.at:
                del self.pending[key]
                self._do(pending.action)
                due = True
        return due

    def _do(self, action: Action) -> None:
        kind = action.kind
        if kind == "run_gate":
            self._end_gate(action)
        elif kind == "collect_evidence":
            self.evidence = EvidenceSight(incident=action.incident or "", state="done")
        elif action.role is not None and self.up(action.role) and self._reached(action.role):
            self._touch(action, self.nodes[action.role], action.role)

    def _touch(self, action: Action, node: Node, role: Role) -> None:
        found = node.container
        if action.kind in ("start_worker", "start_head"):
            if node.holders:
                self.refusals.append(StartRefusal(role=role, epoch=action.epoch or "", reason=node.holders[0]))
            elif found is None:
                node.container = Container(epoch=action.epoch or "", since=self.t)
        elif found is None or found.epoch != action.epoch:
            return
        elif action.kind == "remove_orphan":
            node.container = None
        else:
            self.end(role, 137)

    def _end_gate(self, action: Action) -> None:
        if self.load in ("prefill", "saturated") or not self.works():
            verdict, at = ("unknown", self.t)
        else:
            verdict, at = ("failed" if self.garbled else "passed", self.t)
        self.gate = GateSight(epoch=action.epoch or "", verdict=verdict, ended_s=self.mono(at))  # type: ignore[arg-type]

    # What is seen ---------------------------------------------------------------------------------------------------

    def mono(self, at: float) -> float:
        return at - self.nodes["head"].booted

    def _reached(self, role: Role) -> bool:
        return role == "head" or (self.up(role) and (self.nodes[role].management or self.nodes[role].fabric))

    def _engine(self) -> None:
        head, worker = self.rank("head"), self.rank("worker")
        if self.bad_image and worker is not None and worker.state == "running" and self.t - worker.since > 8:
            self.end("worker", 1)
        alone = worker is None or worker.state != "running" or (head is not None and worker.epoch != head.epoch)
        loading = head is not None and head.state == "running" and not self.engine_up()
        if alone and loading and head is not None and self.t - head.since > 1:
            self.end("head", 1)
        if not self.works():
            return
        if self.load == "decode":
            self.generation, self.kv = self.generation + 40, 0.2 + (self.t % 50) / 500
        elif self.load == "saturated":
            self.generation, self.kv = self.generation + 200, 0.97 + (self.t % 20) / 1000
        elif self.load == "prefill" and self.t % self.chunk_s < 1:
            self.kv = (self.kv + 0.007) % 0.99
        elif self.load == "idle":
            self.kv = 0.0

    def _canary(self) -> None:
        held = self.last is not None and machine.wants_canary(self.memory, self.last)
        serving = held or self.memory.state == "draining"
        if self.canary_sent is None:
            if serving and self.t >= self.canary_next:
                self.canary_sent = self.t
            return
        waited, verdict = self.t - self.canary_sent, None
        if not self.engine_up():
            verdict = "refused"
        elif self._peer_closed():
            verdict = "error"
            self.end("head", 0)  # the engine notices with the next request, and exits with 0
        elif self.works() and self.load in ("idle", "decode") and waited >= 1:
            verdict = "wrong" if self.garbled else "correct"
            self.generation += 1
        elif waited >= self.settings.canary_timeout_s:
            verdict = "timeout"
        if verdict is not None:
            self.canary = CanarySight(
                verdict=verdict,
                sent_s=self.mono(self.canary_sent),
                ended_s=self.mono(self.t),  # type: ignore[arg-type]
            )
            self.canary_sent, self.canary_next = None, self.t + self.settings.canary_s

    def _peer_closed(self) -> bool:
        """The worker's process is gone and its machine says so; one without power says nothing, and requests hang."""
        worker = self.rank("worker")
        return self.up("worker") and (worker is None or worker.state != "running")

    def observe(self) -> Observation:
        sent = self.canary_sent
        return Observation(
            wall_s=self.t + self.wall_offset,
            monotonic_s=self.mono(self.t),
            boot_id=f"head-{self.nodes['head'].boot}",
            head=self._node("head"),
            worker=self._node("worker"),
            wanted=self.wanted,
            engine=self._engine_sight(),
            canary=self.canary,
            canary_pending_s=None if sent is None else self.mono(sent),
            gate=self.gate,
            evidence=self.evidence,
            events=tuple(e for e in self.events if self._reached(e.role)),
            refusals=tuple(self.refusals),
            state_saved=self.saved_ok,
        )

    def _node(self, role: Role) -> NodeSight:
        node, container = self.nodes[role], self.nodes[role].container
        paths = {"by_management": True, "by_fabric": None}
        if role == "worker":
            paths = {"by_management": self.up(role) and node.management, "by_fabric": self.up(role) and node.fabric}
        if not self._reached(role):
            return NodeSight(**paths)
        rank = RankSight(state="absent")
        if not node.docker:
            rank = RankSight()
        elif container is not None:
            rank = RankSight(
                state=container.state,
                epoch=container.epoch,
                release=container.release,
                exit_code=container.exit_code,
            )
        held = 100.0 if (container and container.state == "running") or self.t < node.memory_back_at else 0.0
        return NodeSight(
            **paths,
            boot_id=f"{role}-{node.boot}",
            ended_in_order=node.in_order,
            mem_available_gib=node.memory_gib - held - node.hog_gib,
            clock_synced=node.synced,
            fatal=node.fatal,
            port_holders=node.holders,
            memory_holders=("llama-server 102 GiB",) if node.hog_gib else (),
            rank=rank,
        )

    def _engine_sight(self) -> EngineSight:
        if not self.engine_up():
            return EngineSight(health="refused", metrics_answered=False)
        if self.silent:
            return EngineSight(health="timeout", metrics_answered=False)
        running = {"idle": 0, "decode": 2, "prefill": 1, "saturated": 6}[self.load]
        running += 1 if self.canary_sent is not None and self.load != "saturated" else 0
        waiting = 4 if self.load == "saturated" else 0
        return EngineSight(
            health="ok",
            metrics_answered=True,
            running=running,
            waiting=waiting,
            generation=self.generation,
            prompt=self.prompt,
            kv_usage=self.kv,
        )

    # Questions of the tests -----------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return self.memory.state

    def did(self, *kinds: str, since: float = 0.0) -> list[str]:
        """The kinds of action that were begun, in order, of these kinds when given."""
        return [a.kind for at, a in self.log if at >= since and (not kinds or a.kind in kinds)]

    def starts(self) -> list[float]:
        """When each start began."""
        return [at for at, a in self.log if a.kind == "start_worker"]

    def disruptive(self, since: float = 0.0) -> list[str]:
        """What touched a rank."""
        return [kind for kind in self.did(since=since) if kind.startswith(("start_", "stop_", "kill_", "remove_"))]

    def alerts(self) -> set[str]:
        return {alert.key for alert in self.memory.alerts}


def serving_world(**changes: object) -> World:
    """A pair that a deployment started and the supervisor took over: it serves."""
    world = World()
    for role in ROLES:
        world.nodes[role].container = Container(epoch="deploy-1", since=0.0)
    world.run_until(lambda w: w.state == "serving", 120)
    for name, value in changes.items():
        setattr(world, name, value)
    return world.run(60)


def one_epoch(world: World) -> str:
    """The epoch that both ranks run.

    Raises:
        AssertionError: they do not run one start.
    """
    ranks = [world.rank(role) for role in ROLES]
    assert all(rank is not None and rank.state == "running" for rank in ranks)
    epochs = {rank.epoch for rank in ranks if rank is not None}
    assert len(epochs) == 1, epochs
    return epochs.pop()


def with_settings(**changes: object) -> Settings:
    return replace(SETTINGS, **changes)  # type: ignore[arg-type]
