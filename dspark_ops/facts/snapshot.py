"""All facts of a node and of the pair, from one reading each. No judgement here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.facts import (
    disk,
    docker_engine,
    gpu,
    jumbo,
    links,
    listeners,
    memory,
    nccl_files,
    neighbours,
    netplan,
    persistence,
    rank,
    rdma,
    routes,
    service,
    sysctl,
    system,
    verbs,
)
from dspark_ops.facts.disk import DiskFacts
from dspark_ops.facts.docker_engine import ContainerRow, EngineFacts, ImageFacts
from dspark_ops.facts.gids import GidRecord
from dspark_ops.facts.gpu import GpuFacts
from dspark_ops.facts.jumbo import JumboFacts
from dspark_ops.facts.links import LinkFacts
from dspark_ops.facts.listeners import ListenerFacts
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.model import Fact
from dspark_ops.facts.nccl_files import NcclFile
from dspark_ops.facts.neighbours import EchoFacts, LldpFacts, NeighbourFacts
from dspark_ops.facts.netplan import NetplanFile
from dspark_ops.facts.persistence import Owner, PersistenceFacts, owners_of
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.routes import RouteFacts
from dspark_ops.facts.service import ServiceFacts
from dspark_ops.facts.system import SystemFacts
from dspark_ops.transport.base import Filesystem, NodeReading, Probe
from dspark_ops.transport.ssh import read_pair

PROBES: tuple[Probe, ...] = (
    # The slowest first: the node runs them side by side, a few at a time.
    *docker_engine.PROBES,
    *rank.PROBES,
    *gpu.PROBES,
    *netplan.PROBES,
    *persistence.PROBES,
    *verbs.PROBES,
    *rdma.PROBES,
    *links.PROBES,
    *routes.PROBES,
    *listeners.PROBES,
    *system.PROBES,
    *memory.PROBES,
    *sysctl.PROBES,
    *disk.PROBES,
    *nccl_files.PROBES,
    *neighbours.PROBES,
)


class NodeFacts(Fact):
    """One node. A part that is None was not read, or could not be parsed; unreachable: all of them are None.

    rank: None both when there is no container and when that is unknown; rank_known tells the two apart.
    clock_error_s: at least this far from the control host's clock; 0 is "not shown to be off".
    """

    role: Role
    host: str
    reachable: bool
    error: str | None = None
    hint: str | None = None
    sudo: bool | None = None
    round_trip_s: float | None = None
    clock_s: float | None = None
    clock_error_s: float | None = None
    system: SystemFacts | None = None
    memory: MemoryFacts | None = None
    gpu: GpuFacts | None = None
    links: tuple[LinkFacts, ...] | None = None
    routes: tuple[RouteFacts, ...] | None = None
    rdma: tuple[HcaFacts, ...] | None = None
    netplan: tuple[NetplanFile, ...] | None = None
    persistence: PersistenceFacts | None = None
    nccl_files: tuple[NcclFile, ...] | None = None
    docker: EngineFacts | None = None
    containers: tuple[ContainerRow, ...] | None = None
    images: tuple[ImageFacts, ...] | None = None
    rank: RankFacts | None = None
    rank_known: bool = False
    disks: tuple[DiskFacts, ...] | None = None
    listeners: tuple[ListenerFacts, ...] | None = None
    sysctl: dict[str, int] | None = None
    service: ServiceFacts | None = None
    jumbo: tuple[JumboFacts, ...] | None = None
    neighbours: tuple[NeighbourFacts, ...] | None = None
    echoes: tuple[EchoFacts, ...] | None = None
    lldp: tuple[LldpFacts, ...] | None = None

    def link(self, name: str) -> LinkFacts | None:
        """A network device by name, or None."""
        return next((item for item in self.links or () if item.name == name), None)

    def hca(self, name: str) -> HcaFacts | None:
        """An RDMA device by name, or None."""
        return next((item for item in self.rdma or () if item.name == name), None)

    def hca_of(self, netdev: str) -> HcaFacts | None:
        """The RDMA device of a network device, or None."""
        return next((item for item in self.rdma or () if item.netdev == netdev), None)

    def owners_of(self, netdev: str) -> tuple[Owner, ...] | None:
        """Every file and profile that configures a network device after a boot; None when they could not be read."""
        link = self.link(netdev)
        return owners_of(netdev, link.mac if link else None, self.netplan, self.persistence)


class PairFacts(Fact):
    """Both nodes, read at the same time. gid_record: the GID indexes of an earlier reading, where one was recalled."""

    head: NodeFacts
    worker: NodeFacts
    gid_record: GidRecord | None = None

    def of(self, role: Role) -> NodeFacts:
        return self.head if role == "head" else self.worker

    @property
    def nodes(self) -> tuple[NodeFacts, NodeFacts]:
        return self.head, self.worker


def parse_node(role: Role, reading: NodeReading, host: str | None = None) -> NodeFacts:
    """The facts of one reading. Never raises: what cannot be parsed is None."""
    return NodeFacts(
        role=role,
        host=host or reading.node,
        reachable=reading.reachable,
        error=reading.error,
        hint=reading.hint,
        sudo=reading.sudo,
        round_trip_s=reading.elapsed_s,
        clock_s=reading.clock_s,
        clock_error_s=reading.clock_error_s,
        system=system.read_system(reading),
        memory=memory.read_memory(reading),
        gpu=gpu.read_gpu(reading),
        links=links.read_links(reading),
        routes=routes.read_routes(reading),
        rdma=rdma.read_rdma(reading),
        netplan=netplan.read_netplan(reading),
        persistence=persistence.read_persistence(reading),
        nccl_files=nccl_files.read_nccl_files(reading),
        docker=docker_engine.read_engine(reading),
        containers=docker_engine.read_containers(reading),
        images=docker_engine.read_images(reading),
        rank=rank.read_rank(reading),
        rank_known=rank.rank_known(reading),
        disks=disk.read_disks(reading),
        listeners=listeners.read_listeners(reading),
        sysctl=sysctl.read_sysctl(reading),
        service=service.read_service(reading),
        jumbo=jumbo.read_jumbo(reading),
        neighbours=neighbours.read_neighbours(reading),
        echoes=neighbours.read_echoes(reading),
        lldp=neighbours.read_lldp(reading),
    )


def probes_for(site: Site, role: Role, *, active_profile: Profile | None = None) -> tuple[Probe, ...]:
    """What is read on one node of a site. active_profile: also what makes traffic, the pings and one completion."""
    found: list[Probe] = []
    if role == "head":
        if active_profile is not None:
            found.append(service.canary_probe(site, active_profile))
        found += service.probes(site)
    if active_profile is not None:
        found += [*jumbo.probes(site, role), *neighbours.ECHO_PROBES]
    found += PROBES
    if site.model.mount is not None:
        found.append(Filesystem(f"disk.{site.model.mount}", str(site.model.mount)))
    return tuple(found)


def gather_pair(
    site: Site,
    extra: Mapping[Role, Sequence[Probe]] | None = None,
    *,
    active_profile: Profile | None = None,
    timeout_s: float = 60.0,
) -> PairFacts:
    """Read both nodes at the same time, one round trip each. extra: more probes, for what a caller adds."""
    readings = read_pair(
        site,
        {
            role: (*probes_for(site, role, active_profile=active_profile), *(extra or {}).get(role, ()))
            for role in ROLES
        },
        timeout_s=timeout_s,
    )
    return pair_from(site, readings)


def pair_from(site: Site, readings: Mapping[Role, NodeReading]) -> PairFacts:
    """The facts of two readings, named by the hosts of the site."""
    head, worker = (parse_node(role, readings[role], site.nodes.of(role).host) for role in ROLES)
    return PairFacts(head=head, worker=worker)
