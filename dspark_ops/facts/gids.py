"""The GID table of a RoCE port, and the index that an IPv4 RoCE v2 connection would use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from dspark_ops.facts.model import Fact

ROCE_V2 = "RoCE v2"
_GID = re.compile(r"gids/(\d{1,3})$")


class GidFacts(Fact):
    """One filled entry. ipv4: the address of a mapped GID, None for an IPv6 one. type, ndev: None when unreadable."""

    index: int
    gid: str
    type: str | None = None
    ndev: str | None = None
    ipv4: IPv4Address | None = None


def parse_gids(port_files: Mapping[str, str]) -> tuple[GidFacts, ...]:
    """The filled entries of one port, by index; keys are paths below the port's directory (gids/3, gid_attrs/types/3).

    An entry of zeros is empty. A path that is missing was not readable: the kernel answers EINVAL for an empty entry.
    """
    entries = []
    for path, content in port_files.items():
        match = _GID.fullmatch(path)
        if match is None:
            continue
        try:
            value = IPv6Address(content.strip())
        except ValueError:
            continue
        if value == IPv6Address(0):
            continue
        index = int(match[1])
        entries.append(
            GidFacts(
                index=index,
                gid=value.exploded,
                type=port_files.get(f"gid_attrs/types/{match[1]}", "").strip() or None,
                ndev=port_files.get(f"gid_attrs/ndevs/{match[1]}", "").strip() or None,
                ipv4=value.ipv4_mapped,
            )
        )
    return tuple(sorted(entries, key=lambda entry: entry.index))


def roce_v2_indexes(gids: tuple[GidFacts, ...], netdev: str, address: IPv4Address) -> tuple[int, ...]:
    """Every index of a RoCE v2 entry of this netdev and this address: the type alone would pass fe80 entries."""
    return tuple(g.index for g in gids if g.type == ROCE_V2 and g.ndev == netdev and g.ipv4 == address)
