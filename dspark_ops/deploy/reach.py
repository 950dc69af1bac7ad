"""Logging in to both nodes before a verb that writes: both answer and may use sudo, or nothing is begun."""

from __future__ import annotations

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts import fabric_journal, supervisor
from dspark_ops.report.models import NodeReport
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.base import Command, NodeReading
from dspark_ops.transport.ssh import read_pair


def reach(site: Site, recorder: Recorder) -> dict[Role, NodeReading]:
    """Log in to both nodes and see that sudo works there; the readings, with the journal of each node's fabric.

    The head's reading also has its supervisor.

    Raises NoVerdictError naming every node on which that fails; nothing was changed.
    """
    asked = (Command("true", ("true",)), *fabric_journal.PROBES)
    readings = read_pair(site, {"head": (*asked, *supervisor.PROBES), "worker": asked})
    recorder.nodes = tuple(
        NodeReport(
            role=role,
            host=site.nodes.of(role).host,
            reachable=readings[role].reachable,
            error=readings[role].error,
            round_trip_s=round(readings[role].elapsed_s, 3),
        )
        for role in ROLES
    )
    failures = [failure for role in ROLES if (failure := _why_not(site, role, readings[role])) is not None]
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )
    return readings


def _why_not(site: Site, role: Role, reading: NodeReading) -> tuple[str, str] | None:
    if not reading.reachable:
        return f"{role}: {reading.error}", reading.hint or "look at the node"
    if not reading.sudo:
        where = f"{role} ({site.nodes.of(role).host})"
        return f"{where}: {reading.user} may not use sudo without a password", "allow it in /etc/sudoers.d there"
    return None
