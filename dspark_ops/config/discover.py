"""Looking at two hosts over SSH, one round trip each, and proposing the site that fits them. Nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from pydantic import ValidationError

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import ROLES, ImageSite, NodeSite, Role
from dspark_ops.config.yaml_source import cut
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.fabric.ports import FabricPort, fabric_ports
from dspark_ops.fabric.rails import DEFAULT_SUPERNETS, RAIL_PREFIX, UsedNetwork
from dspark_ops.facts import docker_engine, links, memory, neighbours, rdma, routes, system
from dspark_ops.facts.docker_engine import ImageFacts
from dspark_ops.facts.links import LinkFacts
from dspark_ops.facts.memory import MemoryFacts
from dspark_ops.facts.neighbours import EchoFacts, LldpFacts, NeighbourFacts
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.routes import RouteFacts
from dspark_ops.facts.system import SystemFacts
from dspark_ops.transport.base import Command, Files, NodeReading, Probe, Runner

_SITE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

ENGINE_LABEL = "io.dspark-ops.image=engine"
PROBES: tuple[Probe, ...] = (
    Command(
        "init.engine_images",
        ("docker", "image", "ls", "--no-trunc", "--filter", f"label={ENGINE_LABEL}", "--format", "{{json .}}"),
        root=True,
    ),
    Files("init.machine_id", ("/etc/machine-id",), max_bytes=64),
    *rdma.PROBES,
    *links.PROBES,
    *routes.PROBES,
    *system.PROBES,
    *memory.PROBES,
    *neighbours.ECHO_PROBES,
    *neighbours.PROBES,
)


@dataclass(frozen=True)
class InitRequest:
    """What the operator asked for, checked before any host is contacted."""

    head: str
    worker: str
    ssh_config: Path | None = None
    connect_timeout_s: float = 10.0
    profile: str | None = None
    name: str | None = None
    supernet: str | None = None
    image_reference: str | None = None
    image_id: str | None = None
    image_archive: Path | None = None

    def host(self, role: Role) -> str:
        return self.head if role == "head" else self.worker


@dataclass(frozen=True)
class NodeSeen:
    """One node as it was found. machine_id and images: None where they could not be read."""

    role: Role
    host: str
    hostname: str | None
    login_user: str | None
    sudo: bool | None
    system: SystemFacts
    memory: MemoryFacts | None
    links: tuple[LinkFacts, ...]
    rdma: tuple[HcaFacts, ...]
    routes: tuple[RouteFacts, ...]
    machine_id: str | None
    engine_images: tuple[ImageFacts, ...] | None
    echoes: tuple[EchoFacts, ...] | None = None
    neighbours: tuple[NeighbourFacts, ...] | None = None
    lldp: tuple[LldpFacts, ...] | None = None

    @property
    def rehearsed(self) -> bool:
        return self.system.look_alikes is not None

    def ports(self) -> tuple[FabricPort, ...]:
        """The ConnectX-7 functions whose cage and half are known, cage by cage."""
        return fabric_ports(self.links, self.rdma)

    def used_networks(self) -> tuple[UsedNetwork, ...]:
        """Every network in an address or a route of the node; the default route and loopback are none."""
        found = [
            UsedNetwork(item.address.network, self.role, f"address on {link.name}", link.name)
            for link in self.links
            for item in link.addresses
            if item.address.version == 4 and not item.address.ip.is_loopback
        ]
        found += [
            UsedNetwork(route.destination, self.role, f"route through {route.device or 'no device'}", route.device)
            for route in self.routes
            if not route.is_default
        ]
        return tuple(dict.fromkeys(found))

    def hardware_macs(self) -> frozenset[str]:
        """The MAC addresses of ports that are no bridge, bond or tunnel."""
        names = {hca.netdev for hca in self.rdma}
        return frozenset(
            link.mac.lower()
            for link in self.links
            if link.mac and link.mac != "00:00:00:00:00:00" and (link.kind is None or link.name in names)
        )


def check_request(request: InitRequest) -> None:
    """Everything that is wrong with the command line alone. Raises ConfigError."""
    for role in ROLES:
        try:
            NodeSite(host=request.host(role))
        except ValidationError:
            raise ConfigError(
                f"{role} {request.host(role)!r}: expected a host name, an address or an SSH alias",
                hint="as in: dspark-ops init spark-head.lan spark-worker.lan",
            ) from None
    if request.head.lower().rstrip(".") == request.worker.lower().rstrip("."):
        raise ConfigError(
            f"head and worker are the same host {request.worker!r}; expected two machines", hint="name both nodes"
        )
    if request.ssh_config is not None and not request.ssh_config.is_file():
        raise ConfigError(
            f"--ssh-config {request.ssh_config}: no such file", hint="name an OpenSSH client configuration"
        )
    if request.name is not None and not _SITE_NAME.fullmatch(request.name):
        raise ConfigError(
            f"--name {cut(request.name)!r}: expected lower-case letters, digits and dashes, at most 32",
            hint="as in --name lab",
        )
    if request.profile is not None:
        load_profile(request.profile)
    if (request.image_reference is None) != (request.image_id is None):
        raise ConfigError(
            "--image-reference and --image-id go together: a tag can move, an id cannot",
            hint="`docker image inspect --format {{.Id}} REFERENCE` prints the id",
        )
    if request.image_archive is not None and request.image_id is None:
        raise ConfigError("--image-archive needs --image-reference and --image-id, the image that it holds")
    given_image(request)
    supernets_of(request)


def supernets_of(request: InitRequest) -> tuple[IPv4Network, ...]:
    """The networks that rail subnets may come from."""
    if request.supernet is None:
        return DEFAULT_SUPERNETS
    try:
        network = IPv4Network(request.supernet)
    except ValueError as error:
        raise ConfigError(f"--supernet {request.supernet!r}: {error}", hint="as in --supernet 10.77.0.0/16") from None
    if network.prefixlen > RAIL_PREFIX - 2 or network.prefixlen < 8 or not network.is_private:
        raise ConfigError(
            f"--supernet {network}: expected a private network from /8 to /{RAIL_PREFIX - 2}, "
            f"for four rails of /{RAIL_PREFIX}",
            hint="as in --supernet 10.77.0.0/16",
        )
    return (network,)


def ssh_runners(request: InitRequest) -> dict[Role, Runner]:
    """A runner for each node; nothing is contacted yet."""
    from dspark_ops.transport.ssh import SshRunner, resolve_target

    return {
        role: SshRunner(
            node=role, target=resolve_target(request.host(role), request.ssh_config, request.connect_timeout_s)
        )
        for role in ROLES
    }


def look_at(request: InitRequest, runners: Mapping[Role, Runner]) -> dict[Role, NodeSeen]:
    """Read both nodes at the same time. Raises NoVerdictError naming each node that was not reached, and why."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=2) as pool:
        pending = {role: pool.submit(runners[role].read, PROBES) for role in ROLES}
        readings = {role: pending[role].result() for role in ROLES}
    silent = [role for role in ROLES if not readings[role].reachable]
    if silent:
        lines = [f"{role}: {readings[role].error or 'not reached'}" for role in silent]
        hints = dict.fromkeys(hint for role in silent if (hint := readings[role].hint))
        raise NoVerdictError("\n".join(lines), hint="; ".join(hints) or None)
    return {role: _seen(role, request.host(role), readings[role]) for role in ROLES}


def _seen(role: Role, host: str, reading: NodeReading) -> NodeSeen:
    found_links, found_rdma, found_routes = (
        links.read_links(reading),
        rdma.read_rdma(reading),
        routes.read_routes(reading),
    )
    for what, probe, value in (
        ("network devices", "links.addr", found_links),
        ("RDMA devices", "rdma.devices", found_rdma),
        ("routes", "routes.main", found_routes),
    ):
        if value is None:
            result = reading.get(probe)
            why = result.error or (result.stderr or "").strip() or "the answer cannot be parsed"
            raise NoVerdictError(
                f"{role}: the {what} of {host} could not be read: {cut(why, 200)}",
                hint="init needs them to tell which port faces which; iproute2 must be installed on the node",
            )
    assert found_links is not None and found_rdma is not None and found_routes is not None  # noqa: S101, PT018
    machine_id = ((reading.get("init.machine_id").files or {}).get("/etc/machine-id") or "").strip() or None
    return NodeSeen(
        role=role,
        host=host,
        hostname=reading.hostname,
        login_user=reading.user,
        sudo=reading.sudo,
        system=system.read_system(reading) or SystemFacts(),
        memory=memory.read_memory(reading),
        links=found_links,
        rdma=found_rdma,
        routes=found_routes,
        machine_id=machine_id,
        engine_images=docker_engine.parse_images(reading.get("init.engine_images").text()),
        echoes=neighbours.read_echoes(reading),
        neighbours=neighbours.read_neighbours(reading),
        lldp=neighbours.read_lldp(reading),
    )


def given_image(request: InitRequest) -> ImageSite | None:
    """The image that the command line names, None when it names none. Raises ConfigError."""
    if request.image_reference is None or request.image_id is None:
        return None
    archive = request.image_archive.absolute() if request.image_archive is not None else None
    try:
        return ImageSite(reference=request.image_reference, id=request.image_id, archive=archive)
    except ValidationError as error:
        entry = error.errors(include_url=False)[0]
        option = "--image-id" if entry["loc"] == ("id",) else "--image-reference"
        reason = str(entry.get("ctx", {}).get("error", entry["msg"]))
        raise ConfigError(f"{option} {cut(str(entry['input']))!r}: {reason}") from None
