"""The RDMA ports of a node: their counters by class, and what a port says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from dspark_ops.fabric.error_counters import GAUGES, severity_of
from dspark_ops.observe.exporter.config import Rail
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import Tree

ROOT = "/sys/class/infiniband"
_SETS = ("counters", "hw_counters")
_ROCE_V2 = "RoCE v2"
# An address sits in the first free entry of its table; a table may be 1024 long, and every file costs its time.
_GID_INDEXES = 40
# port_xmit_data and port_rcv_data count 4-byte words (kernel ABI, sysfs-class-infiniband).
_WORD_BYTES = 4
_DATA = {"port_xmit_data", "port_rcv_data"}


@dataclass(frozen=True)
class Gid:
    """One filled entry of a port's table. ipv4: the address of a mapped one."""

    index: int
    kind: str | None
    netdev: str | None
    ipv4: IPv4Address | None


@dataclass(frozen=True)
class Port:
    """One port. counters: by set and name; a directory that is not there (soft-RoCE, an old kernel) is no set."""

    hca: str
    port: str
    counters: dict[str, dict[str, int]] = field(default_factory=dict)

    def bytes(self, name: str) -> int | None:
        """port_xmit_data or port_rcv_data in bytes."""
        words = self.counters.get("counters", {}).get(name)
        return None if words is None else words * _WORD_BYTES


def read_ports(tree: Tree) -> list[Port]:
    """Every port of every device. A node without the directory has no RDMA, which is not the same as no errors.

    Raises:
        SourceError: there is no /sys/class/infiniband.
    """
    names = tree.names(ROOT)
    if names is None:
        raise SourceError(f"{ROOT} is not there: the RDMA modules are not loaded")
    found = []
    for hca in names:
        for port in tree.names(f"{ROOT}/{hca}/ports") or ():
            sets = {kind: read_set(tree, f"{ROOT}/{hca}/ports/{port}/{kind}") for kind in _SETS}
            found.append(Port(hca, port, {kind: values for kind, values in sets.items() if values is not None}))
    return found


def read_set(tree: Tree, directory: str) -> dict[str, int] | None:
    """The counters of a directory; one that is no whole number, or negative, was not seen."""
    names = tree.names(directory)
    if names is None:
        return None
    values = {name: tree.number(f"{directory}/{name}") for name in names}
    return {name: value for name, value in values.items() if value is not None and value >= 0}


def read_gids(tree: Tree, hca: str, port: str = "1") -> list[Gid]:
    """The filled entries of a port's table, by index; the kernel refuses to read the type of an empty one."""
    base = f"{ROOT}/{hca}/ports/{port}"
    found = []
    for index in range(_GID_INDEXES):
        text = tree.text(f"{base}/gids/{index}")
        try:
            value = IPv6Address((text or "").strip())
        except ValueError:
            continue
        if value == IPv6Address(0):
            continue
        kind = tree.text(f"{base}/gid_attrs/types/{index}")
        found.append(Gid(index, kind, tree.text(f"{base}/gid_attrs/ndevs/{index}"), value.ipv4_mapped))
    return found


def roce_v2_ipv4(gids: list[Gid], netdev: str) -> list[Gid]:
    """The RoCE v2 entries of a network device with an IPv4 address: the type alone would pass fe80 entries."""
    return [gid for gid in gids if gid.kind == _ROCE_V2 and gid.netdev == netdev and gid.ipv4 is not None]


def state_id(text: str | None) -> int | None:
    """The number of `4: ACTIVE` or `5: LinkUp`."""
    found = re.match(r"\s*(\d{1,2}):", text or "")
    return int(found[1]) if found else None


def device_of(tree: Tree, netdev: str) -> str | None:
    """The RDMA device of a network device: the one below it, else the soft one whose parent it is; None: none."""
    below = tree.names(f"/sys/class/net/{netdev}/device/infiniband")
    if below:
        return below[0]
    for hca in tree.names(ROOT) or ():
        if tree.text(f"{ROOT}/{hca}/parent") == netdev or netdev in (tree.names(f"{ROOT}/{hca}/device/net") or ()):
            return hca
        if any(gid.netdev == netdev for gid in read_gids(tree, hca)):
            return hca
    return None


def export_counters(tree: Tree, rails: tuple[Rail, ...], into: Families) -> None:
    """All counters of all ports but the bytes, which belong to the rails.

    Raises:
        SourceError: there is no RDMA, or not one counter of it could be read.
    """
    ports = read_ports(tree)
    rail_of = {rail.hca or device_of(tree, rail.netdev) or "": rail.name for rail in rails}
    for port in ports:
        for kind, values in port.counters.items():
            for name, value in values.items():
                if name in GAUGES:
                    into.add("dspark_rdma_setting", value, hca=port.hca, port=port.port, set=kind, setting=name)
                elif name not in _DATA:
                    into.add(
                        "dspark_rdma_counter_total",
                        value,
                        hca=port.hca,
                        port=port.port,
                        rail=rail_of.get(port.hca, ""),
                        set=kind,
                        counter=name,
                        class_=severity_of(name) or "work",
                    )
    if not any(port.counters for port in ports):
        raise SourceError(f"{len(ports)} RDMA ports, none of which shows a counter")
