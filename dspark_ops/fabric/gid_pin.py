"""Whether a pinned GID index holds: on every RDMA device of both nodes, at the rail's own address. Pure.

One number serves all devices of a rank, so it holds only where their tables agree (NVIDIA/nccl src/transport/net_ib).
"""

from __future__ import annotations

from dspark_ops.config.models import ROLES, Site
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.snapshot import PairFacts


def pin_problems(site: Site, pinned: int, facts: PairFacts) -> tuple[list[str], list[str]]:
    """Where the index is not the RoCE v2 entry of the rail's address, and what could not be read; as sentences."""
    wrong: list[str] = []
    unread: list[str] = []
    for role in ROLES:
        node = facts.of(role)
        for rail in site.fabric.rails:
            end = rail.of(role)
            hca = node.hca_of(end.netdev)
            if hca is None:
                unread.append(f"the RDMA device of {end.netdev} on the {role}")
                continue
            indexes = roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
            if pinned not in indexes:
                there = f"at {', '.join(map(str, indexes))}" if indexes else "nowhere"
                wrong.append(f"{role} {hca.name}: the RoCE v2 entry of {end.address.ip} is {there}, not at {pinned}")
    return wrong, unread
