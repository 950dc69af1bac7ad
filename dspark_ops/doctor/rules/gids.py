"""The GID indexes over time and over devices: an index that moved, and a pin that does not hold everywhere."""

from __future__ import annotations

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
    rank_of,
    warn,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.rdma import rail_hcas
from dspark_ops.fabric.gid_pin import pin_problems
from dspark_ops.fabric.gid_record import drift, record_of
from dspark_ops.fabric.nccl import GID_INDEX
from dspark_ops.facts.gids import ROCE_V2, roce_v2_indexes


@pair_rule("fabric.gid_drift")
def gid_drift(view: PairView) -> Outcome:
    """The RoCE v2 entry of every rail's address is where the last reading saw it."""
    record = view.facts.gid_record
    if record is None:
        raise NotApplicableError("no earlier reading to compare with")
    if record.problem is not None:
        raise NotApplicableError(f"no earlier reading to compare with: {record.problem}")
    for node in view.facts.nodes:
        need(node.rdma, f"/sys/class/infiniband of the {node.role}")
    planned = {(role, rail.of(role).address.ip) for rail in view.site.fabric.rails for role in ("head", "worker")}
    moved = [
        f"{move.node} {move.hca}: {move.address} was at {_places(move.was)} and is at {_places(move.now)}"
        for move in drift(record, record_of(view.facts))
        if (move.node, move.address) in planned
    ]
    when = f"{record.read_at:%Y-%m-%d %H:%M} UTC" if record.read_at else "the last reading"
    if not moved:
        return ok(f"every index as of {when}")
    expected = f"the indexes of {when}"
    pins = _pins(view)
    if pins:
        return fail(f"{'; '.join(moved)}; pinned: {', '.join(pins)}", expected)
    return warn("; ".join(moved), expected)


def _places(indexes: tuple[int, ...]) -> str:
    return ", ".join(map(str, indexes)) or "nowhere"


def _pins(view: PairView) -> list[str]:
    """Who pins an index: the site, or the environment of a running rank."""
    found = [] if view.site.fabric.gid_index is None else [f"{view.site.fabric.gid_index} by fabric.gid_index"]
    for node in view.facts.nodes:
        try:
            rank = rank_of(node, view.site)
        except FactMissingError:
            continue
        value = rank.env.get(GID_INDEX) if rank is not None and rank.running else None
        if value:
            found.append(f"{value} in the {node.role}'s running rank")
    return found


@pair_rule("fabric.gid_index_valid")
def gid_index_valid(view: PairView) -> Outcome:
    """A pinned index is the RoCE v2 entry of the rail's address on every RDMA device of both nodes."""
    pinned = view.site.fabric.gid_index
    if pinned is None:
        raise NotApplicableError("no index is pinned: NCCL finds the entry of each device itself")
    for node in view.facts.nodes:
        need(node.rdma, f"/sys/class/infiniband of the {node.role}")
    wrong, unread = pin_problems(view.site, pinned, view.facts)
    if wrong:
        return fail("; ".join(wrong), f"index {pinned} valid on every RDMA device of both nodes")
    if unread:
        raise FactMissingError(f"{', '.join(unread)} could not be read")
    return ok(f"index {pinned} is valid on every RDMA device of both nodes")


@node_rule("fabric.gid_single")
def gid_single(view: NodeView) -> Outcome:
    """Every rail's RDMA device has the RoCE v2 GID of one IPv4 address: NCCL takes the first that it finds."""
    several = []
    for rail, hca in rail_hcas(view):
        addresses = sorted({g.ipv4 for g in hca.gids if g.type == ROCE_V2 and g.ipv4 is not None})
        if len(addresses) > 1:
            several.append(f"{hca.name} (rail {rail.name}) has {', '.join(map(str, addresses))}")
    return judge(several, "one IPv4 RoCE v2 GID each", "the GID of one IPv4 address on every rail")


@node_rule("fabric.gid_link_local")
def gid_link_local(view: NodeView) -> Outcome:
    """No rail has a second link-local GID: a private IPv6 address takes the places that the IPv4 one had."""
    limit = int(view.limits["entries"])
    crowded = []
    for rail, hca in rail_hcas(view):
        found = [g for g in hca.gids if g.type == ROCE_V2 and g.gid.lower().startswith("fe80:")]
        if len(found) > limit:
            places = ", ".join(str(g.index) for g in found)
            crowded.append(f"{hca.name} (rail {rail.name}) has {len(found)} link-local RoCE v2 GIDs, at {places}")
    return judge(crowded, "no address but the planned one has a GID", f"at most {limit} link-local RoCE v2 GID each")


@pair_rule("fabric.gid_parity")
def gid_parity(view: PairView) -> Outcome:
    """The rails' addresses stand at the same index on every RDMA device: a tool that is told one index needs that."""
    places: dict[tuple[int, ...], list[str]] = {}
    for node in view.facts.nodes:
        need(node.rdma, f"/sys/class/infiniband of the {node.role}")
        for rail in view.site.fabric.rails:
            end = rail.of(node.role)
            hca = node.hca_of(end.netdev)
            indexes = () if hca is None else roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
            if hca is not None and indexes:
                places.setdefault(indexes, []).append(f"{node.role} {hca.name}")
    if not places:
        raise NotApplicableError("no rail has a RoCE v2 GID of its address")
    if len(places) == 1:
        return ok(f"index {_places(next(iter(places)))} on every RDMA device")
    told = [f"{_places(indexes)} on {', '.join(who)}" for indexes, who in sorted(places.items())]
    return fail(f"index {'; '.join(told)}", "one index on every RDMA device of the rails")
