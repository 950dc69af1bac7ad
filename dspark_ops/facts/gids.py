"""The GID table of a RoCE port, and the index that an IPv4 RoCE v2 connection would use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from dspark_ops.facts.model import Fact

ROCE_V1 = "IB/RoCE v1"
ROCE_V2 = "RoCE v2"
_GID = re.compile(r"gids/(\d{1,3})$")


class GidFacts(Fact):
    """One filled entry. ipv4: the address of a mapped GID, None for an IPv6 one. type, ndev: None when unreadable."""

    index: int
    gid: str
    type: str | None = None
    ndev: str | None = None
    ipv4: IPv4Address | None = None


class GidRecordEntry(Fact):
    """Where one IPv4 address of one RDMA device of one node stood in its table; no index: it had no RoCE v2 entry."""

    node: str
    hca: str
    address: IPv4Address
    indexes: tuple[int, ...] = ()


class GidRecord(Fact):
    """The GID indexes of an earlier reading of a pair. problem: why the record that is there could not be used."""

    read_at: datetime | None = None
    entries: tuple[GidRecordEntry, ...] = ()
    problem: str | None = None


def make_gid(index: int | None, gid: str, kind: str | None, ndev: str | None) -> GidFacts | None:
    """One entry; None when it is empty (zeros). A GID that its author made unreadable (xxxx) is kept as written."""
    if index is None:
        return None
    try:
        value = IPv6Address(gid.strip())
    except ValueError:
        return GidFacts(index=index, gid=gid, type=kind, ndev=ndev)
    if value == IPv6Address(0):
        return None
    return GidFacts(index=index, gid=value.exploded, type=kind, ndev=ndev, ipv4=value.ipv4_mapped)


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
            IPv6Address(content.strip())
        except ValueError:
            continue
        kind, ndev = (port_files.get(f"gid_attrs/{name}/{match[1]}", "").strip() or None for name in ("types", "ndevs"))
        entry = make_gid(int(match[1]), content, kind, ndev)
        if entry is not None:
            entries.append(entry)
    return tuple(sorted(entries, key=lambda entry: entry.index))


def roce_v2_indexes(gids: tuple[GidFacts, ...], netdev: str, address: IPv4Address) -> tuple[int, ...]:
    """Every index of a RoCE v2 entry of this netdev and this address: the type alone would pass fe80 entries."""
    return tuple(g.index for g in gids if g.type == ROCE_V2 and g.ndev == netdev and g.ipv4 == address)
