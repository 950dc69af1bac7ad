"""Addresses of the rails: as planned, one subnet each, ARP that keeps to them, no way out through a rail."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network
from itertools import combinations

from dspark_ops.doctor.outcome import (
    FactMissingError,
    NodeView,
    NotApplicableError,
    Outcome,
    fail,
    judge,
    need,
    ok,
    rank_of,
    warn,
)
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.links import present_links

SUBNET_ROUTING = "NCCL_IB_SUBNET_AWARE_ROUTING"
_ONE_SUBNET = "one subnet for each rail, apart from all others"
# From this MTU on RoCE has its largest; a port to the LAN with so much was meant to be a rail.
_JUMBO = 4192
_ARP_FINE: dict[str, Callable[[int], bool]] = {
    "rp_filter": lambda value: value != 1,
    "arp_ignore": lambda value: value >= 1,
    "arp_announce": lambda value: value == 2,
}


@node_rule("fabric.address_planned")
def address_planned(view: NodeView) -> Outcome:
    """Every rail has exactly the site's address, and not by a lease."""
    problems = []
    for rail, link in present_links(view):
        planned = rail.of(view.role).address
        here = [a for a in link.addresses if isinstance(a.address, IPv4Interface)]
        shown = ", ".join(str(a.address) for a in here) or "no IPv4 address"
        if planned not in [a.address for a in here]:
            problems.append(f"{link.name} (rail {rail.name}) has {shown}, not {planned}")
        elif len(here) > 1:
            problems.append(f"{link.name} (rail {rail.name}) has {len(here)} addresses: {shown}")
        elif here[0].dynamic:
            problems.append(f"{link.name} (rail {rail.name}) has {shown} by a lease")
    return judge(problems, "every rail has its planned address", "exactly the planned static address on every rail")


@node_rule("fabric.twin_subnets")
def twin_subnets(view: NodeView) -> Outcome:
    """No two rails share a subnet, and none overlaps another network of this host."""
    rails: list[tuple[str, IPv4Network]] = [
        (link.name, address.network) for _, link in present_links(view) for address in link.ipv4
    ]
    if not rails:
        raise NotApplicableError("no rail has an address")
    names = {name for name, _ in rails}
    others = [
        (link.name, address.network)
        for link in view.node.links or ()
        if link.name not in names and link.name != "lo"
        for address in link.ipv4
    ]
    # A route that is the network of an address of the same device says nothing new.
    others += [
        (r.device or "a route", r.destination)
        for r in need(view.node.routes, "the routes")
        if not r.is_default and r.device not in names and (r.device, r.destination) not in others
    ]
    shared = [
        (a, b, net_a if net_a.prefixlen <= net_b.prefixlen else net_b)
        for (a, net_a), (b, net_b) in combinations(rails, 2)
        if net_a.overlaps(net_b)
    ]
    problems = [f"{a} and {b} are both in {network}" for a, b, network in shared]
    overlaps = [
        f"{a} ({net_a}) overlaps {b} ({net_b})" for a, net_a in rails for b, net_b in others if net_a.overlaps(net_b)
    ]
    if shared and not overlaps and all(_twins(view, a, b) for a, b, _ in shared):
        return _cluster_script_shape(view, problems)
    return judge(problems + overlaps, "every rail is a subnet of its own", _ONE_SUBNET)


def _twins(view: NodeView, a: str, b: str) -> bool:
    """True for the two PCIe halves of one cage whose far ends share that subnet too."""
    cages = []
    for node, names in ((view.node, (a, b)), (view.peer, _far_ends(view, a, b))):
        hcas = [node.hca_of(name) for name in names]
        networks = [{x.network for x in link.ipv4} for name in names if (link := node.link(name)) is not None]
        if len(networks) < 2 or not networks[0] & networks[1]:
            return False
        cages += [(h.cage, h.half) for h in hcas if h is not None and h.cage is not None]
    return len(cages) == 4 and cages[0][0] == cages[1][0] and cages[0][1] != cages[1][1]


def _far_ends(view: NodeView, *netdevs: str) -> tuple[str, ...]:
    ends = {rail.of(view.role).netdev: rail.of(view.peer_role).netdev for rail in view.site.fabric.rails}
    return tuple(ends.get(name, "") for name in netdevs)


def _cluster_script_shape(view: NodeView, problems: list[str]) -> Outcome:
    """NVIDIA's cluster script puts both twins of a cable in one subnet; NCCL must then be told to keep to it."""
    shape = f"{'; '.join(problems)}: the layout of NVIDIA's cluster script, both twins of a cable in one subnet"
    try:
        rank = rank_of(view.node, view.site)
    except FactMissingError:
        rank = None
    value = rank.env.get(SUBNET_ROUTING) if rank is not None and rank.running else None
    if value == "1":
        return warn(f"{shape}; the running rank has {SUBNET_ROUTING}=1", _ONE_SUBNET)
    told = "no rank runs that has" if rank is None or not rank.running else "the running rank does not have"
    return fail(f"{shape}; {told} {SUBNET_ROUTING}=1", _ONE_SUBNET)


@node_rule("fabric.arp_settings")
def arp_settings(view: NodeView) -> Outcome:
    """The rails answer ARP for their own address only, and do not drop replies that came by another rail."""
    values = need(view.node.sysctl, "/proc/sys/net/ipv4/conf")
    problems = []
    for rail, link in present_links(view):
        found = {
            name: max(
                need(values.get(f"net/ipv4/conf/{where}/{name}"), f"{name} of {link.name}")
                for where in ("all", link.name)
            )
            for name in _ARP_FINE
        }
        wrong = [f"{name} {value}" for name, value in found.items() if not _ARP_FINE[name](value)]
        if wrong:
            problems.append(f"{link.name} (rail {rail.name}): {', '.join(wrong)}")
    expected = "rp_filter 0 or 2, arp_ignore 1, arp_announce 2 on every rail (the larger of all and the device counts)"
    if not problems:
        return ok("every rail keeps to its own addresses")
    if _rails_share_a_subnet(view):
        return fail(f"{'; '.join(problems)}; and rails share a subnet", expected)
    return warn("; ".join(problems), expected)


def _rails_share_a_subnet(view: NodeView) -> bool:
    networks = [(link.name, a.network) for _, link in present_links(view) for a in link.ipv4]
    return any(a != b and net_a.overlaps(net_b) for (a, net_a), (b, net_b) in combinations(networks, 2))


@node_rule("fabric.mgmt_mtu")
def mgmt_mtu(view: NodeView) -> Outcome:
    """The jumbo MTU is on the rails, not on the port to the LAN while a rail is left behind."""
    wanted = view.site.fabric.mtu
    defaults = {r.device for r in need(view.node.routes, "the routes") if r.is_default}
    rails = {rail.of(view.role).netdev for rail in view.site.fabric.rails}
    behind = [f"{k.name} {need(k.mtu, f'the MTU of {k.name}')}" for _, k in present_links(view) if k.mtu != wanted]
    others = [k for k in view.node.links or () if k.name in defaults - rails]
    large = [f"{k.name} {k.mtu}" for k in others if need(k.mtu, f"the MTU of {k.name}") >= min(wanted, _JUMBO)]
    if large and behind:
        text = f"MTU {', '.join(large)} on the port of the default route, while rails have {', '.join(behind)}"
        return warn(text, f"MTU {wanted} on the rails")
    return ok(f"the port of the default route has MTU {', '.join(str(k.mtu) for k in others) or 'unknown'}")


@node_rule("fabric.default_route_leak")
def default_route_leak(view: NodeView) -> Outcome:
    """No default route leaves by a rail."""
    rails = {rail.of(view.role).netdev for rail in view.site.fabric.rails}
    defaults = [r for r in need(view.node.routes, "the routes") if r.is_default]
    problems = [f"a default route goes through the rail {r.device}" for r in defaults if r.device in rails]
    others = sorted({r.device for r in defaults if r.device})
    return judge(problems, f"default route by {', '.join(others) or 'nothing'}", "no default route through a rail")
