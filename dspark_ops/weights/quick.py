"""The look before a deploy: are the weights whole in size on both nodes. One round trip, nothing is hashed."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.guards import Refusal
from dspark_ops.transport.base import NodeReading, Probe
from dspark_ops.weights.reading import NodeWeights, probes_of, read_weights
from dspark_ops.weights.state import size_states

_SHOWN = 3


def quick_probes(site: Site) -> tuple[Probe, ...]:
    """What the look asks of each node; nothing when the site's weights are not kept by us."""
    return () if site.model.hub is None else probes_of(site.model.hub)


def quick_look(site: Site, readings: Mapping[Role, NodeReading]) -> list[Refusal]:
    """Why the weights forbid a start: no record, a file that is absent or of another size, or what cannot be read."""
    if site.model.hub is None:
        return []
    out: list[Refusal] = []
    nodes = {role: read_weights(site, role, readings[role]) for role in ROLES}
    for role in ROLES:
        out += _judge(nodes[role])
    head, worker = nodes["head"].record, nodes["worker"].record
    if not out and head != worker:
        out.append(
            Refusal("weights.record", "the nodes hold different records of one revision", "`dspark-ops model fetch`")
        )
    return out


def _judge(node: NodeWeights) -> list[Refusal]:
    where = f"{node.role} ({node.host})"
    remedy = "`dspark-ops model fetch`" if node.role == "head" else "`dspark-ops model sync`"
    if node.record_error is not None:
        return [Refusal("weights.record", f"{where}: its record of the weights is no use: {node.record_error}", remedy)]
    if node.record is None:
        told = f"{where}: it does not hold the pinned weights: there is no record of them"
        return [Refusal("weights.record", told, "`dspark-ops model fetch`")]
    if not node.readable:
        return [Refusal("weights.files", f"{where}: its hub cache cannot be read", "`dspark-ops model verify`")]
    bad = [state for state in size_states(node.record, node) if not state.whole]
    if not bad:
        return []
    told = "; ".join(f"{state.file.name}: {state.why}" for state in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return [Refusal("weights.files", f"{where}: the weights are not whole: {told}{more}", remedy)]
