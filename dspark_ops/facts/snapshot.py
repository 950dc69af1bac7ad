"""All facts of a node and of the pair, from one reading each. No judgement here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.facts import (
    counters,
    disk,
    docker_engine,
    docker_settings,
    file_modes,
    firewall,
    gpu,
    gpu_state,
    image_detail,
    jumbo,
    kernel_events,
    kernel_log,
    kernel_state,
    links,
    listeners,
    log_hits,
    memory,
    metrics,
    mounts,
    nccl_files,
    neighbours,
    netplan,
    nic,
    noted_processes,
    nvidia_driver,
    packages,
    persistence,
    rank,
    rank_process,
    rank_rdma,
    rdma,
    replies,
    routes,
    service,
    sshd,
    sysctl,
    system,
    unit_states,
    verbs,
    weights,
)
from dspark_ops.facts.control import ControlFacts
from dspark_ops.facts.counters import CounterRecord, NodeCounters
from dspark_ops.facts.disk import DiskFacts
from dspark_ops.facts.docker_engine import ContainerRow, EngineFacts, ImageFacts
from dspark_ops.facts.docker_settings import ContainerLog, DockerSettings, RankSettings
from dspark_ops.facts.file_modes import FileModeFacts
from dspark_ops.facts.firewall import FirewallFacts
from dspark_ops.facts.gids import GidRecord
from dspark_ops.facts.gpu import GpuFacts
from dspark_ops.facts.gpu_state import GpuStateFacts
from dspark_ops.facts.image_detail import ImageDetail
from dspark_ops.facts.jumbo import JumboFacts
from dspark_ops.facts.kernel_events import KernelEventFacts
from dspark_ops.facts.kernel_log import KernelLogFacts
from dspark_ops.facts.kernel_state import KernelStateFacts
from dspark_ops.facts.links import LinkFacts
from dspark_ops.facts.listeners import ListenerFacts
from dspark_ops.facts.log_hits import LogFacts
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.metrics import ScrapeFacts
from dspark_ops.facts.model import Fact
from dspark_ops.facts.mounts import MountFacts
from dspark_ops.facts.nccl_files import NcclFile
from dspark_ops.facts.neighbours import EchoFacts, LldpFacts, NeighbourFacts
from dspark_ops.facts.netplan import NetplanFile
from dspark_ops.facts.nic import NicFacts
from dspark_ops.facts.noted_processes import NotedProcess
from dspark_ops.facts.nvidia_driver import NvidiaDriverFacts
from dspark_ops.facts.packages import PackageFacts
from dspark_ops.facts.persistence import Owner, PersistenceFacts, owners_of
from dspark_ops.facts.rank import RankFacts
from dspark_ops.facts.rank_process import RankProcess
from dspark_ops.facts.rank_rdma import RankRdma
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.replies import RepliesFacts
from dspark_ops.facts.routes import PathFacts, RouteFacts
from dspark_ops.facts.service import ServiceFacts
from dspark_ops.facts.sshd import SshdFacts
from dspark_ops.facts.system import SystemFacts
from dspark_ops.facts.unit_states import UnitState
from dspark_ops.facts.weights import WeightsFacts
from dspark_ops.tenants import records
from dspark_ops.tenants.records import EvictionRecord
from dspark_ops.transport.base import Filesystem, NodeReading, Probe
from dspark_ops.transport.ssh import read_pair

PROBES: tuple[Probe, ...] = (
    # The slowest first: the node runs them side by side, a few at a time.
    *docker_engine.PROBES,
    *rank.PROBES,
    *gpu.PROBES,
    *gpu_state.PROBES,
    *kernel_events.PROBES,
    *kernel_state.PROBES,
    *packages.PROBES,
    *unit_states.PROBES,
    *docker_settings.PROBES,
    *noted_processes.PROBES,
    *file_modes.PROBES,
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
    *mounts.PROBES,
    *nvidia_driver.PROBES,
    *sshd.PROBES,
    *records.PROBES,
    *nccl_files.PROBES,
    *neighbours.PROBES,
    *nic.PROBES,
    *counters.PROBES,
    *kernel_log.PROBES,
    *firewall.PROBES,
)


Seen = Callable[[Mapping[Role, Sequence[Probe]], Mapping[Role, NodeReading]], None]


class NodeFacts(Fact):
    """One node. A part that is None was not read, or could not be parsed; unreachable: all of them are None.

    rank: None both when there is no container and when that is unknown; rank_known tells the two apart.
    evictions: what the node remembers of tenants that were asked to leave.
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
    paths: tuple[PathFacts, ...] | None = None
    rdma: tuple[HcaFacts, ...] | None = None
    netplan: tuple[NetplanFile, ...] | None = None
    persistence: PersistenceFacts | None = None
    nccl_files: tuple[NcclFile, ...] | None = None
    docker: EngineFacts | None = None
    containers: tuple[ContainerRow, ...] | None = None
    images: tuple[ImageFacts, ...] | None = None
    rank: RankFacts | None = None
    rank_known: bool = False
    engine_log: LogFacts | None = None
    rank_processes: tuple[RankProcess, ...] | None = None
    image: ImageDetail | None = None
    weights: WeightsFacts | None = None
    metrics: ScrapeFacts | None = None
    replies: RepliesFacts | None = None
    disks: tuple[DiskFacts, ...] | None = None
    listeners: tuple[ListenerFacts, ...] | None = None
    sysctl: dict[str, int] | None = None
    service: ServiceFacts | None = None
    jumbo: tuple[JumboFacts, ...] | None = None
    neighbours: tuple[NeighbourFacts, ...] | None = None
    echoes: tuple[EchoFacts, ...] | None = None
    lldp: tuple[LldpFacts, ...] | None = None
    kernel: KernelStateFacts | None = None
    kernel_events: KernelEventFacts | None = None
    driver: NvidiaDriverFacts | None = None
    gpu_state: GpuStateFacts | None = None
    packages: tuple[PackageFacts, ...] | None = None
    units: tuple[UnitState, ...] | None = None
    noted: tuple[NotedProcess, ...] | None = None
    mounts: tuple[MountFacts, ...] | None = None
    docker_settings: DockerSettings | None = None
    rank_settings: RankSettings | None = None
    container_logs: tuple[ContainerLog, ...] | None = None
    sshd: SshdFacts | None = None
    modes: FileModeFacts | None = None
    evictions: tuple[EvictionRecord, ...] | None = None
    nic: NicFacts | None = None
    counters: NodeCounters | None = None
    kernel_log: KernelLogFacts | None = None
    firewall: FirewallFacts | None = None
    rank_rdma: RankRdma | None = None

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
    """Both nodes, read at the same time.

    gid_record, counter_record: the GID indexes and the NIC's counters of an earlier reading, where one was recalled.
    control: what the control host remembers; None where the facts were not read from it.
    """

    head: NodeFacts
    worker: NodeFacts
    gid_record: GidRecord | None = None
    counter_record: CounterRecord | None = None
    control: ControlFacts | None = None

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
        paths=routes.read_paths(reading),
        rdma=rdma.read_rdma(reading),
        netplan=netplan.read_netplan(reading),
        persistence=persistence.read_persistence(reading),
        nccl_files=nccl_files.read_nccl_files(reading),
        docker=docker_engine.read_engine(reading),
        containers=docker_engine.read_containers(reading),
        images=docker_engine.read_images(reading),
        rank=rank.read_rank(reading),
        rank_known=rank.rank_known(reading),
        engine_log=log_hits.read_engine_log(reading),
        rank_processes=rank_process.read_processes(reading),
        image=image_detail.read_image(reading),
        metrics=metrics.read_metrics(reading),
        replies=replies.read_replies(reading),
        disks=disk.read_disks(reading),
        listeners=listeners.read_listeners(reading),
        sysctl=sysctl.read_sysctl(reading),
        service=service.read_service(reading),
        jumbo=jumbo.read_jumbo(reading),
        neighbours=neighbours.read_neighbours(reading),
        echoes=neighbours.read_echoes(reading),
        lldp=neighbours.read_lldp(reading),
        kernel=kernel_state.read_kernel_state(reading),
        kernel_events=kernel_events.read_kernel_events(reading),
        driver=nvidia_driver.read_driver(reading),
        gpu_state=gpu_state.read_gpu_state(reading),
        packages=packages.read_packages(reading),
        units=unit_states.read_units(reading),
        noted=noted_processes.read_noted(reading),
        mounts=mounts.read_mounts(reading),
        docker_settings=docker_settings.read_engine_settings(reading),
        rank_settings=docker_settings.read_rank_settings(reading),
        container_logs=docker_settings.read_container_logs(reading),
        sshd=sshd.read_sshd(reading),
        modes=file_modes.read_file_modes(reading),
        evictions=records.read_records(reading),
        nic=nic.read_nic(reading),
        counters=counters.seen_counters(reading),
        kernel_log=kernel_log.read_kernel_log(reading),
        firewall=firewall.read_firewall(reading),
        rank_rdma=rank_rdma.read_rank_rdma(reading),
    )


def probes_for(site: Site, role: Role, *, active_profile: Profile | None = None) -> tuple[Probe, ...]:
    """What is read on one node of a site. active_profile: also what makes traffic, pings and completions."""
    found: list[Probe] = []
    if role == "head":
        if active_profile is not None:
            found += [service.canary_probe(site, active_profile), *replies.probes(site, active_profile)]
        found += [*service.probes(site), *metrics.probes(site, twice=active_profile is not None)]
    if active_profile is not None:
        found += [*jumbo.probes(site, role), *neighbours.ECHO_PROBES]
    found += [*PROBES, *log_hits.probes(), image_detail.probe(site), *weights.probes(site), *routes.probes(site, role)]
    if site.model.mount is not None:
        found.append(Filesystem(f"disk.{site.model.mount}", str(site.model.mount)))
    return tuple(found)


def gather_pair(
    site: Site,
    extra: Mapping[Role, Sequence[Probe]] | None = None,
    *,
    active_profile: Profile | None = None,
    timeout_s: float = 60.0,
    seen: Seen | None = None,
) -> PairFacts:
    """Read both nodes at the same time, one round trip each. extra: more probes, for what a caller adds.

    seen: gets what was asked and what came back, for a recording.
    """
    probes = {
        role: (*probes_for(site, role, active_profile=active_profile), *(extra or {}).get(role, ())) for role in ROLES
    }
    readings = read_pair(site, probes, timeout_s=timeout_s)
    if seen is not None:
        seen(probes, readings)
    return pair_from(site, readings)


def pair_from(site: Site, readings: Mapping[Role, NodeReading]) -> PairFacts:
    """The facts of two readings, named by the hosts of the site."""
    head, worker = (
        parse_node(role, readings[role], site.nodes.of(role).host).model_copy(
            update={"weights": weights.read_weights_facts(site, role, readings[role])}
        )
        for role in ROLES
    )
    return PairFacts(head=head, worker=worker)
