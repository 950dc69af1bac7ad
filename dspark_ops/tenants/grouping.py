"""Processes to holders: one holder is what is stopped and comes back as one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dspark_ops.facts.docker_engine import ContainerRow
from dspark_ops.facts.processes import ProcessFacts
from dspark_ops.facts.rank import LABEL
from dspark_ops.tenants.model import TenantKind
from dspark_ops.tenants.owners import Container, Session, Unit, is_login, owner_of
from dspark_ops.tenants.programs import (
    command_of,
    is_desktop,
    is_desktop_unit,
    is_display_unit,
    is_platform,
    is_platform_unit,
    is_shell,
    lost_its_server,
)

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


@dataclass(frozen=True)
class Holder:
    """Processes under one owner. name: of the container, project, unit or user; empty for a process.

    root: the top-most process. uid: of a user's own unit, whose manager it is.
    """

    kind: TenantKind
    name: str
    pids: tuple[int, ...]
    root: int
    uid: int | None = None
    containers: tuple[str, ...] = ()


@dataclass
class _Gathered:
    """What was put together so far, by what makes it one holder."""

    owned: dict[tuple[TenantKind, str, int | None], list[int]] = field(default_factory=dict)
    containers: dict[tuple[TenantKind, str, int | None], list[str]] = field(default_factory=dict)
    bare: dict[int, ProcessFacts] = field(default_factory=dict)

    def add(self, kind: TenantKind, name: str, pid: int, uid: int | None = None, container: str | None = None) -> None:
        key = (kind, name, uid)
        self.owned.setdefault(key, []).append(pid)
        if container is not None and container not in self.containers.setdefault(key, []):
            self.containers[key].append(container)


def holders_of(
    site: str,
    processes: Sequence[ProcessFacts],
    rows: Sequence[ContainerRow] | None,
    *,
    reader: int | None = None,
    on_gpu: Collection[int] = (),
    ended_units: Collection[tuple[str, int | None]] = (),
) -> tuple[Holder, ...]:
    """Everything that could be a tenant, large or small, in a steady order; the ranks of the site are not in it.

    reader: the process that read all this, which is no tenant. on_gpu: processes that the driver names: such a one is
    never taken for a part of the platform. ended_units: units whose own process is gone; what is left in their control
    group is looked at process by process.
    """
    by_pid = {process.pid: process for process in processes}
    known = None if rows is None else {row.id: row for row in rows}
    ours = _family(by_pid, reader)
    desktops = _desktop_sessions(processes)
    gathered = _Gathered()
    for process in processes:
        if process.pid in ours or process.kernel or process.pid == 1:
            continue
        owner = owner_of(process.cgroups, known)
        if isinstance(owner, Container):
            _in_container(site, gathered, process.pid, owner.id, (known or {}).get(owner.id))
        elif isinstance(owner, Unit):
            _in_unit(gathered, process, owner, ended_units)
        elif owner.name in desktops and _of_the_desktop(process, by_pid):
            gathered.add("desktop", str(desktops[owner.name]), process.pid)
        else:
            gathered.bare[process.pid] = process
    found = [
        Holder(
            kind,
            name,
            tuple(sorted(pids)),
            _top(pids, by_pid),
            uid,
            tuple(gathered.containers.get((kind, name, uid), ())),
        )
        for (kind, name, uid), pids in gathered.owned.items()
    ]
    return tuple(sorted([*found, *_trees(gathered.bare, on_gpu)], key=lambda holder: (holder.kind, holder.root)))


def _in_container(site: str, gathered: _Gathered, pid: int, identity: str, row: ContainerRow | None) -> None:
    labels = row.labels if row is not None else {}
    if labels.get(LABEL + "site") == site or labels.get(LABEL + "look"):
        return
    if labels.get(PROJECT):
        gathered.add("compose", labels[PROJECT], pid, container=identity)
    else:
        gathered.add("container", row.name if row is not None else identity[:12], pid, container=identity)


def _in_unit(gathered: _Gathered, process: ProcessFacts, unit: Unit, ended: Collection[tuple[str, int | None]]) -> None:
    if unit.uid is None and is_display_unit(unit.name):
        gathered.add("desktop", str(process.uid or 0), process.pid)
    elif unit.uid is not None and is_desktop_unit(unit.name):
        gathered.add("desktop", str(unit.uid), process.pid)
    elif is_platform_unit(unit.name) or (unit.name, unit.uid) in ended:
        gathered.bare[process.pid] = process
    else:
        gathered.add("unit" if unit.uid is None else "user-unit", unit.name, process.pid, unit.uid)


def _desktop_sessions(processes: Sequence[ProcessFacts]) -> dict[str | None, int]:
    """Login sessions with a desktop in them, and whose they are."""
    found: dict[str | None, int] = {}
    for process in processes:
        owner = owner_of(process.cgroups, ())
        if isinstance(owner, Session) and is_login(owner) and is_desktop(process):
            found.setdefault(owner.name, owner.uid if owner.uid is not None else process.uid or 0)
    return found


def _of_the_desktop(process: ProcessFacts, by_pid: Mapping[int, ProcessFacts]) -> bool:
    """Not below a shell: what was typed in a terminal is somebody's own process, not the desktop's."""
    seen: set[int] = set()
    at: ProcessFacts | None = process
    while at is not None and at.pid not in seen:
        if is_shell(at) and not is_desktop(process):
            return False
        seen.add(at.pid)
        at = by_pid.get(at.ppid)
    return True


def _family(by_pid: Mapping[int, ProcessFacts], reader: int | None) -> set[int]:
    """The reading program, what it started, and the login that it came by."""
    if reader is None or reader not in by_pid:
        return set()
    family, at = {reader}, by_pid[reader].ppid
    while at in by_pid and at > 1 and at not in family and is_platform(by_pid[at]):
        family.add(at)
        at = by_pid[at].ppid
    below = {reader}
    while below:
        below = {pid for pid, process in by_pid.items() if process.ppid in below and pid not in family}
        family |= below
    return family


def _trees(bare: Mapping[int, ProcessFacts], on_gpu: Collection[int]) -> list[Holder]:
    """One holder per top-most process that is not the platform's."""
    counted = {pid: process for pid, process in bare.items() if pid in on_gpu or not is_platform(process)}
    trees: dict[int, list[int]] = {}
    for pid in counted:
        trees.setdefault(_climb(pid, counted), []).append(pid)
    return [
        Holder("orphan" if lost_its_server(counted[root]) else "process", "", tuple(sorted(pids)), root)
        for root, pids in trees.items()
    ]


def _climb(pid: int, among: Mapping[int, ProcessFacts]) -> int:
    seen = {pid}
    while among[pid].ppid in among and among[pid].ppid not in seen:
        pid = among[pid].ppid
        seen.add(pid)
    # A ring of parents cannot be; should one be read, all of it has the same name.
    return min(seen) if among[pid].ppid in seen else pid


def _top(pids: Sequence[int], by_pid: Mapping[int, ProcessFacts]) -> int:
    """The oldest process whose parent is outside; by number where two are of the same age."""
    inside = set(pids)
    roots = [pid for pid in pids if by_pid[pid].ppid not in inside] or list(pids)
    return min(roots, key=lambda pid: (by_pid[pid].start_ticks, pid))


def starts_again(root: ProcessFacts, biggest: ProcessFacts) -> str | None:
    """A bare tree whose memory is not in its top-most process: that one starts the holder again."""
    if root.pid == biggest.pid:
        return None
    return f"{command_of(root)} (pid {root.pid}) above it, which stops with it"
