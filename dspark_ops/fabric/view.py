"""What the fabric of a pair is: ports, cables, rails, as one document. Built from facts; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import RefusedError
from dspark_ops.fabric.cabling import Cable, sightings
from dspark_ops.fabric.nccl import nccl_settings
from dspark_ops.fabric.ports import FabricPort, Half, fabric_ports
from dspark_ops.fabric.rails import Pairing, pair_ports
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.report.models import NodeReport


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PortView(_Model):
    """One fabric port as it is. gid_indexes: RoCE v2 entries per IPv4 address; owner: who configures it after a boot.

    carrier, mtu, owner: None where it could not be read. pcie: as "x4 32.0 GT/s PCIe".
    """

    role: Role
    netdev: str
    cage: int
    half: Half
    hca: str | None
    carrier: bool | None
    mtu: int | None
    speed_mbps: int | None
    rdma_state: str | None
    addresses: tuple[str, ...]
    gid_indexes: dict[str, tuple[int, ...]]
    pcie: str | None
    firmware: str | None
    owner: str | None


class CableView(_Model):
    """One cable between two cages. evidence: what showed it (echo, lldp, neighbour, subnets, carrier)."""

    head_cage: int
    worker_cage: int
    crossed: bool
    evidence: tuple[str, ...]


class RailView(_Model):
    """Two ports that one PCIe half of a cable joins. planned: the site has exactly this rail; None without a site."""

    name: str
    half: Half
    head: str
    worker: str
    planned: bool | None


class NcclView(_Model):
    """One variable of a node; value None: unset, and absent from the environment."""

    name: str
    value: str | None
    reason: str


class FabricView(_Model):
    """The document of `fabric show`. ambiguity: why the cables could not be told; then there are no rails."""

    schema_id: Literal["dspark-ops/fabric/v1"] = Field("dspark-ops/fabric/v1", serialization_alias="schema")
    site: str | None
    nodes: tuple[NodeReport, ...]
    ports: tuple[PortView, ...]
    cables: tuple[CableView, ...]
    rails: tuple[RailView, ...]
    notes: tuple[str, ...]
    ambiguity: str | None = None
    hint: str | None = None
    nccl: dict[Role, tuple[NcclView, ...]] | None = None

    def ports_of(self, role: Role) -> tuple[PortView, ...]:
        """The ports of one node, cage by cage, half A first."""
        return tuple(port for port in self.ports if port.role == role)


def build_view(facts: PairFacts, site: Site | None, *, nccl: bool = False) -> FabricView:
    """The fabric of two nodes that were both read. site: None when only two hosts were named."""
    ports = {node.role: fabric_ports(node.links or (), node.rdma or ()) for node in facts.nodes}
    views = tuple(_port_view(facts.of(role), port) for role in ROLES for port in ports[role])
    pairing: Pairing | None = None
    refused: RefusedError | None = None
    try:
        pairing = pair_ports(ports["head"], ports["worker"], sightings(ports, {n.role: n for n in facts.nodes}))
    except RefusedError as error:
        refused = error
    notes = list(pairing.notes) if pairing else []
    rails = _rails(pairing, site) if pairing else ()
    if site is not None and pairing is not None:
        notes += _site_notes(site, rails)
    return FabricView(
        site=site.name if site else None,
        nodes=tuple(
            NodeReport(role=n.role, host=n.host, reachable=n.reachable, error=n.error, round_trip_s=n.round_trip_s)
            for n in facts.nodes
        ),
        ports=views,
        cables=tuple(_cable_view(cable) for cable in pairing.cables) if pairing else (),
        rails=rails,
        notes=tuple(notes),
        ambiguity=refused.message if refused else None,
        hint=refused.hint if refused else None,
        nccl=_nccl(site) if nccl and site is not None else None,
    )


def _cable_view(cable: Cable) -> CableView:
    return CableView(
        head_cage=cable.head_cage, worker_cage=cable.worker_cage, crossed=cable.crossed, evidence=cable.evidence
    )


def _port_view(node: NodeFacts, port: FabricPort) -> PortView:
    link, hca = node.link(port.netdev), node.hca(port.hca or "")
    width, speed = (hca.pcie_width, hca.pcie_speed) if hca else (None, None)
    return PortView(
        role=node.role,
        netdev=port.netdev,
        cage=port.cage,
        half=port.half,
        hca=port.hca,
        carrier=port.carrier,
        mtu=link.mtu if link else None,
        speed_mbps=link.speed_mbps if link else None,
        rdma_state=hca.state if hca else None,
        addresses=tuple(str(address) for address in port.addresses),
        gid_indexes={str(address.ip): roce_v2_indexes(hca.gids, port.netdev, address.ip) for address in port.addresses}
        if hca
        else {},
        pcie=None
        if width is None and speed is None
        else f"x{width if width is not None else '?'} {speed or ''}".strip(),
        firmware=hca.firmware if hca else None,
        owner=_owner(node, port.netdev),
    )


def _owner(node: NodeFacts, netdev: str) -> str | None:
    owners = node.owners_of(netdev)
    if owners is None:
        return None
    told = [owner for owner in owners if owner.idle is None and not owner.silent]
    return ", ".join(f"{owner.path.rsplit('/', 1)[-1]} ({owner.maker})" for owner in told) or "nobody"


def _rails(pairing: Pairing, site: Site | None) -> tuple[RailView, ...]:
    planned: Mapping[tuple[str, str], str] = (
        {} if site is None else {(rail.head.netdev, rail.worker.netdev): rail.name for rail in site.fabric.rails}
    )
    found = []
    for pair in pairing.pairs:
        ends = (pair.head.netdev, pair.worker.netdev)
        found.append(
            RailView(
                name=planned.get(ends, pair.head.label),
                half=pair.head.half,
                head=ends[0],
                worker=ends[1],
                planned=None if site is None else ends in planned,
            )
        )
    return tuple(found)


def _site_notes(site: Site, rails: tuple[RailView, ...]) -> list[str]:
    """Where the cables and the site disagree."""
    cabled = {(rail.head, rail.worker) for rail in rails}
    notes = [
        f"rail {rail.name} of the site joins head {rail.head.netdev} to worker {rail.worker.netdev}; no cable does"
        for rail in site.fabric.rails
        if (rail.head.netdev, rail.worker.netdev) not in cabled
    ]
    notes += [
        f"head {rail.head} is cabled to worker {rail.worker}, and no rail of the site uses it"
        for rail in rails
        if rail.planned is False
    ]
    return notes


def _nccl(site: Site) -> dict[Role, tuple[NcclView, ...]]:
    return {
        role: tuple(NcclView(name=s.name, value=s.value, reason=s.reason) for s in nccl_settings(site, role))
        for role in ROLES
    }
