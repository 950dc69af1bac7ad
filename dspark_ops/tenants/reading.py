"""The two readings of a node: first who there is, then more of those that are large or on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspark_ops.config.models import Role
from dspark_ops.facts import docker_engine, gpu, memory, processes, units
from dspark_ops.facts.container_inspect import inspect_probe
from dspark_ops.facts.docker_engine import ContainerRow
from dspark_ops.facts.gpu import GpuProcessFacts
from dspark_ops.facts.processes import ProcessFacts
from dspark_ops.tenants.grouping import PROJECT, Holder, holders_of
from dspark_ops.tenants.owners import Unit, owner_of
from dspark_ops.tenants.programs import is_display_unit
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

_APPS, _ROWS = "gpu.processes", "docker.ps"
FIRST: tuple[Probe, ...] = (
    *(probe for probe in docker_engine.PROBES if probe.id == _ROWS),
    *(probe for probe in gpu.PROBES if probe.id == _APPS),
    *processes.PROBES,
    *memory.PROBES,
)
_KIB = 1024
_ROOT_PARTS = ("stat", "status", "cgroup", "cmdline")


@dataclass(frozen=True)
class Census:
    """What the first reading showed, parsed. apps: None when the driver could not be asked; rows: the Engine."""

    processes: tuple[ProcessFacts, ...]
    rows: tuple[ContainerRow, ...] | None
    apps: tuple[GpuProcessFacts, ...] | None
    reader: int | None
    users: Mapping[int, str]
    booted_s: int | None

    @property
    def on_gpu(self) -> dict[int, int | None]:
        """KiB by process as the driver says, None where it does not; empty when nothing computes or it is unknown."""
        return {app.pid: None if app.used_mib is None else app.used_mib * _KIB for app in self.apps or ()}

    def holders(self, site: str, ended_units: frozenset[tuple[str, int | None]] = frozenset()) -> tuple[Holder, ...]:
        return holders_of(
            site, self.processes, self.rows, reader=self.reader, on_gpu=self.on_gpu.keys(), ended_units=ended_units
        )

    def resident_kib(self, holder: Holder) -> int:
        """An upper bound: pages that its processes share are in it more than once."""
        by_pid = {process.pid: process for process in self.processes}
        return sum(by_pid[pid].rss_kib or 0 for pid in holder.pids)

    def members(self, holder: Holder) -> tuple[str, ...]:
        """The containers of a holder; of a project all that run, also those that hold little."""
        if holder.kind != "compose":
            return holder.containers
        running = [r.id for r in self.rows or () if r.state == "running" and r.labels.get(PROJECT) == holder.name]
        return tuple(dict.fromkeys((*holder.containers, *running)))

    def display_unit(self) -> str | None:
        """The display manager's unit, when one runs."""
        owners = (owner_of(process.cgroups, ()) for process in self.processes)
        return next((o.name for o in owners if isinstance(o, Unit) and o.uid is None and is_display_unit(o.name)), None)


def read_census(reading: NodeReading) -> Census | None:
    """The first reading, parsed; None when the processes could not be read."""
    found = processes.read_processes(reading)
    if found is None:
        return None
    own = processes.parse_stat((reading.get("proc.self").files or {}).get("/proc/self/stat"))
    host, passwd = reading.get("proc.host").files or {}, reading.get("proc.users").files or {}
    return Census(
        processes=found,
        rows=docker_engine.read_containers(reading),
        apps=gpu.parse_compute_apps(reading.get(_APPS).text()),
        reader=own.pid if own is not None else None,
        users=processes.parse_users(passwd.get("/etc/passwd")),
        booted_s=processes.parse_boot_time(host.get("/proc/stat")),
    )


def possible(census: Census, site: str, large_kib: float) -> tuple[Holder, ...]:
    """Those that may be tenants: on the GPU, or large by the upper bound of their memory."""
    on_gpu = census.on_gpu
    return tuple(
        holder
        for holder in census.holders(site)
        if any(pid in on_gpu for pid in holder.pids) or census.resident_kib(holder) >= large_kib
    )


def second_probes(census: Census, holders: tuple[Holder, ...]) -> tuple[Probe, ...]:
    """What is asked of the possible tenants, and again of the GPU where it names a process that was not seen."""
    found: list[Probe] = []
    pids = tuple(pid for holder in holders for pid in holder.pids)
    if pids:
        found.append(processes.rollup_probe(pids))
    found += [inspect_probe(identity) for holder in holders for identity in census.members(holder)]
    for name, uid in _units(census, holders):
        found.append(units.unit_probe(name, uid))
    roots = [holder.root for holder in holders if holder.kind == "process"]
    if roots:
        found.append(Command("proc.cwd", ("stat", "--format=%N", *(f"/proc/{pid}/cwd" for pid in roots)), root=True))
    unseen = [pid for pid in census.on_gpu if pid not in {process.pid for process in census.processes}]
    if unseen:
        found += [probe for probe in FIRST if probe.id == _APPS]
        found += [
            Files(f"proc.{part}", tuple(f"/proc/{pid}/{part}" for pid in unseen), max_bytes=8192, root=True)
            for part in _ROOT_PARTS
        ]
    return tuple(found)


def _units(census: Census, holders: tuple[Holder, ...]) -> dict[tuple[str, int | None], None]:
    found: dict[tuple[str, int | None], None] = {}
    for holder in holders:
        if holder.kind in ("unit", "user-unit"):
            found[holder.name, holder.uid] = None
        elif holder.kind == "desktop" and (display := census.display_unit()) is not None:
            found[display, None] = None
    return found


def completed(census: Census, second: NodeReading) -> tuple[Census, tuple[int, ...]]:
    """The census with what the second reading adds; and the processes that the driver names and nobody can see."""
    again = gpu.parse_compute_apps(second.get(_APPS).text())
    if again is None:
        seen = {process.pid for process in census.processes}
        return census, tuple(pid for pid in census.on_gpu if pid not in seen)
    added = processes.read_processes(second) or ()
    everyone = (*census.processes, *added)
    seen = {process.pid for process in everyone}
    # A process that began and ended between the readings holds nothing any more.
    lost = tuple(app.pid for app in again if app.pid in census.on_gpu and app.pid not in seen)
    kept = tuple(app for app in census.apps or () if app.pid in seen or app.pid in lost)
    return Census(everyone, census.rows, kept, census.reader, census.users, census.booted_s), lost


def unanswered(role: Role, reading: NodeReading, census: Census | None, *, has_gpu: bool) -> tuple[str, ...]:
    """What the first reading could not tell, one sentence each."""
    if not reading.reachable:
        return (f"{role}: not reached: {reading.error or 'no reason given'}",)
    if census is None:
        why = reading.get("proc.stat").error or "nothing of /proc was readable"
        return (f"{role}: the processes could not be read: {why}",)
    found = []
    if census.rows is None:
        result = reading.get(_ROWS)
        why = result.error or (result.stderr or "").strip() or f"docker ps ended with {result.rc}"
        found.append(f"{role}: the containers could not be read: {why}")
    if census.apps is None:
        result = reading.get(_APPS)
        if has_gpu or not (result.error or "").startswith("no such program"):
            why = result.error or (result.stdout or result.stderr or "").strip() or f"nvidia-smi ended with {result.rc}"
            found.append(f"{role}: what computes on the GPU could not be read: {why}")
    return tuple(found)
