"""What a deploy needs to know of the pair, in one round trip per node, and the judgement of the canary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dspark_ops.config.models import Canary, Profile, Role, Site
from dspark_ops.facts import disk, docker_engine, links, listeners, memory, rank, rdma, service, supervisor
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.snapshot import PairFacts, pair_from
from dspark_ops.facts.supervisor import ABSENT, SupervisorFacts
from dspark_ops.transport.base import NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes

CANARY = "service.canary"
_PROBES: tuple[Probe, ...] = (
    *docker_engine.PROBES,
    *rank.PROBES,
    *links.PROBES,
    *rdma.PROBES,
    *listeners.PROBES,
    *memory.PROBES,
    *disk.PROBES,
)


@dataclass(frozen=True)
class CanaryAnswer:
    """What the completion endpoint said. correct is the verdict; text what came, error why it is not correct."""

    correct: bool
    text: str | None
    error: str | None


@dataclass(frozen=True)
class Observation:
    """Both nodes, the head's completion when a rank of this site runs there (else it was nobody of ours), and the
    supervisor on the head."""

    pair: PairFacts
    canary: CanaryAnswer | None
    supervisor: SupervisorFacts = ABSENT


def observe(site: Site, profile: Profile, runners: Mapping[Role, SshRunner]) -> Observation:
    """Read both nodes; nothing is changed and nothing raises for an unreachable node."""
    head: Sequence[Probe] = (service.canary_probe(site, profile), *supervisor.PROBES, *_PROBES)
    probes: dict[Role, Sequence[Probe]] = {"head": head, "worker": _PROBES}
    readings = read_nodes(runners, probes)
    pair = pair_from(site, readings)
    ours = pair.head.rank
    asked = ours is not None and bool(ours.running) and ours.label("site") == site.name
    return Observation(
        pair,
        judge_canary(readings["head"], profile.canary) if asked else None,
        supervisor.read_supervisor(readings["head"]),
    )


def judge_canary(reading: NodeReading, canary: Canary) -> CanaryAnswer:
    """Correct only if the expected text is in the answer's content."""
    result = reading.get(CANARY)
    if result.error is not None or result.stdout is None:
        return CanaryAnswer(False, None, result.error or "no answer")
    if not result.ok:
        return CanaryAnswer(False, None, f"HTTP {result.rc}: {result.stdout[:200]}")
    text = service.parse_completion(result.stdout)
    if text is None:
        return CanaryAnswer(False, None, f"an answer without content: {result.stdout[:200]}")
    if canary.expect in text:
        return CanaryAnswer(True, text, None)
    return CanaryAnswer(False, text, f"expected {canary.expect!r} in the answer, got {text!r}")


def started_at(rank_facts: RankFacts) -> datetime | None:
    """When the container was started; None when it never was."""
    value = rank_facts.started_at
    if value is None or value.startswith("0001-"):
        return None
    head, _, fraction = value.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{head}.{(fraction or '0')[:6].ljust(6, '0')}+00:00")
    except ValueError:
        return None


def describe_exit(rank_facts: RankFacts) -> str:
    """An exit in words: 137 is a kill, and 0 is how an engine that died leaves."""
    if rank_facts.oom_killed:
        return "killed by the kernel, out of memory"
    code = rank_facts.exit_code
    words = {0: "the engine leaves with 0 when it dies", 137: "killed (SIGKILL)", 143: "terminated (SIGTERM)"}
    return f"exit code {code}" + (f": {words[code]}" if code in words else "")
