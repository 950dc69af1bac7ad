"""Whether there is memory for a start on both nodes, before anything moves. Pure; `MemAvailable` is the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.deploy.guards import Refusal
from dspark_ops.facts.gpu import GpuProcessFacts
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.memory.need import Need, need_of
from dspark_ops.tenants.model import Tenant

CHECK = "host.memory_floor"
_KIB_PER_GIB = 1024**2
_HOLDERS_SHOWN = 3


@dataclass(frozen=True)
class MemoryRefusal(Refusal):
    """A refusal of one node.

    could_not_tell: nothing is known to be wrong, it could not be seen (no verdict). missing_gib: what has to come free;
    never_fits: more is needed than the whole node has.
    """

    role: Role = "head"
    could_not_tell: bool = False
    missing_gib: float | None = None
    never_fits: bool = False


@dataclass(frozen=True)
class Room:
    """What one node has for a start, in KiB.

    evicted_kib: what evictions give back; None: some, and nobody knows how much. rank_kib: what the running rank of
    ours gives back; None as before, 0 where none runs.
    """

    available_kib: int
    evicted_kib: int | None = 0
    rank_kib: int | None = 0

    @property
    def known(self) -> bool:
        return self.evicted_kib is not None and self.rank_kib is not None

    @property
    def gib(self) -> float:
        """What is known to be there then; a lower bound unless `known`."""
        return (self.available_kib + (self.evicted_kib or 0) + (self.rank_kib or 0)) / _KIB_PER_GIB

    def text(self) -> str:
        told = [f"{self.available_kib / _KIB_PER_GIB:.1f} GiB available"]
        if self.rank_kib:
            told.append(f"{self.rank_kib / _KIB_PER_GIB:.1f} GiB that the running rank gives back")
        if self.evicted_kib:
            told.append(f"{self.evicted_kib / _KIB_PER_GIB:.1f} GiB that the evictions give back")
        return " and ".join(told) if len(told) < 3 else ", ".join(told[:-1]) + " and " + told[-1]


def memory_refusals(
    site: Site,
    profile: Profile,
    pair: PairFacts,
    *,
    given_back_kib: Mapping[Role, int | None] | None = None,
    holders: Mapping[Role, Sequence[Tenant]] | None = None,
) -> list[MemoryRefusal]:
    """Need plus `guards.memory_floor_gib` against what each node will have; one refusal per node that lacks it.

    given_back_kib: per node what evictions that were consented to give back; None is "some, not known how much". Where
    that or the memory of a running rank of ours is not known, only a need larger than the whole node is refused here:
    ask again with a fresh reading and nothing given back once they are gone. holders: the tenants, to name the largest.
    """
    found = []
    for role in ROLES:
        evicted = (given_back_kib or {}).get(role, 0)
        refusal = _of_node(site, profile, pair.of(role), evicted, (holders or {}).get(role, ()))
        if refusal is not None:
            found.append(refusal)
    return found


def rank_memory_kib(node: NodeFacts, *, gpu: bool) -> int | None:
    """What the running rank of ours holds and will give back; 0 where none runs, None where it is not known.

    On a GPU its memory is in no resident set: what the driver says is added, and N/A makes the sum unknown.
    """
    rank = node.rank
    if rank is None or not rank.running:
        return 0
    if rank.memory_kib is None or not gpu:
        return rank.memory_kib
    processes = node.gpu.processes if node.gpu is not None else None
    if processes is None or rank.pids is None:
        return None
    return _with_gpu(rank.memory_kib, [process for process in processes if process.pid in rank.pids])


def _with_gpu(resident_kib: int, processes: Sequence[GpuProcessFacts]) -> int | None:
    used = [process.used_mib for process in processes]
    if not used or None in used:
        return None
    return resident_kib + sum(mib * 1024 for mib in used if mib is not None)


def _of_node(
    site: Site, profile: Profile, node: NodeFacts, evicted_kib: int | None, holders: Sequence[Tenant]
) -> MemoryRefusal | None:
    role, memory, floor_gib = node.role, node.memory, site.guards.memory_floor_gib
    if memory is None or memory.mem_available_kib is None:
        return MemoryRefusal(
            CHECK,
            f"{role}: could not tell how much memory is available: MemAvailable cannot be read",
            "`dspark-ops doctor`",
            role=role,
            could_not_tell=True,
        )
    need = need_of(site, profile, role, total_gib=memory.total_gib)
    if site.serve.gpu_memory_utilization is not None and memory.total_gib is None:
        return MemoryRefusal(
            CHECK,
            f"{role}: could not tell what a share of MemTotal is: MemTotal cannot be read",
            "`dspark-ops doctor`",
            role=role,
            could_not_tell=True,
        )
    room = Room(memory.mem_available_kib, evicted_kib, rank_memory_kib(node, gpu=profile.gpu))
    wanted_gib = need.gib + floor_gib
    if memory.total_gib is not None and wanted_gib > memory.total_gib:
        whole = f"{memory.total_gib:.1f} GiB in all"
        return _lacking(need, floor_gib, whole, wanted_gib - memory.total_gib, (), never_fits=True)
    if room.gib >= wanted_gib or not room.known:
        return None
    return _lacking(need, floor_gib, room.text(), wanted_gib - room.gib, holders)


def _lacking(
    need: Need, floor_gib: float, room: str, missing_gib: float, holders: Sequence[Tenant], *, never_fits: bool = False
) -> MemoryRefusal:
    largest = sorted((t for t in holders if t.held_kib is not None), key=lambda t: -(t.held_kib or 0))
    named = "; ".join(f"{t.key} holds {(t.held_kib or 0) / _KIB_PER_GIB:.1f} GiB" for t in largest[:_HOLDERS_SHOWN])
    unsaid = ", ".join(t.key for t in holders if t.held_kib is None)
    told = [named] if named else []
    told += [f"not known how much is held by {unsaid}"] if unsaid else []
    return MemoryRefusal(
        CHECK,
        f"{need.role}: {room}; a start needs {need.text()} and the floor is {floor_gib:g} GiB: "
        f"{max(missing_gib, 0.05):.1f} GiB are missing" + (f". {'; '.join(told)}" if told else ""),
        "lower serve.gpu_memory_utilization, serve.kv_cache_memory_mib or guards.memory_floor_gib: it never fits there"
        if never_fits
        else "stop what holds it (`dspark-ops tenants list` names it, `tenants evict` stops it), or lower "
        "serve.gpu_memory_utilization, serve.kv_cache_memory_mib or guards.memory_floor_gib",
        role=need.role,
        # Rounded up: whoever frees as much as this says has freed enough.
        missing_gib=math.ceil(missing_gib * 100) / 100,
        never_fits=never_fits,
    )
