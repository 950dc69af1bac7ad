"""The GID indexes over time and over devices: an index that moved, and a pin that does not hold everywhere."""

from __future__ import annotations

from dspark_ops.doctor.outcome import (
    FactMissingError,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    need,
    ok,
    rank_of,
    warn,
)
from dspark_ops.doctor.registry import pair_rule
from dspark_ops.fabric.gid_pin import pin_problems
from dspark_ops.fabric.gid_record import drift, record_of
from dspark_ops.fabric.nccl import GID_INDEX


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
