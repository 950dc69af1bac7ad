"""One look at the pair. None and "unknown" are what could not be read; they never count as healthy or as broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dspark_ops.supervise.core.document import from_document

Role = Literal["head", "worker"]
ROLES: tuple[Role, ...] = ("head", "worker")
RankState = Literal["running", "exited", "created", "absent", "foreign", "unknown"]
Health = Literal["ok", "dead", "refused", "timeout", "unknown"]
CanaryVerdict = Literal["correct", "wrong", "timeout", "refused", "error", "busy", "unknown"]
GateVerdict = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True, kw_only=True)
class RankSight:
    """The container of one rank.

    state: absent only when Docker said that there is none; foreign is a container of our name without our site's
    label, which is never touched; unknown when Docker or the node could not be asked. started_at: Docker's words.
    """

    state: RankState = "unknown"
    epoch: str | None = None
    release: str | None = None
    exit_code: int | None = None
    oom_killed: bool | None = None
    main_pid: int | None = None
    started_at: str | None = None

    @property
    def down(self) -> bool:
        """Known not to run. A foreign container is no rank of ours."""
        return self.state in ("exited", "created", "absent", "foreign")


@dataclass(frozen=True, kw_only=True)
class FatalLine:
    """A line of the kernel log after which nothing is restarted by itself. key: the same for the same line always."""

    key: str
    kind: Literal["xid", "aer"]
    code: int | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeSight:
    """One node. The head is reached by itself. by_fabric: None when that path was not tried.

    clock_synced: what the kernel says (adjtimex); setting a clock by hand takes the mark away, so a clock that jumped
    is not synchronised. ended_in_order: the boot before this one ended by a shutdown, not by a reset or a power cut.
    up_s: since that node booted. fatal: all fatal lines of this boot. left: processes of a rank that has ended, which
    may hold the GPU whatever MemAvailable says. port_holders: who else holds a port that a rank needs. memory_holders:
    who holds much memory and is no rank. api_listening: of the head, whether something listens on the API's port by the
    kernel's table, not by asking it. gpu_*: None where there is no reading, as in the rehearsal pair.
    """

    by_management: bool | None = None
    by_fabric: bool | None = None
    boot_id: str | None = None
    ended_in_order: bool | None = None
    mem_available_gib: float | None = None
    clock_synced: bool | None = None
    up_s: float | None = None
    fatal: tuple[FatalLine, ...] = ()
    port_holders: tuple[str, ...] = ()
    memory_holders: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    api_listening: bool | None = None
    gpu_power_w: float | None = None
    gpu_util_percent: float | None = None
    rank: RankSight = field(default_factory=RankSight)

    @property
    def reachable(self) -> bool | None:
        """True by any path; False when a path was tried and none answered; None when none was tried."""
        tried = [path for path in (self.by_management, self.by_fabric) if path is not None]
        return any(tried) if tried else None


@dataclass(frozen=True, kw_only=True)
class EngineSight:
    """The engine's own words, read on the head over loopback; each None when not read.

    health: ok is 200, dead 503, refused without a listener, timeout without an answer in time. metrics_answered:
    whether /metrics answered at all. running, waiting: requests. kv_usage: 0 to 1. generation and prompt: counters.
    """

    health: Health = "unknown"
    metrics_answered: bool | None = None
    running: int | None = None
    waiting: int | None = None
    generation: float | None = None
    prompt: float | None = None
    kv_usage: float | None = None


@dataclass(frozen=True, kw_only=True)
class CanarySight:
    """The last canary that ended. sent_s and ended_s by the observation's monotonic clock.

    refused: no connection. error: an answer of 5xx, or a connection cut. busy: the server turned it away as full.
    unknown: it could not be asked, as with a wrong key (401), or its text could not be judged.
    """

    verdict: CanaryVerdict = "unknown"
    sent_s: float = 0.0
    ended_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class GateSight:
    """The last run of the smoke gate that ended, for the epoch it asked."""

    epoch: str
    verdict: GateVerdict
    ended_s: float
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class EvidenceSight:
    """How collecting for one incident went; failed ends the waiting too."""

    incident: str
    state: Literal["running", "done", "failed"]
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Heard since the last look, as by `docker events`: the container of this epoch died."""

    kind: Literal["died"]
    role: Role
    epoch: str
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class StartRefusal:
    """A start of this epoch that failed or was refused since the last look, and why."""

    role: Role
    epoch: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The adopted release. run: False after `stop`, when the pair is wanted down."""

    release: str
    site: str = ""
    run: bool = True


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything one step decides by.

    wall_s: Unix time. monotonic_s: seconds since the head booted (CLOCK_BOOTTIME). boot_id: of the head.
    canary_pending_s: when the canary that is under way was sent. state_saved: False when the last memory could not be
    written, as on a full disk: then nothing is started, because a start that is forgotten is one beyond the budget.
    """

    wall_s: float
    monotonic_s: float
    boot_id: str
    head: NodeSight = field(default_factory=NodeSight)
    worker: NodeSight = field(default_factory=NodeSight)
    wanted: Wanted | None = None
    engine: EngineSight | None = None
    canary: CanarySight | None = None
    canary_pending_s: float | None = None
    gate: GateSight | None = None
    evidence: EvidenceSight | None = None
    events: tuple[Event, ...] = ()
    refusals: tuple[StartRefusal, ...] = ()
    state_saved: bool = True

    def node(self, role: Role) -> NodeSight:
        return self.head if role == "head" else self.worker

    def rank(self, role: Role) -> RankSight:
        return self.node(role).rank

    @classmethod
    def from_document(cls, document: object) -> Observation:
        """Raises DocumentError with the key that is wrong."""
        return from_document(cls, document, "observation")
