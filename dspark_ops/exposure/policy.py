"""What stays reachable on a node: the pair over its rails, SSH, the gateway, and what the site allows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from dspark_ops.config.exposure import allowed_port
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.facts.listeners import ListenerFacts

Protocol = Literal["tcp", "udp"]
#: The gateway's port where neither `exposure` nor `gateway` says another.
GATEWAY_PORT = 8443


@dataclass(frozen=True)
class OpenPort:
    """A port that strangers may reach. rule: why, as the packet filter and the audit name it. sources None: all."""

    rule: str
    protocol: Protocol
    port: int
    sources: tuple[str, ...] | None = None

    def lets_in(self, address: str) -> bool:
        """Whether a client of this address is let in."""
        if self.sources is None:
            return True
        client = ip_address(address)
        return any(client in net for text in self.sources if (net := ip_network(text)).version == client.version)


@dataclass(frozen=True)
class Rail:
    """A rail as this node has it; peer is the other end's address. Addresses have no prefix."""

    netdev: str
    address: str
    peer: str


@dataclass(frozen=True)
class NodePolicy:
    """All that one node's packet filter is made of, in order."""

    role: Role
    rails: tuple[Rail, ...]
    ports: tuple[OpenPort, ...]

    def rules_for(self, protocol: Protocol, port: int) -> tuple[OpenPort, ...]:
        """The rules that let strangers reach this port; none: it is closed to them."""
        return tuple(item for item in self.ports if item.protocol == protocol and item.port == port)

    @property
    def own(self) -> frozenset[str]:
        """The node's own addresses on the rails."""
        return frozenset(rail.address for rail in self.rails)


def gateway_port(site: Site) -> int:
    """The port of the head that serves."""
    if site.exposure.gateway_port is not None:
        return site.exposure.gateway_port
    # The gateway's own section says its port; a site without one gets the default.
    own = getattr(getattr(site, "gateway", None), "port", None)
    return own if isinstance(own, int) else GATEWAY_PORT


def policy_of(site: Site, role: Role, ssh_ports: Iterable[int]) -> NodePolicy:
    """A node's policy. ssh_ports: where its SSH server was found."""
    other: Role = "worker" if role == "head" else "head"
    wish = site.exposure
    ports = [OpenPort("ssh", "tcp", port, wish.management_sources) for port in sorted(set(ssh_ports))]
    if role == "head":
        ports.append(OpenPort("gateway", "tcp", gateway_port(site), wish.gateway_sources))
    for text in wish.allow:
        item = allowed_port(text)
        if item.role in (None, role):
            sources = None if item.source is None else (str(item.source),)
            ports.append(OpenPort(f"allow {text}", item.protocol, item.port, sources))
    rails = tuple(
        Rail(rail.of(role).netdev, str(rail.of(role).address.ip), str(rail.of(other).address.ip))
        for rail in site.fabric.rails
    )
    return NodePolicy(role, rails, tuple(ports))


def ssh_ports(listeners: Iterable[ListenerFacts] | None, session_port: int | None) -> frozenset[int]:
    """Where a node's SSH server takes logins: what sshd itself holds, and the port that this very session came to.

    systemd may hold the port in sshd's place (ssh.socket); the session's own port covers that.
    """
    found = {item.port for item in listeners or () if item.process == "sshd" and not _loopback(item.address)}
    return frozenset(found | ({session_port} if session_port else set()))


def _loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def closed_by_the_site(site: Site) -> list[str]:
    """What the site's own settings open that the policy closes, as sentences; a plan says them."""
    told = []
    if not site.serve.api_host.is_loopback:
        told.append(
            f"serve.api_host is {site.serve.api_host}: port {site.serve.api_port} is closed to all but the loopback "
            "and the rails; clients use the gateway"
        )
    return told


def both(site: Site, ports: dict[Role, frozenset[int]]) -> dict[Role, NodePolicy]:
    """The policies of both nodes."""
    return {role: policy_of(site, role, ports[role]) for role in ROLES}
