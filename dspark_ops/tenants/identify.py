"""A holder to a tenant: identity, words and memory from what was read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dspark_ops.config.models import Role
from dspark_ops.facts.container_inspect import ContainerFacts
from dspark_ops.facts.processes import TICKS_PER_S, ProcessFacts, ResidentFacts
from dspark_ops.facts.units import UnitFacts
from dspark_ops.tenants import wording
from dspark_ops.tenants.grouping import SERVICE, Holder, starts_again
from dspark_ops.tenants.model import ContainerIdentity, ProcessIdentity, Tenant, UnitIdentity
from dspark_ops.tenants.programs import command_of, program_of
from dspark_ops.tenants.reading import Census
from dspark_ops.tenants.recognise import model_of, recognise


@dataclass(frozen=True)
class Details:
    """What the second reading told. gone: containers that ended between the two."""

    resident: Mapping[int, ResidentFacts]
    containers: Mapping[str, ContainerFacts]
    units: Mapping[tuple[str, int | None], UnitFacts]
    cwds: Mapping[int, str]
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Parts:
    """What all kinds of tenants have in common."""

    role: Role
    holder: Holder
    processes: tuple[ProcessFacts, ...]
    root: ProcessFacts
    biggest: ProcessFacts
    user: str
    names: tuple[str, ...]

    @property
    def known_as(self) -> str | None:
        commands = [" ".join(one.argv) or one.name for one in (self.root, self.biggest)]
        return recognise([*self.names, *commands])

    @property
    def known(self) -> str:
        """The name people know it by, and the model where its command names one."""
        model = model_of(self.biggest.argv) or model_of(self.root.argv)
        return (self.known_as or program_of(self.biggest)) + (f" ({model})" if model else "")


def memory_of(pids: Sequence[int], census: Census, details: Details) -> tuple[int | None, int | None]:
    """(resident, of it file pages) in KiB. Each shared page by its share where root could read it, else as it is."""
    by_pid = {process.pid: process for process in census.processes}
    total, files, any_known, all_files = 0, 0, False, True
    for pid in pids:
        seen = details.resident.get(pid)
        size = seen.pss_kib if seen is not None else by_pid[pid].rss_kib
        total += size or 0
        any_known = any_known or size is not None
        if seen is None or seen.file_kib is None:
            all_files = False
        else:
            files += seen.file_kib
    return (total, files if all_files else None) if any_known else (None, None)


def gpu_of(pids: Sequence[int], census: Census) -> tuple[bool | None, int | None]:
    """(on the GPU, KiB there). A part that the driver does not tell makes the sum unknown."""
    if census.apps is None:
        return None, None
    sizes = [census.on_gpu[pid] for pid in pids if pid in census.on_gpu]
    known = [size for size in sizes if size is not None]
    return bool(sizes), sum(known) if sizes and len(known) == len(sizes) else None


def identify(role: Role, holder: Holder, census: Census, details: Details) -> Tenant:
    """The tenant that a holder is."""
    parts = _parts(role, holder, census, details)
    memory_kib, reclaimable_kib = memory_of(holder.pids, census, details)
    on_gpu, gpu_kib = gpu_of(holder.pids, census)
    own = {
        "container": _container,
        "compose": _project,
        "unit": _unit,
        "user-unit": _unit,
        "process": _process,
        "orphan": _orphan,
        "desktop": _desktop,
    }[holder.kind](parts, census, details)
    return own.model_copy(
        update={
            "since": _since(parts, census),
            "memory_kib": memory_kib,
            "reclaimable_kib": reclaimable_kib,
            "gpu_kib": gpu_kib,
            "on_gpu": on_gpu,
            "pids": holder.pids,
        }
    )


def _parts(role: Role, holder: Holder, census: Census, details: Details) -> _Parts:
    by_pid = {process.pid: process for process in census.processes}
    mine = tuple(by_pid[pid] for pid in holder.pids)

    def size(process: ProcessFacts) -> tuple[int, int, int]:
        seen = details.resident.get(process.pid)
        on_gpu = process.pid in census.on_gpu
        return int(on_gpu), census.on_gpu.get(process.pid) or 0, seen.pss_kib if seen else process.rss_kib or 0

    root = by_pid[holder.root]
    uid = int(holder.name) if holder.kind == "desktop" else holder.uid if holder.uid is not None else root.uid
    images = [details.containers[one].image or "" for one in holder.containers if one in details.containers]
    rows = [row.image or "" for row in census.rows or () if row.id in holder.containers]
    user = "?" if uid is None else census.users.get(uid, str(uid))
    named = "" if holder.kind == "desktop" else holder.name
    return _Parts(role, holder, mine, root, max(mine, key=size), user, (named, *images, *rows))


def _since(parts: _Parts, census: Census) -> datetime | None:
    """When the oldest of its processes began."""
    if census.booted_s is None:
        return None
    oldest = min(process.start_ticks for process in parts.processes)
    try:
        return datetime.fromtimestamp(census.booted_s + oldest // TICKS_PER_S, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _member(identity: str, census: Census, details: Details) -> ContainerIdentity:
    """A container's identity; what could not be inspected is None."""
    seen = details.containers.get(identity)
    row = next((row for row in census.rows or () if row.id == identity), None)
    if seen is None:
        return ContainerIdentity(
            id=identity,
            name=row.name if row is not None else identity[:12],
            image=row.image if row is not None else None,
            state=row.state if row is not None else None,
            service=row.labels.get(SERVICE) if row is not None else None,
        )
    return ContainerIdentity(
        id=seen.id,
        name=seen.name,
        image=seen.image,
        state=seen.state,
        restart_policy=seen.restart_policy,
        restart_retries=seen.restart_retries,
        service=seen.labels.get(SERVICE),
        auto_remove=seen.auto_remove,
    )


def _container(parts: _Parts, census: Census, details: Details) -> Tenant:
    member = _member(parts.holder.containers[0], census, details)
    stops, back = wording.container_words(member)
    return Tenant(
        node=parts.role,
        kind="container",
        key=_key("container", parts.holder.name),
        what=f"{parts.known}, container of {_image_words(member.image)}",
        held_by=wording.container_held_by(member),
        stops_by=stops,
        comes_back_by=back,
        members=(member,),
    )


def _image_words(image: str | None) -> str:
    """The image's name; of one that was started by its id, as much of it as docker shows."""
    if image is None:
        return "an unknown image"
    return f"image {image.removeprefix('sha256:')[:12]}" if image.startswith("sha256:") else image


def _project(parts: _Parts, census: Census, details: Details) -> Tenant:
    ids = [identity for identity in census.members(parts.holder) if identity not in details.gone]
    began = {i: seen.started_at or "" for i in ids if (seen := details.containers.get(i)) is not None}
    members = tuple(_member(i, census, details) for i in sorted(ids, key=lambda i: (began.get(i, ""), i)))
    stops, back = wording.project_words(members)
    services = ", ".join(member.service or member.name for member in members)
    return Tenant(
        node=parts.role,
        kind="compose",
        key=_key("compose", parts.holder.name),
        what=f"{parts.known}, compose project: {services}",
        held_by=wording.members_held_by(members),
        stops_by=stops,
        comes_back_by=back,
        members=members,
    )


def _unit(parts: _Parts, _census: Census, details: Details) -> Tenant:
    holder = parts.holder
    seen = details.units.get((holder.name, holder.uid))
    user = None if holder.uid is None else parts.user
    stops, back = wording.unit_words(holder.name, seen, user)
    return Tenant(
        node=parts.role,
        kind=holder.kind,
        key=_key(holder.kind, holder.name if user is None else f"{user}/{holder.name}"),
        what=f"{parts.known}, system unit" if user is None else f"{parts.known}, unit of user {user}",
        held_by=wording.unit_held_by(seen),
        stops_by=stops,
        comes_back_by=back,
        unit=_unit_identity(holder.name, seen, user, holder.uid),
    )


def _unit_identity(name: str, seen: UnitFacts | None, user: str | None, uid: int | None) -> UnitIdentity:
    return UnitIdentity(
        name=name,
        user=user,
        uid=uid,
        active=seen.active if seen else None,
        enablement=seen.enablement if seen else None,
        fragment=seen.fragment if seen else None,
    )


def _process(parts: _Parts, census: Census, details: Details) -> Tenant:
    stops, back = wording.process_words(parts.root.pid, len(parts.processes) - 1)
    parent = _parent(parts.root, census)
    return Tenant(
        node=parts.role,
        kind="process",
        key=_key("process", f"{program_of(parts.root)}/{parts.root.pid}"),
        what=f"{parts.known}, bare process of {parts.user}" + (f", child of {parent}" if parent else ""),
        held_by=starts_again(parts.root, parts.biggest),
        stops_by=stops,
        comes_back_by=back,
        process=_process_identity(parts, census, details),
    )


def _orphan(parts: _Parts, census: Census, details: Details) -> Tenant:
    stops, back = wording.orphan_words(parts.holder.pids)
    return Tenant(
        node=parts.role,
        kind="orphan",
        key=_key("orphan", f"{program_of(parts.root)}/{parts.root.pid}"),
        what=f"{parts.known_as or 'engine'} process without its server, of {parts.user}",
        stops_by=stops,
        comes_back_by=back,
        process=_process_identity(parts, census, details),
    )


def _desktop(parts: _Parts, census: Census, details: Details) -> Tenant:
    display = census.display_unit()
    stops, back = wording.desktop_words(display, parts.user)
    seen = details.units.get((display, None)) if display is not None else None
    return Tenant(
        node=parts.role,
        kind="desktop",
        key=_key("desktop", parts.user),
        what=f"the desktop of {parts.user}: {len(parts.processes)} processes, the largest {command_of(parts.biggest)}",
        held_by=wording.unit_held_by(seen),
        stops_by=stops,
        comes_back_by=back,
        unit=None if display is None else _unit_identity(display, seen, None, None),
    )


def _process_identity(parts: _Parts, census: Census, details: Details) -> ProcessIdentity:
    root = parts.root
    return ProcessIdentity(
        pid=root.pid,
        start_ticks=root.start_ticks,
        ppid=root.ppid,
        parent=_parent(root, census),
        uid=root.uid,
        user=None if root.uid is None else census.users.get(root.uid),
        argv=root.argv,
        cwd=details.cwds.get(root.pid),
    )


def _parent(process: ProcessFacts, census: Census) -> str | None:
    parent = next((one for one in census.processes if one.pid == process.ppid), None)
    return None if parent is None else f"{command_of(parent)} (pid {parent.pid})"


def _key(kind: str, rest: str) -> str:
    """A key is one word: a site file lists it so."""
    return f"{kind}:" + re.sub(r"\s+", "_", rest)
