"""The GID table of one RoCE port, filled and emptied in the order the kernel does it.

Entries 0 and 1 are the default ones, made from the MAC: RoCE v1, then RoCE v2. Each address of the port takes the
first free entries, v1 then v2. An address that goes leaves a hole; nothing moves up. So an index tells of history,
which is why NCCL_IB_GID_INDEX=3 is common and not guaranteed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

TYPES = ("IB/RoCE v1", "RoCE v2")
_DEFAULTS = len(TYPES)


@dataclass(frozen=True)
class Gid:
    """One filled entry: the GID in the eight-group form of sysfs, and its type."""

    value: str
    type: str


def link_local(mac: str) -> str:
    """The default GID of a MAC: fe80:: and the modified EUI-64."""
    raw = bytes.fromhex(mac.replace(":", ""))
    eui = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + eui).exploded


def address_gid(address: str) -> str:
    """The GID of an address: an IPv6 address is one, an IPv4 address is mapped."""
    ip = ipaddress.ip_address(address)
    return ip.exploded if ip.version == 6 else ipv4_gid(ip)


def ipv4_gid(ip: ipaddress.IPv4Address) -> str:
    """::ffff:a.b.c.d written as sysfs writes it."""
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + ip.packed).exploded


def update(table: tuple[Gid | None, ...], mac: str, addresses: Iterable[str], *, size: int) -> tuple[Gid | None, ...]:
    """The table after the port's MAC and addresses became these; entries that stay keep their index."""
    entries: list[Gid | None] = [*table[:size], *[None] * (size - len(table))]
    default = link_local(mac)
    for index, kind in enumerate(TYPES):
        entries[index] = Gid(default, kind)
    wanted = list(dict.fromkeys(g for g in map(address_gid, addresses) if g != default))
    for index in range(_DEFAULTS, size):
        entry = entries[index]
        if entry is not None and entry.value not in wanted:
            entries[index] = None
    present = {(e.value, e.type) for e in entries if e is not None}
    for value in wanted:
        for kind in TYPES:
            if (value, kind) not in present:
                free = next((i for i in range(_DEFAULTS, size) if entries[i] is None), None)
                if free is not None:
                    entries[free] = Gid(value, kind)
    return tuple(entries)
