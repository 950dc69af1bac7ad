"""`tenants list` as one document and as a table for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.recognise import without_secrets
from dspark_ops.tenants.sight import NodeTenants, TenantSight

SCHEMA_ID: Final = "dspark-ops/tenants/v1"
_HEADS = ("KEY", "SINCE", "MEMORY", "GPU", "WHAT")


def exit_code(sight: TenantSight) -> ExitCode:
    """Tenants are no fault. Not having been able to look is no answer."""
    return ExitCode.NO_VERDICT if sight.problems else ExitCode.OK


def document(site: Site, sight: TenantSight) -> dict[str, Any]:
    """The JSON document; values of options that look like secrets are hidden."""
    return {
        "schema": SCHEMA_ID,
        "site": site.name,
        "large_memory_gib": site.tenants.large_memory_gib,
        "nodes": [_node_document(site, role, sight.nodes[role]) for role in ROLES if role in sight.nodes],
        "problems": list(sight.problems),
        "exit_code": int(exit_code(sight)),
    }


def _node_document(site: Site, role: Role, node: NodeTenants) -> dict[str, Any]:
    memory = node.memory
    return {
        "role": role,
        "host": site.nodes.of(role).host,
        "mem_total_kib": memory.mem_total_kib if memory else None,
        "mem_available_kib": memory.mem_available_kib if memory else None,
        "tenants": [shown(tenant).model_dump(mode="json") for tenant in node.tenants],
    }


def shown(tenant: Tenant) -> Tenant:
    """The tenant as it may be shown."""
    if tenant.process is None:
        return tenant
    process = tenant.process.model_copy(update={"argv": without_secrets(tenant.process.argv)})
    return tenant.model_copy(update={"process": process})


def render(site: Site, sight: TenantSight, *, now: datetime | None = None) -> str:
    """The tables for people, and at the end what could not be read."""
    lines: list[str] = []
    for role in ROLES:
        if role in sight.nodes:
            lines += [*_node_lines(site, role, sight.nodes[role], now or datetime.now(tz=UTC)), ""]
    lines += [f"could not tell: {problem}" for problem in sight.problems]
    return "\n".join(lines).rstrip()


def _node_lines(site: Site, role: Role, node: NodeTenants, now: datetime) -> list[str]:
    title = f"{role} ({site.nodes.of(role).host}): {memory_words(node.memory)}"
    if not node.tenants:
        least = f"{site.tenants.large_memory_gib:g} GiB"
        none = "could not be told" if node.problems else f"none: nobody on the GPU, nobody with {least} or more"
        return [title, f"  {none}"]
    rows = [_HEADS, *(_row(tenant, now) for tenant in node.tenants)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = [title, f"  {lines[0]}"]
    for tenant, line in zip(node.tenants, lines[1:], strict=True):
        told += [f"  {line}", f"      stops by       {tenant.stops_by}", f"      comes back by  {tenant.comes_back_by}"]
        if tenant.held_by:
            told.append(f"      respawned by   {tenant.held_by}")
    return told


def _row(tenant: Tenant, now: datetime) -> tuple[str, ...]:
    since = "unknown" if tenant.since is None else age(now - tenant.since)
    return tenant.key, since, gib(tenant.memory_kib), gpu_words(tenant), tenant.what


def memory_words(memory: MemoryFacts | None) -> str:
    """MemAvailable of MemTotal."""
    if memory is None or memory.available_gib is None:
        return "its available memory could not be read"
    total = "unknown" if memory.total_gib is None else f"{memory.total_gib:.1f}"
    return f"{memory.available_gib:.1f} GiB available of {total} GiB"


def gpu_words(tenant: Tenant) -> str:
    """no, a size, `yes, N/A` where the driver does not say how much, or unknown."""
    if tenant.on_gpu is None:
        return "unknown"
    if not tenant.on_gpu:
        return "no"
    return "yes, N/A" if tenant.gpu_kib is None else gib(tenant.gpu_kib)


def gib(kib: int | None) -> str:
    """A size in GiB, below a tenth in MiB; unknown is never 0."""
    if kib is None:
        return "unknown"
    return f"{kib / (1 << 20):.1f} GiB" if kib >= (1 << 20) // 10 else f"{kib / 1024:.0f} MiB"


def age(span: timedelta) -> str:
    """How long, by its largest unit. A clock that is behind gives 0 s."""
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
