"""Looking at both nodes: every holder of the GPU or of large memory that is not a rank of this site."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.facts.container_inspect import ContainerFacts, is_gone, parse_container
from dspark_ops.facts.memory import MemoryFacts, read_memory
from dspark_ops.facts.processes import read_resident
from dspark_ops.facts.units import read_unit
from dspark_ops.tenants.grouping import Holder
from dspark_ops.tenants.identify import Details, gpu_of, identify, memory_of
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.reading import FIRST, Census, completed, possible, read_census, second_probes, unanswered
from dspark_ops.transport.base import NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes

_KIB_PER_GIB = 1 << 20
_ENDED = ("inactive", "failed")
_LINK = re.compile(r"^'/proc/(\d{1,10})/cwd' -> '(.*)'$", re.MULTILINE)


@dataclass(frozen=True)
class NodeTenants:
    """What one node shows. problems: what could not be read; then the list may lack somebody."""

    tenants: tuple[Tenant, ...] = ()
    problems: tuple[str, ...] = ()
    memory: MemoryFacts | None = None


@dataclass(frozen=True)
class TenantSight:
    """Both nodes. With problems it could not be told whether these are all."""

    nodes: Mapping[Role, NodeTenants]

    def of(self, role: Role) -> tuple[Tenant, ...]:
        """The tenants of one node, the largest first."""
        return self.nodes[role].tenants

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, on either node."""
        return tuple(problem for role in ROLES if role in self.nodes for problem in self.nodes[role].problems)

    @property
    def all(self) -> tuple[Tenant, ...]:
        """The head's, then the worker's."""
        return tuple(tenant for role in ROLES if role in self.nodes for tenant in self.nodes[role].tenants)


def look_at_tenants(loaded: LoadedSite, runners: Mapping[Role, SshRunner]) -> TenantSight:
    """Read both nodes, at the same time, in two round trips; changes nothing, never raises for a silent node."""
    site, has_gpu = loaded.site, loaded.profile.gpu
    first = read_nodes(runners, dict.fromkeys(runners, FIRST), timeout_s=60.0)
    wanted: dict[Role, tuple[Probe, ...]] = {}
    for role, reading in first.items():
        probes = probes_after(site, reading)
        if probes:
            wanted[role] = probes
    second = read_nodes({role: runners[role] for role in wanted}, wanted, timeout_s=60.0)
    return list_tenants(site, {role: (first[role], second.get(role)) for role in runners}, has_gpu=has_gpu)


def probes_after(site: Site, first: NodeReading) -> tuple[Probe, ...]:
    """What the second reading asks; nothing when the first shows no possible tenant."""
    census = read_census(first)
    if census is None:
        return ()
    return second_probes(census, possible(census, site.name, _large_kib(site)))


def list_tenants(
    site: Site, readings: Mapping[Role, tuple[NodeReading, NodeReading | None]], *, has_gpu: bool = True
) -> TenantSight:
    """The tenants in two readings of each node. has_gpu: a node without nvidia-smi is one that could not be read."""
    return TenantSight(
        {role: _node(role, site, first, second, has_gpu=has_gpu) for role, (first, second) in readings.items()}
    )


def _node(role: Role, site: Site, first: NodeReading, second: NodeReading | None, *, has_gpu: bool) -> NodeTenants:
    census = read_census(first)
    problems = unanswered(role, first, census, has_gpu=has_gpu)
    figures = read_memory(first)
    if census is None:
        return NodeTenants((), problems, figures)
    asked = probes_after(site, first)
    if asked and (second is None or not second.reachable):
        why = second.error if second is not None else "it was read only once"
        return NodeTenants((), (*problems, f"{role}: what its tenants are could not be read: {why}"), figures)
    second = second or NodeReading(node=first.node, reachable=True)
    census, lost = completed(census, second)
    if lost:
        pids = ", ".join(map(str, sorted(lost)))
        problems += (f"{role}: the driver names pid {pids} on the GPU, and no such process can be seen",)
    if census.rows is None:
        # Without the Engine's word a container may be our own rank: it is counted, and never called a tenant.
        problems += _unnamed(role, census.holders(site.name), census, second)
    details, untold = _details(role, census, possible(census, site.name, _large_kib(site)), second)
    ended = frozenset(key for key, unit in details.units.items() if unit.active in _ENDED)
    tenants = [
        identify(role, holder, census, details)
        for holder in census.holders(site.name, ended)
        if _holds(holder, census, details, _large_kib(site))
        and not _all_gone(holder, details)
        and not (census.rows is None and holder.containers)
    ]
    tenants.sort(key=lambda t: (-((t.memory_kib or 0) + (t.gpu_kib or 0)), t.key))
    return NodeTenants(tuple(tenants), (*problems, *untold), figures)


def _large_kib(site: Site) -> float:
    return site.tenants.large_memory_gib * _KIB_PER_GIB


def _holds(holder: Holder, census: Census, details: Details, large_kib: float) -> bool:
    memory_kib, _ = memory_of(holder.pids, census, details)
    on_gpu, _ = gpu_of(holder.pids, census)
    return bool(on_gpu) or (memory_kib is not None and memory_kib >= large_kib)


def _all_gone(holder: Holder, details: Details) -> bool:
    return bool(holder.containers) and all(identity in details.gone for identity in holder.containers)


def _unnamed(role: Role, holders: tuple[Holder, ...], census: Census, second: NodeReading) -> tuple[str, ...]:
    """What containers hold that nobody could name."""
    pids = [pid for holder in holders if holder.containers for pid in holder.pids]
    held, _ = memory_of(pids, census, Details(read_resident(second), {}, {}, {}))
    return (f"{role}: containers that could not be named hold {held / _KIB_PER_GIB:.1f} GiB",) if held else ()


def _details(
    role: Role, census: Census, holders: tuple[Holder, ...], second: NodeReading
) -> tuple[Details, tuple[str, ...]]:
    containers: dict[str, ContainerFacts] = {}
    gone: set[str] = set()
    problems: list[str] = []
    units = {}
    for holder in holders:
        for identity in census.members(holder):
            result = second.get(identity)
            seen = parse_container(result.text())
            if seen is not None:
                containers[identity] = seen
            elif is_gone(result):
                gone.add(identity)
            else:
                why = result.error or (result.stderr or "").strip() or f"it ended with {result.rc}"
                problems.append(f"{role}: docker container inspect {identity[:12]} told nothing: {why}")
        name = census.display_unit() if holder.kind == "desktop" else holder.name
        if holder.kind in ("unit", "user-unit", "desktop") and name:
            unit = read_unit(second, name, holder.uid if holder.kind == "user-unit" else None)
            if unit is not None:
                units[name, holder.uid if holder.kind == "user-unit" else None] = unit
    links = _LINK.findall(second.get("proc.cwd").stdout or "")
    cwds = {int(pid): target for pid, target in links}
    return Details(read_resident(second), containers, units, cwds, frozenset(gone)), tuple(dict.fromkeys(problems))
