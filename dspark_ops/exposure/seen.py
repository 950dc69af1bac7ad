"""What a reading of both nodes says of their listeners, their addresses and our packet filter. No judgement."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Interface, ip_address
from typing import Literal

from dspark_ops.config.models import Role, Site
from dspark_ops.exposure.policy import NodePolicy, policy_of, ssh_ports
from dspark_ops.exposure.render import render
from dspark_ops.facts import links, listeners
from dspark_ops.facts.listeners import ListenerFacts, parse_listeners
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

RULES = "/etc/dspark/exposure.nft"
PROBES: tuple[Probe, ...] = (
    *listeners.PROBES,
    Command("listeners.udp", ("ss", "-H", "-ulnp"), root=True),
    *links.PROBES,
    Command("exposure.session", ("printenv", "SSH_CONNECTION")),
    Command("exposure.table", ("nft", "-s", "list", "table", "inet", "dspark_exposure"), root=True),
    Files("exposure.file", (RULES,)),
)
FilterState = Literal["in force", "absent", "other", "unknown"]
_BRIDGES = ("docker", "br-")


@dataclass(frozen=True)
class SeenNode:
    """One node. tcp, udp: None when they were not read. addresses: where strangers would knock, IPv4 first.

    client: the control host as the node sees it; port: where this session came to; None each where not known.
    """

    role: Role
    tcp: tuple[ListenerFacts, ...] | None
    udp: tuple[ListenerFacts, ...] | None
    addresses: tuple[str, ...]
    client: str | None
    port: int | None
    table: str | None
    table_known: bool
    file: str | None

    def policy(self, site: Site) -> NodePolicy:
        """The site's policy for this node."""
        return policy_of(site, self.role, ssh_ports(self.tcp, self.port))


def read_node(site: Site, role: Role, reading: NodeReading) -> SeenNode:
    """A node as it was read with PROBES."""
    udp = reading.get("listeners.udp").text()
    client, port = _session(reading.get("exposure.session").text())
    table = reading.get("exposure.table")
    gone = (table.error or "").startswith("no such program") or "No such file" in (table.stderr or "")
    return SeenNode(
        role=role,
        tcp=listeners.read_listeners(reading),
        # A UDP socket does not listen, it is unconnected; the columns are the same.
        udp=None if udp is None else parse_listeners(udp.replace("UNCONN", "LISTEN")),
        addresses=_addresses(site, role, reading),
        client=client,
        port=port,
        table=table.text(),
        table_known=table.ok or gone or "command not found" in (table.stderr or ""),
        file=(reading.get("exposure.file").files or {}).get(RULES),
    )


def filter_state(seen: SeenNode, policy: NodePolicy) -> FilterState:
    """Whether our table is in force with this policy: file as rendered, each named rule there, and none besides."""
    if not seen.table_known:
        return "unknown"
    if seen.table is None:
        return "absent"
    wanted = [f'comment "{port.rule}"' for port in policy.ports] + ['counter drop comment "everything else"']
    rendered = render(policy)
    same = seen.file == rendered and all(text in seen.table for text in wanted)
    return "in force" if same and rule_count(seen.table) == rule_count(rendered) else "other"


def rule_count(table: str) -> int:
    """How many rules a table has; nft lists each on one line, in words of its own. One that lets all in is one more."""
    lines = [line.strip() for line in table.splitlines()]
    return sum(1 for line in lines if line and not line.startswith(("#", "type ", "table ", "chain ", "delete ", "}")))


def _session(text: str | None) -> tuple[str | None, int | None]:
    words = (text or "").split()
    try:
        return str(ip_address(words[0].partition("%")[0])), int(words[3])
    except (ValueError, IndexError):
        return None, None


def _addresses(site: Site, role: Role, reading: NodeReading) -> tuple[str, ...]:
    """At most two IPv4 addresses and one of IPv6, neither a rail's, a Docker bridge's nor link-local."""
    rails = {rail.of(role).netdev for rail in site.fabric.rails}
    found: list[str] = []
    counts = {4: 0, 6: 0}
    for link in links.read_links(reading) or ():
        if link.name in rails or link.name == "lo" or link.name.startswith(_BRIDGES):
            continue
        for item in link.addresses:
            address = item.address.ip
            limit = 1 if isinstance(item.address, IPv6Interface) else 2
            if address.is_link_local or address.is_loopback or counts[address.version] >= limit:
                continue
            counts[address.version] += 1
            found.append(str(address))
    return tuple(sorted(found, key=lambda text: ":" in text))
