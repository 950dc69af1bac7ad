"""Both nodes' weights: read, and hashed where a verb wants to be sure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts import links
from dspark_ops.report.models import NodeReport
from dspark_ops.report.recorder import Recorder
from dspark_ops.transport.base import NodeReading
from dspark_ops.transport.ssh import SshRunner, read_nodes
from dspark_ops.weights.hashing import hash_blobs
from dspark_ops.weights.meter import Meter, amount, duration
from dspark_ops.weights.model import Manifest
from dspark_ops.weights.plan import hashable, require_hub
from dspark_ops.weights.reading import NodeWeights, probes_of, read_weights
from dspark_ops.weights.state import Digests


def look(site: Site, runners: Mapping[Role, SshRunner], recorder: Recorder) -> dict[Role, NodeWeights]:
    """Both nodes in one round trip, for a verb that goes on to change something.

    Raises:
        NoVerdictError: a node, its cache or its links could not be read.
    """
    readings = observe(site, runners, recorder)
    failures = [failure for role in ROLES if (failure := _why_not(site, role, readings[role])) is not None]
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )
    return {role: read_weights(site, role, readings[role]) for role in ROLES}


def observe(site: Site, runners: Mapping[Role, SshRunner], recorder: Recorder) -> dict[Role, NodeReading]:
    """The readings themselves, whatever they are; the recorder notes the nodes."""
    probes = (*probes_of(require_hub(site)), *links.PROBES)
    readings = read_nodes(runners, dict.fromkeys(ROLES, probes))
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
    return readings


def _why_not(site: Site, role: Role, reading: NodeReading) -> tuple[str, str] | None:
    where = f"{role} ({site.nodes.of(role).host})"
    if not reading.reachable:
        return f"{role}: {reading.error}", reading.hint or "look at the node"
    if reading.sudo is False:
        return f"{where}: {reading.user} may not use sudo without a password", "allow it in /etc/sudoers.d there"
    node = read_weights(site, role, reading)
    if not node.readable:
        return f"{where}: the hub cache below {require_hub(site).cache} cannot be read", "look at its permissions"
    if node.links is None:
        return f"{where}: its links cannot be read", "`dspark-ops doctor`"
    return None


def prove(
    site: Site,
    runners: Mapping[Role, SshRunner],
    manifest: Manifest,
    nodes: Mapping[Role, NodeWeights],
    recorder: Recorder,
    roles: Iterable[Role] = ROLES,
) -> dict[Role, Digests]:
    """sha256 of every blob that could be whole, on these nodes at the same time; empty for a node not asked for."""
    wanted = {role: hashable(manifest, nodes[role]) for role in roles}
    total = sum(sum({file.blob: file.size for file in files}.values()) for files in wanted.values())
    found: dict[Role, Digests] = {role: {} for role in ROLES}
    if not any(wanted.values()):
        return found
    with recorder.phase("prove") as note:
        meter = Meter("prove", total, recorder.progress)
        found |= hash_blobs(require_hub(site), runners, wanted, meter.add)
        count = sum(len(files) for files in wanted.values())
        note.detail = f"sha256 of {count} files, {amount(total)}, took {duration(meter.elapsed_s)}"
    return found
