"""When a restart is allowed and when never: backoff, budget, classes of failure, conditions of a start. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

from dspark_ops.supervise.core.clock import now_of, since
from dspark_ops.supervise.core.memory import Attempt, FailureClass, Hold, Instant, Memory, NodeReset
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import ROLES, FatalLine, NodeSight, Observation, Role
from dspark_ops.supervise.core.witness import runs_as_wanted

#: GPU faults after which the evidence and a person are needed, not a restart (field experience, Reederey87's list).
FATAL_XIDS = frozenset({48, 79, 94, 95, 119, 140, 154})
#: A node that is reset in one of these states was reset under load.
_SERVED = ("gate", "serving", "suspect", "draining", "stopping")
#: Resets of both nodes this close are one power cut: the nodes need different times to boot.
_TOGETHER_S = 900.0

BlockKind = Literal[
    "backoff", "saved", "node", "fabric", "memory", "port", "clock", "boot", "foreign", "docker", "left"
]


@dataclass(frozen=True)
class Block:
    """One reason why no start is made now. settles: it passes by itself in the normal course of a restart."""

    kind: BlockKind
    text: str
    settles: bool = False


def chance(seed: str, what: str) -> float:
    """A number in [0, 1) that is always the same for the same seed and purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{what}".encode()).digest()[:6], "big") / 2**48


def backoff_wait_s(settings: Settings, memory: Memory) -> float:
    """How long to wait before the next start, by the failures since the pair served well for long."""
    base_s = settings.backoff_s[min(memory.failures, len(settings.backoff_s) - 1)]
    return base_s * (1 + settings.jitter * chance(memory.seed, f"backoff-{memory.number}"))


def recent(settings: Settings, memory: Memory, now: Instant) -> tuple[Attempt, ...]:
    """The starts that count against the budget. None is forgotten for having served well."""
    return tuple(attempt for attempt in memory.attempts if since(attempt.at, now) < settings.budget_window_s)


def exhausted(settings: Settings, memory: Memory, now: Instant) -> str | None:
    """Why the budget allows no start, or None."""
    spent = recent(settings, memory, now)
    if len(spent) < settings.budget:
        return None
    hours = settings.budget_window_s / 3600
    last = next((attempt.failure for attempt in reversed(spent) if attempt.failure), "none of them lasted")
    return f"{len(spent)} starts in {hours:g} h are the budget; the last failure: {last}"


def epoch_of(memory: Memory) -> str:
    """The name of start `memory.number`; never one that was used before."""
    return f"s{memory.number}-{hashlib.sha256(f'{memory.seed}:{memory.number}'.encode()).hexdigest()[:10]}"


def started_by_others(memory: Memory, observation: Observation) -> bool:
    """Whether what spent the budget is over: a whole start of the wanted release runs that is not the last of ours.

    A deployment made it, and told what is wanted only after it answered well. A latch for harm needs a person, as the
    hardware is the same; so does a state that could not be trusted.
    """
    spent = memory.latched_for == "budget" and memory.harm is None
    return spent and runs_as_wanted(observation) and observation.head.rank.epoch != memory.epoch


def fatal_lines(observation: Observation, acknowledged: tuple[str, ...]) -> tuple[tuple[str, FatalLine], ...]:
    """Role and line of every fatal line that no person has seen yet."""
    return tuple(
        (role, line)
        for role in ROLES
        for line in observation.node(role).fatal
        if line.key not in acknowledged and (line.kind == "aer" or line.code in FATAL_XIDS)
    )


def fatal_keys(observation: Observation) -> tuple[str, ...]:
    return tuple(line.key for role in ROLES for line in observation.node(role).fatal)


def classify_start(exit_code: int | None, before: tuple[Attempt, ...]) -> FailureClass:
    """A start that fails as its predecessor did, or with exit code 1 before readiness, only repeats itself."""
    failed_before = bool(before) and before[-1].failure is not None and not before[-1].served
    return "loops" if exit_code == 1 or failed_before else "cures"


def judge_harm(settings: Settings, memory: Memory, observation: Observation) -> Memory:
    """The memory with resets counted, and with harm set when nothing may be restarted by itself any more."""
    was = {"head": memory.boot_id, "worker": memory.worker_boot_id}
    seen = {"head": observation.boot_id, "worker": observation.worker.boot_id}
    counts = memory.hold is None and memory.state in _SERVED
    memory = replace(memory, boot_id=seen["head"], worker_boot_id=seen["worker"] or was["worker"])
    harm = memory.harm
    for role in ROLES:
        if counts and was[role] is not None and seen[role] is not None and was[role] != seen[role]:
            memory, found = _count_reset(settings, memory, observation, role)
            harm = harm or found
    if harm is None:
        lines = fatal_lines(observation, memory.acknowledged)
        harm = "; ".join(_fatal_text(role, line) for role, line in lines[:3]) or None
    return replace(memory, harm=harm)


def _count_reset(settings: Settings, memory: Memory, observation: Observation, role: Role) -> tuple[Memory, str | None]:
    """A boot that came without a shutdown, while serving. One could be a power cut; in a prefill it is not taken so."""
    node = observation.node(role)
    if node.ended_in_order is True:
        return memory, None
    now = now_of(observation)
    kept = tuple(r for r in memory.resets if since(r.at, now) < settings.budget_window_s)
    memory = replace(memory, resets=(*kept, NodeReset(role=role, at=now)))
    how = "was reset" if node.ended_in_order is False else "was started anew, nobody knows how it ended,"
    incident = memory.incident
    if memory.watch.prefilling or (incident is not None and incident.open and incident.prefilling):
        return memory, f"{role} {how} during a prefill: the same prompt may do it again"
    count = _separate(memory.resets)
    if count >= settings.resets_limit:
        hours = settings.budget_window_s / 3600
        return memory, f"{role} {how} while serving: {count} resets of nodes in {hours:g} h"
    return memory, None


def _separate(resets: tuple[NodeReset, ...]) -> int:
    """How many resets these are, when both nodes going together is one: the power was cut."""
    count = 0
    for index, reset in enumerate(resets):
        before = resets[index - 1] if index else None
        together = before is not None and before.role != reset.role and since(before.at, reset.at) < _TOGETHER_S
        count += 0 if together else 1
    return count


def _fatal_text(role: str, line: FatalLine) -> str:
    name = f"Xid {line.code}" if line.kind == "xid" else "a fatal PCIe error"
    return f"{name} on {role}" + (f": {line.text[:160]}" if line.text else "")


def hold_left_s(hold: Hold | None, now: Instant) -> float:
    return 0.0 if hold is None else max(0.0, hold.for_s - since(hold.since, now))


def start_blocks(settings: Settings, memory: Memory, observation: Observation) -> tuple[Block, ...]:
    """Everything that has to pass before a start. None of it costs an attempt. Unknown blocks too."""
    now, blocks = now_of(observation), []
    left_s = memory.backoff_wait_s - since(memory.backoff_from, now) if memory.backoff_from is not None else 0.0
    if left_s > 0:
        blocks.append(Block("backoff", f"the backoff of {memory.backoff_wait_s:.0f} s", settles=True))
    delay_s = settings.boot_delay_s * chance(memory.seed, f"boot-{observation.boot_id}")
    if observation.monotonic_s < delay_s:
        blocks.append(Block("boot", f"{delay_s:.0f} s after the boot of the head", settles=True))
    if not observation.state_saved:
        blocks.append(Block("saved", "the state file can be written: a start that is forgotten is one too many"))
    if observation.worker.reachable is not True:
        blocks.append(Block("node", "the worker is reachable"))
    elif observation.worker.by_fabric is False:
        blocks.append(Block("fabric", "the worker is reachable over the fabric"))
    for role in ROLES:
        blocks += _node_blocks(settings, role, observation.node(role))
        blocks += _clock_block(settings, memory, observation, role)
    return tuple(blocks)


def _clock_block(settings: Settings, memory: Memory, observation: Observation, role: Role) -> list[Block]:
    """Only after a boot of that node and before its first start: later the clock is somebody's to mend.

    A pair without a time server, as at a desk without a network, must not wait at every restart.
    """
    node = observation.node(role)
    up_s = observation.monotonic_s if node.up_s is None else node.up_s
    booted_s = observation.monotonic_s - up_s
    started = any(attempt.at.monotonic_s >= booted_s for attempt in memory.attempts)
    if node.clock_synced is True or started or up_s >= settings.clock_wait_s:
        return []
    return [Block("clock", f"the clock of {role} is synchronised", settles=True)]


def _node_blocks(settings: Settings, role: Role, node: NodeSight) -> list[Block]:
    blocks = []
    if node.rank.state == "foreign":
        blocks.append(Block("foreign", f"the container of our name on {role} is gone: it is not of this site"))
    if node.rank.state == "unknown":
        blocks.append(Block("docker", f"Docker on {role} can be asked"))
    if node.port_holders:
        blocks.append(Block("port", f"ports on {role} are free: {'; '.join(node.port_holders)}"))
    if node.left:
        blocks.append(Block("left", f"what the last rank left on {role} is gone: {'; '.join(node.left)}"))
    return blocks + _memory_block(settings, role, node)


def _memory_block(settings: Settings, role: str, node: NodeSight) -> list[Block]:
    has = node.mem_available_gib
    if has is not None and has >= settings.memory_needed_gib:
        return []
    seen = "unknown" if has is None else f"{has:.1f} GiB"
    held = f", held by {'; '.join(node.memory_holders)}" if node.memory_holders else ""
    wanted = f"{settings.memory_needed_gib:g} GiB are available on {role} (MemAvailable {seen}{held})"
    return [Block("memory", wanted)]


def with_failure(memory: Memory, failure: str, failure_class: FailureClass) -> Memory:
    """The memory with the present start marked as failed; a start that was adopted is in no list."""
    attempts = tuple(
        replace(a, failure=failure, failure_class=failure_class) if a.epoch == memory.epoch else a
        for a in memory.attempts
    )
    return replace(memory, attempts=attempts)
