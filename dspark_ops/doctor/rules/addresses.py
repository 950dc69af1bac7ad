"""Addresses of the rails: as planned, one subnet each, no way out through a rail."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from itertools import combinations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, judge, need
from dspark_ops.doctor.registry import node_rule
from dspark_ops.doctor.rules.links import present_links


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
    problems = [
        f"{a} and {b} are both in {net_a if net_a.prefixlen <= net_b.prefixlen else net_b}"
        for (a, net_a), (b, net_b) in combinations(rails, 2)
        if net_a.overlaps(net_b)
    ]
    problems += [
        f"{a} ({net_a}) overlaps {b} ({net_b})" for a, net_a in rails for b, net_b in others if net_a.overlaps(net_b)
    ]
    return judge(problems, "every rail is a subnet of its own", "one subnet for each rail, apart from all others")


@node_rule("fabric.default_route_leak")
def default_route_leak(view: NodeView) -> Outcome:
    """No default route leaves by a rail."""
    rails = {rail.of(view.role).netdev for rail in view.site.fabric.rails}
    defaults = [r for r in need(view.node.routes, "the routes") if r.is_default]
    problems = [f"a default route goes through the rail {r.device}" for r in defaults if r.device in rails]
    others = sorted({r.device for r in defaults if r.device})
    return judge(problems, f"default route by {', '.join(others) or 'nothing'}", "no default route through a rail")
