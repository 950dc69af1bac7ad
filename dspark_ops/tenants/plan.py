"""Which tenants somebody asked for, and the plan that is shown before one is touched. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.config.models import Role
from dspark_ops.errors import RefusedError
from dspark_ops.tenants.model import Tenant, TenantKind
from dspark_ops.tenants.policy import named_in
from dspark_ops.tenants.recognise import without_secrets
from dspark_ops.tenants.records import EvictionRecord

_GIB_KIB = 1024**2
_CONTAINER = "a container that is still there gets its restart policy back and is not started"
_UNIT = "the drop-in that keeps it from starting is removed; it is not started now, at a boot if it is enabled"
_FORGOTTEN: dict[TenantKind, str] = {
    "container": _CONTAINER,
    "compose": _CONTAINER,
    "unit": _UNIT,
    "user-unit": _UNIT,
    "desktop": _UNIT,
    "process": "it is not started; its recorded environment is removed",
    "orphan": "nothing of it is left",
}


def asked_for(tenants: Sequence[Tenant], keys: Sequence[str], *, everything: bool) -> tuple[Tenant, ...]:
    """The tenants of the list that are meant; without a node a key means both nodes.

    Raises:
        RefusedError: a key that is not on the list; what is not shown is never touched.
    """
    if everything:
        return tuple(tenants)
    unknown = [key for key in keys if not any(named_in(tenant, (key,)) for tenant in tenants)]
    if unknown:
        there = ", ".join(f"{tenant.node}/{tenant.key}" for tenant in tenants) or "none"
        raise RefusedError(
            f"{', '.join(unknown)}: not on the list of tenants, so not touched; on it: {there}",
            hint="`dspark-ops tenants list` shows them",
        )
    return tuple(tenant for tenant in tenants if named_in(tenant, keys))


def render_eviction(tenants: Sequence[Tenant], *, kill: bool) -> str:
    """What will be stopped, how, and how it comes back."""
    lines = ["Evict:"]
    for tenant in tenants:
        lines.append(f"  {tenant.node}/{tenant.key}  {tenant.what}, {_size(tenant.memory_kib)}")
        lines.append(f"      stops by {tenant.stops_by}; comes back by {tenant.comes_back_by}")
    if kill:
        lines.append("  what does not end in time is killed (--kill)")
    return "\n".join(lines)


def render_restore(owed: Mapping[Role, Sequence[EvictionRecord]], *, start_processes: bool) -> str:
    """What will be brought back, and what waits for a consent of its own."""
    lines = ["Bring back:"]
    for role, records in owed.items():
        for record in records:
            since = f" since {record.intended_at:%Y-%m-%d %H:%M} UTC" if record.intended_at else ""
            lines.append(f"  {role}/{record.key}  {record.what}, {_size(record.held_kib)}, owed{since}")
            if record.by_hand:
                how = "by its recorded command" if start_processes else "only with --start-processes"
                lines.append(f"      starts {how}: {' '.join(record.command)}")
    return "\n".join(lines)


def render_forgetting(owed: Mapping[Role, Sequence[EvictionRecord]]) -> str:
    """What nobody will be owed any more, record by record, and what becomes of our own changes."""
    lines = ["Forget, so that it is never brought back by `tenants restore`:"]
    for role, records in owed.items():
        for record in records:
            since = f" since {record.intended_at:%Y-%m-%d %H:%M} UTC" if record.intended_at else ""
            lines.append(f"  {role}/{record.key}  {record.what}, {_size(record.held_kib)}, owed{since}")
            lines.append(f"      {_FORGOTTEN[record.kind]}")
            if record.by_hand:
                lines.append(f"      its command: {' '.join(without_secrets(record.command))}")
            lines.append(f"      record {record.path}, {record.state}: kept, as forgotten")
    return "\n".join(lines)


def _size(kib: int | None) -> str:
    return "unknown memory" if kib is None else f"{kib / _GIB_KIB:.2f} GiB"
