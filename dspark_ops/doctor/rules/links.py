"""The ports of the rails: cabled, fast, not bonded, 9000 at both ends."""

from __future__ import annotations

from dspark_ops.config.models import RailSite
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, judge, need, ok, warn
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.links import LinkFacts


def rail_links(view: NodeView) -> list[tuple[RailSite, LinkFacts | None]]:
    """Every rail with this node's end of it, None where that device does not exist."""
    need(view.node.links, "the network devices")
    return [(rail, view.node.link(rail.of(view.role).netdev)) for rail in view.site.fabric.rails]


def present_links(view: NodeView) -> list[tuple[RailSite, LinkFacts]]:
    """The rails whose device exists here; that one is missing is the business of fabric.ports_up."""
    found = [(rail, link) for rail, link in rail_links(view) if link is not None]
    if not found:
        raise NotApplicableError("no device of a rail exists here")
    return found


@node_rule("fabric.ports_up")
def ports_up(view: NodeView) -> Outcome:
    """Every rail's device exists, is up and has a carrier."""
    problems = []
    for rail, link in rail_links(view):
        name = rail.of(view.role).netdev
        if link is None:
            there = [k.name for k in view.node.links or () if k.phys_port_name]
            problems.append(f"{name} (rail {rail.name}) does not exist; ports here: {', '.join(there) or 'none'}")
        elif not need(link.admin_up, f"the state of {name}"):
            problems.append(f"{name} (rail {rail.name}) is down")
        elif not need(link.carrier, f"the carrier of {name}"):
            problems.append(f"{name} (rail {rail.name}) has no carrier")
    return judge(problems, f"{len(view.site.fabric.rails)} rails have a carrier", "every rail up, with a carrier")


@node_rule("fabric.link_speed")
def link_speed(view: NodeView) -> Outcome:
    """Every cabled port runs at 200 Gb/s."""
    wanted = view.limits["speed"]
    problems = []
    for rail, link in present_links(view):
        if link.carrier is False:
            continue
        speed = need(link.speed_mbps, f"the speed of {link.name}")
        if speed < wanted:
            problems.append(f"{link.name} (rail {rail.name}) runs at {speed} Mb/s")
    return judge(problems, f"{wanted:g} Mb/s on every cabled rail", f"{wanted:g} Mb/s")


@node_rule("fabric.no_bond")
def no_bond(view: NodeView) -> Outcome:
    """No rail is part of a bond or a bridge: twins share a cable, and NCCL balances them itself."""
    problems = [
        f"{link.name} (rail {rail.name}) belongs to {link.master}" for rail, link in present_links(view) if link.master
    ]
    return judge(problems, "every rail stands alone", "rails outside of bonds and bridges")


@node_rule("fabric.mtu")
def mtu(view: NodeView) -> Outcome:
    """The effective MTU of every rail is the site's, at this end; a differing peer is named."""
    wanted = view.site.fabric.mtu
    unequal, low = [], []
    for rail, link in present_links(view):
        here = need(link.mtu, f"the MTU of {link.name}")
        end = rail.of(view.peer_role).netdev
        far = view.peer.link(end) if view.peer.reachable else None
        there = None if far is None else far.mtu
        if here == wanted:
            continue
        text = f"{link.name} (rail {rail.name}) has MTU {here}, not {wanted}"
        if there is None or there != here:
            other = "unknown" if there is None else f"{there}"
            unequal.append(f"{text}; the {view.peer_role}'s end {end} has {other}")
        else:
            low.append(f"{text}; the {view.peer_role}'s end {end} has {there} too")
    expected = f"{wanted} at both ends of every rail"
    if unequal:
        return fail("; ".join(unequal + low), expected)
    if low:
        return warn("; ".join(low), expected)
    return ok(f"{wanted} on every rail")


@pair_rule("fabric.jumbo_ping")
def jumbo_ping(view: PairView) -> Outcome:
    """A do-not-fragment packet of the full MTU crosses every rail in both directions."""
    wanted = view.site.fabric.mtu
    problems = []
    for node in view.facts.nodes:
        pings = {ping.rail: ping for ping in need(node.jumbo, f"the pings of the {node.role}")}
        for rail in view.site.fabric.rails:
            ping = need(pings.get(rail.name), f"the {node.role}'s ping over rail {rail.name}")
            path = f"{node.role} {rail.of(node.role).netdev} (rail {rail.name})"
            if ping.local_mtu is not None:
                problems.append(f"{path} cannot send {wanted} bytes: its own MTU is {ping.local_mtu}")
                continue
            sent, received = need(ping.sent, f"the {node.role}'s ping over rail {rail.name}"), ping.received or 0
            if received < sent:
                problems.append(f"{path}: {sent - received} of {sent} packets of {wanted} bytes got no answer")
    return judge(problems, f"packets of {wanted} bytes cross every rail, both ways", "no packet is lost on any rail")
