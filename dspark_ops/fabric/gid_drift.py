"""Whether the GID of a rail's address moved in the table between two readings. Pure."""

from __future__ import annotations

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.fabric.nccl import GID_INDEX
from dspark_ops.fabric.selection import hca_of_rail
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.snapshot import NodeFacts, PairFacts
from dspark_ops.report.models import Finding, Remedy

DRIFT = "fabric.gid_drift"


def rail_gid_indexes(site: Site, node: NodeFacts) -> dict[str, tuple[int, ...]]:
    """RoCE v2 indexes of each rail's address, by rail; a rail whose device was not found is absent."""
    found = {}
    for rail in site.fabric.rails:
        end = rail.of(node.role)
        hca = hca_of_rail(rail, node)
        if hca is not None:
            found[rail.name] = roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
    return found


def judge_drift(site: Site, before: PairFacts, after: PairFacts) -> tuple[Finding, ...]:
    """The indexes of both readings compared, per node: same address, other index."""
    return tuple(_node(site, role, before.of(role), after.of(role)) for role in ROLES)


def _node(site: Site, role: Role, before: NodeFacts, after: NodeFacts) -> Finding:
    title = "The GID index of every rail stays where it was"
    old, new = rail_gid_indexes(site, before), rail_gid_indexes(site, after)
    seen = [rail.name for rail in site.fabric.rails if old.get(rail.name) or new.get(rail.name)]
    if before.rdma is None or after.rdma is None or not seen:
        return Finding(
            id=DRIFT,
            node=role,
            status="unknown",
            severity="advised",
            title=title,
            observed="no RoCE v2 entry of a rail's address was read",
            remedy=Remedy(text="Look at /sys/class/infiniband/*/ports/1/gids on that node.", remedy_class="M"),
        )
    moved = [
        f"{name} {_indexes(old.get(name))} -> {_indexes(new.get(name))}"
        for name in seen
        if old.get(name) != new.get(name)
    ]
    pinned = _pinned(site, before)
    gone = any(old.get(name) and not new.get(name) for name in seen)
    status = "ok" if not moved else "fail" if pinned is not None or gone else "warn"
    pin = f"; index {pinned} is pinned" if moved and pinned is not None else ""
    return Finding(
        id=DRIFT,
        node=role,
        status=status,
        title=title,
        observed=(", ".join(moved) or ", ".join(f"{name} {_indexes(new.get(name))}" for name in seen)) + pin,
        expected="the same index at both readings",
        remedy=None
        if not moved
        else Remedy(
            text="Leave NCCL_IB_GID_INDEX unset, so that NCCL finds the entry itself, and restart both ranks in a "
            "window: a running rank keeps the index it began with.",
            command=("dspark-ops", "fabric", "show", "--nccl"),
            remedy_class="C",
        ),
    )


def _pinned(site: Site, node: NodeFacts) -> str | None:
    """The index that is pinned: what the running rank was given, else what the site wants."""
    if node.rank is not None and node.rank.running and node.rank.env.get(GID_INDEX):
        return node.rank.env[GID_INDEX]
    return None if site.fabric.gid_index is None else str(site.fabric.gid_index)


def _indexes(found: tuple[int, ...] | None) -> str:
    return ",".join(map(str, found or ())) or "none"
