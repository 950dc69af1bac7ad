"""What the supervisor remembers over its own restarts. Times are seconds since the head's present boot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dspark_ops.supervise.core.document import DocumentError, from_document, to_document
from dspark_ops.supervise.core.sight import Role

SCHEMA = "dspark-ops/supervise-memory/v1"
State = Literal["starting", "gate", "serving", "suspect", "draining", "stopping", "cooling", "failed"]
STATES: tuple[State, ...] = ("starting", "gate", "serving", "suspect", "draining", "stopping", "cooling", "failed")
#: What a restart does to a failure: it cures it, it only repeats it, or it harms.
FailureClass = Literal["cures", "loops", "harms"]
WitnessKind = Literal["process", "counters", "canary", "api", "engine", "node", "power", "gate"]
ActionKind = Literal[
    "start_worker", "start_head", "stop_head", "stop_worker", "kill_head", "kill_worker", "remove_orphan",
    "collect_evidence", "run_gate", "drain", "undrain", "alert",
]  # fmt: skip
#: Why it is latched: the budget is spent, a restart would harm, or the state on disk could not be trusted.
LatchKind = Literal["budget", "harm", "state"]
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Instant:
    """A moment. monotonic_s: since the head's present boot, negative for a time before it. wall_s is only shown."""

    monotonic_s: float
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One automatic start. failure: None while it is the present one or served well."""

    epoch: str
    at: Instant
    served: bool = False
    failure: str | None = None
    failure_class: FailureClass | None = None


@dataclass(frozen=True, kw_only=True)
class Starts:
    """How many starts there were for one cause, since the supervisor was installed: it only grows."""

    cause: str
    count: int


@dataclass(frozen=True, kw_only=True)
class NodeReset:
    """A boot of a node that no shutdown came before, while the pair served."""

    role: Role
    at: Instant


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Somebody works on the pair: nothing is done until it is resumed or expires. drain: take no new requests."""

    reason: str
    owner: str
    since: Instant
    for_s: float
    drain: bool = False


@dataclass(frozen=True, kw_only=True)
class Witness:
    """One independent sign that the pair does not serve. since_s: monotonic, when what it tells began."""

    kind: WitnessKind
    since_s: float
    text: str
    role: Role | None = None


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something a person should know now; it goes when its cause does. page: at once, at any hour."""

    key: str
    text: str
    page: bool = False


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One change of state and why."""

    source: State
    target: State
    reason: str
    witnesses: tuple[Witness, ...]
    at: Instant


@dataclass(frozen=True, kw_only=True)
class Action:
    """What the daemon is asked to do now. It is a wish that is repeated until the next looks show it done.

    The daemon saves the memory first, begins each action unless the same key is under way, and tells results only by
    the next observation. epoch: of the container that is meant; a node refuses an action for another one. incident:
    the evidence to collect. limit_s: how long it may take. alert: the key of the alert, whose text is the reason. A
    start whose memory could not be saved is not begun.
    """

    kind: ActionKind
    reason: str
    role: Role | None = None
    epoch: str | None = None
    incident: str | None = None
    limit_s: float | None = None
    alert: str | None = None
    page: bool = False

    @property
    def key(self) -> str:
        return ":".join(part for part in (self.kind, self.role, self.epoch, self.incident, self.alert) if part)


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One time the pair stopped serving, in moments; None is not yet. first_sign: when the failure began to show.

    id: also that of its evidence; a start that fails before it is over has evidence of its own, `i<number>-<epoch>`.
    """

    id: str
    reason: str
    failure_class: FailureClass
    dead: bool
    prefilling: bool
    first_sign: Instant
    detected: Instant
    witnesses: tuple[WitnessKind, ...] = ()
    stopped: Instant | None = None
    started: Instant | None = None
    recovered: Instant | None = None

    @property
    def open(self) -> bool:
        return self.recovered is None

    @property
    def detect_s(self) -> float:
        return max(0.0, self.detected.monotonic_s - self.first_sign.monotonic_s)

    @property
    def recover_s(self) -> float | None:
        return None if self.recovered is None else self.recovered.monotonic_s - self.detected.monotonic_s


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The fold over samples. since values are monotonic; None is "not now" or "cannot tell"."""

    #: Looks came without a gap from here.
    watching_since_s: float | None = None
    sample_s: float | None = None
    running: int | None = None
    waiting: int | None = None
    generation: float | None = None
    prompt: float | None = None
    kv_usage: float | None = None
    #: All counters of work stood still, while work was asked for, from here to the last sample.
    frozen_since_s: float | None = None
    #: Requests run, no token comes and KV usage moves: a prefill, at the last sample.
    prefilling: bool = False
    api_silent_since_s: float | None = None
    engine_dead_since_s: float | None = None
    unreachable_since_s: float | None = None
    power_low_since_s: float | None = None
    looked_s: float | None = None
    canary_sent_s: float | None = None
    canary_verdict: str | None = None
    canary_strikes: int = 0
    canary_since_s: float | None = None
    #: The last time that something proved work: a correct canary, or tokens.
    proof_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Everything that outlives a step.

    seed: random, made once; epochs and jitter follow from it. seen: the last look; its boot tells a reboot. unsure: set
    after a boot with a clock that was not synchronised: by how much time passed while the head was off is corrected
    once it is. started: roles of the present epoch that were seen running. failures: incidents since the pair served
    well for long, which is what the backoff goes by. latched: why it is failed; latched_for: of which kind, None
    while it is not. restarts: starts by cause. harm: why nothing is restarted any more, with the pair
    perhaps still serving. acknowledged: keys of fatal lines that a person has seen. evidence_id: what is collected, or
    was last. waits_for: why nothing is done.
    """

    seed: str
    schema: str = SCHEMA
    state: State = "cooling"
    since: Instant = field(default_factory=lambda: Instant(monotonic_s=0.0, wall_s=0.0))
    reason: str = "the supervisor has just been installed"
    epoch: str | None = None
    number: int = 0
    boot_id: str | None = None
    worker_boot_id: str | None = None
    seen: Instant | None = None
    seen_synced: bool = False
    unsure: Instant | None = None
    attempts: tuple[Attempt, ...] = ()
    failures: int = 0
    healthy_since: Instant | None = None
    backoff_from: Instant | None = None
    backoff_wait_s: float = 0.0
    started: tuple[Role, ...] = ()
    gate_failures: int = 0
    gate_ended_s: float | None = None
    stop_since: Instant | None = None
    stop_role: Role | None = None
    evidence_id: str | None = None
    evidence_since: Instant | None = None
    evidence_limit_s: float = 0.0
    latched: str | None = None
    latched_for: LatchKind | None = None
    restarts: tuple[Starts, ...] = ()
    harm: str | None = None
    acknowledged: tuple[str, ...] = ()
    resets: tuple[NodeReset, ...] = ()
    hold: Hold | None = None
    incidents: int = 0
    incident: Incident | None = None
    alerts: tuple[Alert, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    waits_for: tuple[str, ...] = ()
    decisions: tuple[Transition, ...] = ()
    watch: Watch = field(default_factory=Watch)

    @classmethod
    def from_document(cls, document: object) -> Memory:
        """Raises DocumentError: damaged, or of another version."""
        memory = from_document(cls, document, "memory")
        if memory.schema != SCHEMA:
            raise DocumentError(f"memory.schema is {memory.schema!r}, expected {SCHEMA!r}")
        return memory

    def document(self) -> dict[str, Any]:
        return dict(to_document(self))


def needs_saving(saved: Memory, memory: Memory) -> bool:
    """Whether a memory differs from the saved one in more than the samples of the watch, or is a minute newer."""
    if saved.watch.prefilling != memory.watch.prefilling or saved.seen is None or memory.seen is None:
        return True
    if abs(memory.seen.monotonic_s - saved.seen.monotonic_s) >= _SAVE_EVERY_S:
        return True
    calm = {"watch": saved.watch, "seen": saved.seen, "seen_synced": saved.seen_synced}
    return replace(memory, **calm) != saved  # type: ignore[arg-type]
