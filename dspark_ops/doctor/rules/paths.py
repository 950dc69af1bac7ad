"""Whether what is meant for a rail goes over that rail, reaches the other Spark, and is let in there."""

from __future__ import annotations

from ipaddress import IPv4Address

from dspark_ops.config.models import RailSite, Role
from dspark_ops.doctor.outcome import (
    FactMissingError,
    NodeView,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    judge,
    need,
    ok,
    warn,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.links import present_links
from dspark_ops.doctor.rules.nic import nic_of, not_virtual
from dspark_ops.fabric.packet_filter import Packet, passage
from dspark_ops.facts.snapshot import NodeFacts

_STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")
# What NetworkManager says of a port that it is still trying to give an address to, and takes away others meanwhile.
_UNSETTLED = ("connecting", "disconnecting", "deactivating", "need")
# Ports that the ranks open on the rail beside the rendezvous: any of the ephemeral range.
_EPHEMERAL = 45678


@node_rule("fabric.rail_path")
def rail_path(view: NodeView) -> Outcome:
    """What is sent to the far end of a rail leaves by that rail."""
    ways = {path.rail: path.device for path in need(view.node.paths, "the ways to the far ends (ip route get)")}
    problems = []
    for rail, link in present_links(view):
        far = rail.of(view.peer_role).address.ip
        if rail.name not in ways:
            raise FactMissingError(f"the way to {far} (rail {rail.name}) could not be read")
        device = ways[rail.name]
        if device is None:
            problems.append(f"no route leads to {far} (rail {rail.name})")
        elif device != link.name:
            problems.append(f"{far} (rail {rail.name}) is reached by {device}, not by {link.name}")
    return judge(problems, "every far end is reached over its own rail", "each far end over its own rail")


@node_rule("fabric.rail_wired")
def rail_wired(view: NodeView) -> Outcome:
    """No rail is a radio."""
    radios = nic_of(view.node).wireless
    bad = [f"rail {rail.name} is {link.name}, a radio" for rail, link in present_links(view) if link.name in radios]
    return judge(bad, "no rail is a radio", "every rail on a port of the ConnectX-7")


@node_rule("nic.management_wired")
def management_wired(view: NodeView) -> Outcome:
    """The way out of the node, by which it is reached too, does not depend on its radio alone."""
    radios = nic_of(view.node).wireless
    defaults = sorted({r.device for r in need(view.node.routes, "the routes") if r.is_default and r.device})
    if not defaults:
        raise NotApplicableError("there is no default route")
    if all(device in radios for device in defaults):
        return fail(f"the default route goes by {', '.join(defaults)}, a radio", "a default route by cable")
    return ok(f"default route by {', '.join(defaults)}")


@node_rule("fabric.stacked_devices")
def stacked_devices(view: NodeView) -> Outcome:
    """Nothing sits on a rail: a VLAN or macvlan has addresses of its own, and its GIDs move the rail's."""
    rails = {link.name: rail.name for rail, link in present_links(view)}
    found = [
        f"{link.name} ({link.kind}) sits on {link.parent} (rail {rails[link.parent]})"
        for link in view.node.links or ()
        if link.kind in _STACKED and link.parent in rails
    ]
    return judge(found, "nothing sits on a rail", "no VLAN, macvlan or ipvlan on a rail")


@node_rule("fabric.networkmanager_settled")
def networkmanager_settled(view: NodeView) -> Outcome:
    """NetworkManager is not at work on a rail: it asks for a lease over and over and flushes what others set."""
    managed = nic_of(view.node).managed
    if managed is None:
        raise NotApplicableError("NetworkManager did not answer: it does not run, or is not installed")
    found = [
        f"{link.name} (rail {rail.name}) is {managed[link.name]}"
        for rail, link in present_links(view)
        if managed.get(link.name, "").startswith(_UNSETTLED)
    ]
    return judge(found, "NetworkManager leaves the rails as they are", "connected or unmanaged, on every rail")


@pair_rule("fabric.duplicate_address")
def duplicate_address(view: PairView) -> Outcome:
    """The address of each end of a rail is on that port and on no other of the two nodes."""
    holders: dict[IPv4Address, list[str]] = {}
    for node in view.facts.nodes:
        for link in need(node.links, f"the network devices of the {node.role}"):
            for address in link.ipv4:
                holders.setdefault(address.ip, []).append(f"{node.role} {link.name}")
    problems = []
    for rail in view.site.fabric.rails:
        for node in view.facts.nodes:
            end = rail.of(node.role)
            wrong = [who for who in holders.get(end.address.ip, []) if who != f"{node.role} {end.netdev}"]
            if wrong:
                problems.append(f"{end.address.ip} ({node.role}'s end of rail {rail.name}) is on {', '.join(wrong)}")
    return judge(problems, "every address of a rail is there once", "each address on its own port only")


@node_rule("fabric.peer_mac")
def peer_mac(view: NodeView) -> Outcome:
    """The far end of a rail is learned with the hardware address of its own port."""
    neighbours = need(view.node.neighbours, "the neighbour table")
    wrong, seen = [], 0
    for rail, link in present_links(view):
        end = rail.of(view.peer_role)
        entry = next((n for n in neighbours if n.device == link.name and n.address == end.address.ip), None)
        far = view.peer.link(end.netdev)
        if entry is None or far is None or far.mac is None:
            continue
        seen += 1
        if entry.mac.lower() != far.mac.lower():
            wrong.append(f"{link.name} (rail {rail.name}) knows {end.address.ip} as {_owner(view, entry.mac)}")
    if not seen:
        raise NotApplicableError("no far end is in the neighbour table yet")
    return judge(wrong, f"{seen} far ends answer by their own port", "the far end of each rail by its own port")


def _owner(view: NodeView, mac: str) -> str:
    for node in view.facts.nodes:
        for link in node.links or ():
            if (link.mac or "").lower() == mac.lower():
                return f"{mac}, which is {link.name} of the {node.role}"
    return f"{mac}, which is no port of this pair"


@node_rule("fabric.firewall")
def firewall(view: NodeView) -> Outcome:
    """The packet filter lets the peer's connections in over every rail."""
    filters = need(view.node.firewall, "the packet filter (iptables -S)")
    if not filters.installed:
        raise NotApplicableError("iptables is not installed")
    ports = (view.site.serve.master_port, _EPHEMERAL)
    dropped, unclear = [], []
    for rail, link in present_links(view):
        for port in ports:
            packet = Packet(link.name, rail.of(view.peer_role).address.ip, rail.of(view.role).address.ip, port)
            found = passage(filters, packet)
            if found is None:
                raise FactMissingError("the chain INPUT could not be read")
            place = f"TCP port {port} over {link.name} (rail {rail.name})"
            if found.verdict == "drop":
                dropped.append(f"{place} is dropped by {found.by!r}")
            elif found.verdict != "accept":
                unclear.append(f"{place} depends on {found.by!r}")
    expected = "every connection of the peer let in over the rails"
    if dropped:
        return fail("; ".join(dropped), expected)
    return warn("; ".join(unclear), expected) if unclear else ok("the peer is let in over every rail")


@pair_rule("fabric.round_trip")
def round_trip(view: PairView) -> Outcome:
    """The faster of two full packets is answered as soon as on a healthy pair."""
    most, slow, seen = view.limits["rtt"], [], []
    for node in view.facts.nodes:
        not_virtual(node)
        pings = {ping.rail: ping for ping in need(node.jumbo, f"the pings of the {node.role}")}
        for rail in view.site.fabric.rails:
            rtt = _rtt(pings[rail.name].rtt_min_ms if rail.name in pings else None, node, rail)
            seen.append(rtt)
            if rtt > most:
                slow.append(f"{rtt:g} ms from the {node.role} over rail {rail.name}")
    return judge(slow, f"at most {max(seen):g} ms", f"at most {most:g} ms on every rail")


def _rtt(value: float | None, node: NodeFacts, rail: RailSite) -> float:
    role: Role = node.role
    return need(value, f"the round trip of the {role}'s ping over rail {rail.name}")
