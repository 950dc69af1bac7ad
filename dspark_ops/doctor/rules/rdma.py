"""RDMA devices of the rails: active, with a usable GID, at full width, the same firmware and cage at both ends."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.config.models import RailSite
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, judge, need, ok, warn
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.rdma import HcaFacts


def rail_hcas(view: NodeView) -> list[tuple[RailSite, HcaFacts]]:
    """Every rail with this node's RDMA device; one that is missing is the business of fabric.hca_active.

    Raises:
        NotApplicableError: the site names no RDMA device.
    """
    named = planned(view)
    found = [(rail, hca) for rail, name in named if (hca := view.node.hca(name)) is not None]
    if not found:
        raise NotApplicableError("no RDMA device of a rail exists here")
    return found


def planned(view: NodeView) -> list[tuple[RailSite, str]]:
    """The rails that name an RDMA device at this end."""
    need(view.node.rdma, "/sys/class/infiniband")
    named = [(rail, hca) for rail in view.site.fabric.rails if (hca := rail.of(view.role).hca) is not None]
    if not named:
        raise NotApplicableError("the site names no RDMA device")
    return named


@node_rule("fabric.hca_active")
def hca_active(view: NodeView) -> Outcome:
    """Every rail's RDMA device exists, belongs to the rail's network device and is ACTIVE."""
    problems = []
    for rail, name in planned(view):
        hca = view.node.hca(name)
        netdev = rail.of(view.role).netdev
        if hca is None:
            there = ", ".join(h.name for h in view.node.rdma or ()) or "none"
            problems.append(f"{name} (rail {rail.name}) does not exist; RDMA devices here: {there}")
        elif hca.netdev is not None and hca.netdev != netdev:
            problems.append(f"{name} (rail {rail.name}) belongs to {hca.netdev}, not to {netdev}")
        elif not need(hca.active, f"the state of {name}"):
            problems.append(f"{name} (rail {rail.name}) is {hca.state}")
    return judge(problems, "every rail's RDMA device is ACTIVE", "every rail's RDMA device ACTIVE")


@node_rule("fabric.rocev2_gid")
def rocev2_gid(view: NodeView) -> Outcome:
    """Every rail's RDMA device has a RoCE v2 entry for the planned address, wherever in the table it is."""
    problems, seen = [], []
    for rail, hca in rail_hcas(view):
        end = rail.of(view.role)
        indexes = roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
        if not indexes:
            v2 = [str(g.index) for g in hca.gids if g.type == "RoCE v2"]
            shown = f"RoCE v2 only at {', '.join(v2)}, for other addresses" if v2 else "no RoCE v2 entry"
            problems.append(f"{hca.name} (rail {rail.name}) has no RoCE v2 GID of {end.address.ip}: {shown}")
        else:
            seen.append(f"{hca.name} {indexes[0]}")
    return judge(
        problems, f"RoCE v2 GID index: {', '.join(seen)}", "a RoCE v2 GID of the planned address on every rail"
    )


@node_rule("fabric.pcie_width")
def pcie_width(view: NodeView) -> Outcome:
    """Both halves of the ConnectX-7 are trained at full PCIe width and speed."""
    width, speed = view.limits["width"], view.limits["speed"]
    problems = []
    hcas = rail_hcas(view)
    if all(hca.driver == "rxe" for _, hca in hcas):
        raise NotApplicableError("soft-RoCE has no PCIe link")
    for rail, hca in hcas:
        lanes = need(hca.pcie_width, f"the PCIe width of {hca.name}")
        words = need(hca.pcie_speed, f"the PCIe speed of {hca.name}").split()
        rate = float(words[0]) if words and words[0].replace(".", "", 1).isdecimal() else None
        if lanes < width:
            problems.append(f"{hca.name} (rail {rail.name}) is trained at x{lanes}")
        elif need(rate, f"the PCIe speed of {hca.name}") < speed:
            problems.append(f"{hca.name} (rail {rail.name}) runs at {words[0]} GT/s")
    return judge(problems, f"x{width:g} at {speed:g} GT/s", f"x{width:g} at {speed:g} GT/s on every rail")


@pair_rule("fabric.active_mtu")
def active_mtu(view: PairView) -> Outcome:
    """RoCE uses its largest MTU at both ends of every rail: it follows the port's, and does not show in it."""
    wanted = view.limits["mtu"]
    unequal, low, judged = [], [], 0
    for rail in view.site.fabric.rails:
        ends = []
        for node in view.facts.nodes:
            need(node.rdma, f"/sys/class/infiniband of the {node.role}")
            hca = node.hca_of(rail.of(node.role).netdev)
            if hca is None or not hca.active:
                break  # that is the business of fabric.hca_active; a port that is not active reads 1024
            if hca.active_mtu_bytes is None and hca.driver != "rxe" and view.rehearsal():
                raise NotApplicableError("the RDMA devices of this rehearsal are look-alikes: ibv_devinfo shows none")
            ends.append((node.role, hca.name, need(hca.active_mtu_bytes, f"active_mtu of {hca.name} ({node.role})")))
        if len(ends) < 2:
            continue
        judged += 1
        told = f"rail {rail.name}: " + ", ".join(f"{role} {name} {mtu}" for role, name, mtu in ends)
        if ends[0][2] != ends[1][2]:
            unequal.append(told)
        elif ends[0][2] < wanted:
            low.append(told)
    if not judged:
        raise NotApplicableError("no rail is ACTIVE at both ends")
    expected = f"{wanted:g} at both ends of every rail"
    if unequal:
        return fail("; ".join(unequal + low), expected)
    return warn("; ".join(low), expected) if low else ok(f"{wanted:g} at both ends of {judged} rails")


@node_rule("fabric.rails_complete")
def rails_complete(view: NodeView) -> Outcome:
    """A cage with a cable is configured through both of its PCIe halves, and the site uses both."""
    need(view.node.rdma, "/sys/class/infiniband")
    rails = {rail.of(view.role).netdev: rail.name for rail in view.site.fabric.rails}
    cages: dict[int, list[HcaFacts]] = {}
    for hca in view.node.rdma or ():
        if hca.cage is not None and hca.netdev is not None:
            cages.setdefault(hca.cage, []).append(hca)
    half, unused = [], []
    for cage, hcas in sorted(cages.items()):
        if not any(_plugged(view, hca) for hca in hcas):
            continue
        outside = [hca for hca in hcas if hca.netdev not in rails]
        bare = [hca for hca in outside if not _addresses(view, hca)]
        if not outside:
            continue
        told = "; ".join(_said(view, hca, rails) for hca in hcas)
        if bare and len(bare) < len(hcas):
            half.append(f"cage {cage} has a cable and only half of it is configured: {told}")
        elif len(outside) < len(hcas):
            half.append(f"cage {cage} has a cable and the site uses only half of it: {told}")
        else:
            unused.append(f"cage {cage} has a cable and no rail uses it: {told}")
    expected = "both PCIe halves of every cabled cage are rails with an address"
    if half:
        return fail("; ".join(half + unused), expected)
    return warn("; ".join(unused), expected) if unused else ok("every cabled port is a rail")


def _plugged(view: NodeView, hca: HcaFacts) -> bool:
    link = view.node.link(hca.netdev or "")
    return bool(hca.active or (link is not None and link.carrier))


def _addresses(view: NodeView, hca: HcaFacts) -> list[str]:
    """Its IPv4 addresses; one that a host gives itself (169.254) configures nothing."""
    link = view.node.link(hca.netdev or "")
    return [str(a) for a in link.ipv4 if not a.ip.is_link_local] if link is not None else []


def _said(view: NodeView, hca: HcaFacts, rails: Mapping[str, str]) -> str:
    rail = rails.get(hca.netdev or "")
    address = ", ".join(_addresses(view, hca)) or "no IPv4 address"
    light = "" if _plugged(view, hca) else ", no carrier"
    where = f"{hca.name} ({hca.netdev}, cage {hca.cage}, PCIe half {hca.half})"
    return f"{where}: {f'rail {rail}' if rail else 'no rail'}, {address}{light}"


@pair_rule("fabric.cabling")
def cabling(view: PairView) -> Outcome:
    """Both ends of a rail are the same cage and the same PCIe half."""
    problems, seen = [], []
    for rail in view.site.fabric.rails:
        ends = []
        for node in view.facts.nodes:
            need(node.rdma, f"/sys/class/infiniband of the {node.role}")
            hca = need(node.hca_of(rail.of(node.role).netdev), f"the RDMA device of {rail.name} on the {node.role}")
            cage = need(hca.cage, f"the cage of {hca.name} on the {node.role}")
            ends.append((cage, need(hca.half, f"the PCIe half of {hca.name} on the {node.role}")))
        (cage_a, half_a), (cage_b, half_b) = ends
        seen.append(cage_a)
        if ends[0] != ends[1]:
            problems.append(
                f"rail {rail.name} joins cage {cage_a} half {half_a} of the head"
                f" to cage {cage_b} half {half_b} of the worker"
            )
    return judge(problems, f"cables in cage {', '.join(map(str, sorted(set(seen))))} of both", "the same cage on both")


@pair_rule("fabric.firmware_parity")
def firmware_parity(view: PairView) -> Outcome:
    """Both ConnectX-7 run the same firmware."""
    sets = []
    for node in view.facts.nodes:
        if node.rdma and all(hca.driver == "rxe" for hca in node.rdma):
            raise NotApplicableError("soft-RoCE has no firmware")
        versions = {h.firmware for h in need(node.rdma, f"/sys/class/infiniband of the {node.role}") if h.firmware}
        sets.append(need(", ".join(sorted(versions)) or None, f"the NIC firmware of the {node.role}"))
    if sets[0] == sets[1]:
        return ok(f"firmware {sets[0]} on both")
    return fail(f"the head's NIC has firmware {sets[0]}, the worker's {sets[1]}", "the same firmware on both")
