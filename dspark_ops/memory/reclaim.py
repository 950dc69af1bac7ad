"""Dropping the page cache and compacting memory before a start, by consent: on nodes that have something to gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.ansible_run.events import TaskEvent
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import RefusedError
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.model import Fact
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.report.recorder import Recorder

#: Below this the cache is left alone: the weights of one shard file are larger.
AT_LEAST_MIB = 1024
_KIB_PER_GIB = 1024**2


class Reclaimed(Fact):
    """What came of it on one node. dropped: None when the node was lost or said nothing. why: in words."""

    role: Role
    dropped: bool | None
    why: str
    before: str | None = None
    after: str | None = None
    refused: tuple[str, ...] = ()

    def text(self) -> str:
        if not self.dropped:
            told = f"{self.role}: {self.why}"
        else:
            told = f"{self.role}: page cache dropped, {self.before} before, {self.after} after"
        return told + "".join(f"; the kernel refused {refusal}" for refusal in self.refused)


def reclaim_plan(pair: PairFacts) -> dict[Role, str]:
    """The nodes on which there may be something to gain, each with what the plan says of it. Pure.

    MemAvailable less MemFree is about what the cache holds; the node itself decides by its full figures.
    """
    found: dict[Role, str] = {}
    for role in ROLES:
        cached_gib = _cached_gib(pair.of(role).memory)
        if cached_gib is not None and cached_gib * 1024 >= AT_LEAST_MIB:
            found[role] = f"drop the page cache (about {cached_gib:.1f} GiB) and compact memory on {role}"
    return found


def reclaim(
    loaded: LoadedSite,
    recorder: Recorder,
    roles: Sequence[Role],
    *,
    consented: bool = False,
    check: bool = False,
    diff: bool = False,
) -> dict[Role, Reclaimed]:
    """Reclaim on these nodes; what came of it on each. Nothing here fails a deploy: a node that refuses is reported.

    consented: asked for this once; else `guards.reclaim` of the site is the consent.

    Raises:
        RefusedError: there is no consent.
    """
    if not roles:
        return {}
    if not (consented or loaded.site.guards.reclaim):
        raise RefusedError(
            "dropping the page cache was not consented to; nothing was changed", hint="set guards.reclaim: true"
        )
    said: dict[Role, Mapping[str, object]] = {}

    def hear(event: TaskEvent) -> None:
        if event.node is not None and event.summary is not None:
            said[event.node] = {**event.summary, "changed": event.kind == "changed"}

    result = run_playbook(
        "memory.yml",
        loaded,
        variables={"memory_reclaim_at_least_mib": AT_LEAST_MIB},
        host_variables={role: {"memory_reclaim_wanted": role in roles} for role in ROLES},
        check=check,
        diff=diff,
        on_event=hear,
        timeout_s=300,
    )
    shown = result.changes if diff else (change.model_copy(update={"diff": None}) for change in result.changes)
    recorder.changes.extend(shown)
    failed = {failure.node: failure.message for failure in result.failures}
    return {role: _reclaimed(role, said.get(role), failed.get(role)) for role in roles}


def _reclaimed(role: Role, said: Mapping[str, object] | None, failure: str | None) -> Reclaimed:
    if said is None:
        return Reclaimed(role=role, dropped=None, why=failure or "the node did not say what came of it")
    refused = said.get("refused")
    return Reclaimed(
        role=role,
        dropped=bool(said["changed"]),
        why=str(said.get("reason", "")),
        before=str(said.get("before", "")) or None,
        after=str(said.get("after", "")) or None,
        refused=tuple(map(str, refused)) if isinstance(refused, list) else (),
    )


def _cached_gib(memory: MemoryFacts | None) -> float | None:
    if memory is None or memory.mem_available_kib is None or memory.mem_free_kib is None:
        return None
    return max(0, memory.mem_available_kib - memory.mem_free_kib) / _KIB_PER_GIB
