"""Which tenants had to leave and are not back, said at the end of every verb that touches the ranks."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.config.models import ROLES, Role
from dspark_ops.tenants import records
from dspark_ops.transport.ssh import SshRunner, read_nodes


def owed_lines(runners: Mapping[Role, SshRunner]) -> list[str]:
    """One line a node that owes somebody his place, or of which that could not be read; reads both nodes once."""
    found = records.owed(read_nodes(runners, dict.fromkeys(ROLES, records.PROBES)))
    lines = []
    for role in ROLES:
        kept = found.get(role)
        if kept is None:
            lines.append(f"{role}: whether a tenant is owed its place could not be read")
        elif kept:
            lines.append(f"{role}: owed their place: {', '.join(record.key for record in kept)}")
    return lines
