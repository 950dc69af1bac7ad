"""One holder of the GPU or of large memory: what it is, what it holds, how it would stop, how it would come back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from dspark_ops.config.models import Role
from dspark_ops.facts.model import Fact

TenantKind = Literal["container", "compose", "unit", "user-unit", "process", "orphan", "desktop"]


class ContainerIdentity(Fact):
    """A container as it must come back: the same id under the same restart policy. state as Docker says.

    auto_remove: it was started with --rm, so that stopping it removes it for good; None when it could not be read.
    """

    id: str
    name: str
    image: str | None = None
    state: str | None = None
    restart_policy: str | None = None
    restart_retries: int | None = None
    service: str | None = None
    auto_remove: bool | None = None


class UnitIdentity(Fact):
    """A systemd unit. user None: of the system manager. enablement: `systemctl is-enabled` (enabled, disabled,
    static, transient …); None when it could not be read."""

    name: str
    user: str | None = None
    uid: int | None = None
    active: str | None = None
    enablement: str | None = None
    fragment: str | None = None


class ProcessIdentity(Fact):
    """A process that nobody starts again. start_ticks: field 22 of /proc/PID/stat, so that a reused pid is another."""

    pid: int
    start_ticks: int
    ppid: int | None = None
    parent: str | None = None
    uid: int | None = None
    user: str | None = None
    argv: tuple[str, ...] = ()
    cwd: str | None = None


class Tenant(Fact):
    """A holder that is not a rank of this site.

    key: unique on its node and the same at the next look while it lives: `container:NAME`, `compose:PROJECT`,
    `unit:NAME`, `user-unit:USER/NAME`, `process:PROGRAM/PID`, `orphan:PROGRAM/PID`, `desktop:USER`.
    what: in words. memory_kib: resident memory of all its processes, shared pages once; None is not known.
    reclaimable_kib: of it, pages of files, which MemAvailable counts as available before it stops; None is not known.
    gpu_kib: what the driver says; None also where it says N/A. on_gpu: None when the driver could not be asked.
    members: of a compose project, every container of it that runs. held_by: what would start it again, in words.
    """

    node: Role
    kind: TenantKind
    key: str
    what: str
    since: datetime | None = None
    memory_kib: int | None = None
    reclaimable_kib: int | None = None
    gpu_kib: int | None = None
    on_gpu: bool | None = None
    pids: tuple[int, ...] = ()
    held_by: str | None = None
    stops_by: str
    comes_back_by: str
    members: tuple[ContainerIdentity, ...] = ()
    unit: UnitIdentity | None = None
    process: ProcessIdentity | None = None

    @property
    def held_kib(self) -> int | None:
        """What it gives back at least when it ends; None where that is not known.

        The larger of resident memory and what the driver says: on unified memory nobody can tell how far the two
        overlap. Without the file pages, which `MemAvailable` counts as free already.
        """
        known = [kib for kib in (self.memory_kib, self.gpu_kib) if kib is not None]
        return max(0, max(known) - (self.reclaimable_kib or 0)) if known else None
