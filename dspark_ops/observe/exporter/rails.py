"""The rails of this node: carrier, MTU, GID, bytes, and how they share the load."""

from __future__ import annotations

import re

from dspark_ops.observe.exporter.config import Rail
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.rdma import ROOT, Port, device_of, read_gids, read_set, roce_v2_ipv4, state_id
from dspark_ops.observe.exporter.tree import Tree

_NET = "/sys/class/net"
# Below this a share says nothing: keep-alives and health checks are not spread over the rails.
SPLIT_FLOOR_BYTES = 100_000_000
_PCI = re.compile(r"([0-9a-f]{4}):[0-9a-f]{2}:[0-9a-f]{2}\.([0-7])")
# GB10: the two PCIe halves of the one ConnectX-7 are two PCI domains.
_HALVES = {0: "A", 2: "B"}


class Rails:
    """Reads the rails again and again: a share needs the bytes of the reading before."""

    def __init__(self, tree: Tree, rails: tuple[Rail, ...]) -> None:
        self._tree = tree
        self._rails = rails
        self._before: dict[str, int] = {}

    def read(self, into: Families) -> None:
        """All rails.

        Raises:
            SourceError: there is no /sys/class/net.
        """
        if self._tree.names(_NET) is None:
            raise SourceError(f"{_NET} is not there")
        labels, moved = {}, {}
        for rail in self._rails:
            hca = rail.hca or device_of(self._tree, rail.netdev)
            labels[rail.name] = {"rail": rail.name, "netdev": rail.netdev, "hca": hca or ""}
            _export_link(self._tree, rail, labels[rail.name], into)
            if hca is not None:
                total = _export_port(self._tree, rail, hca, labels[rail.name], into)
                if total is not None:
                    moved[rail.name] = total
        self._export_split(moved, labels, into)

    def _export_split(self, now: dict[str, int], labels: dict[str, dict[str, str]], into: Families) -> None:
        """Shares since the reading before. A counter that went back, or a rail that is new, makes none."""
        before, self._before = self._before, now
        if not now or set(now) != set(before) or len(now) != len(self._rails):
            return
        grown = {name: now[name] - before[name] for name in now}
        if min(grown.values()) < 0:
            return
        total = sum(grown.values())
        into.add("dspark_rail_interval_bytes", total)
        if total < SPLIT_FLOOR_BYTES:
            return
        for name, part in grown.items():
            into.add("dspark_rail_share_ratio", part / total, **labels[name])
        if len(grown) > 1:
            into.add("dspark_rail_balance_ratio", min(grown.values()) / max(grown.values()))


def _export_link(tree: Tree, rail: Rail, labels: dict[str, str], into: Families) -> None:
    base = f"{_NET}/{rail.netdev}"
    present = tree.names(base) is not None
    into.add("dspark_rail_present", float(present), **labels)
    into.add("dspark_rail_wanted_mtu_bytes", rail.mtu, **labels)
    pci = _PCI.fullmatch(tree.last_of_link(f"{base}/device") or "")
    cage = re.fullmatch(r"p(\d{1,3})", tree.text(f"{base}/phys_port_name") or "")
    into.add(
        "dspark_rail_info",
        1,
        **labels,
        address=str(rail.address),
        cage=cage[1] if cage else pci[2] if pci else "",
        half=_HALVES.get(int(pci[1], 16), "") if pci else "",
    )
    if not present:
        return
    # The carrier of a device that is administratively down cannot be read: EINVAL.
    carrier = tree.number(f"{base}/carrier")
    into.add("dspark_rail_carrier", float(carrier) if carrier in (0, 1) else None, **labels)
    into.add("dspark_rail_carrier_changes_total", tree.number(f"{base}/carrier_changes"), **labels)
    into.add("dspark_rail_mtu_bytes", tree.number(f"{base}/mtu"), **labels)
    speed = tree.number(f"{base}/speed")
    into.add("dspark_rail_speed_bits_per_second", speed * 1e6 if speed is not None and speed > 0 else None, **labels)
    if pci:
        into.add("dspark_rail_pcie_width_lanes", tree.number(f"{base}/device/current_link_width"), **labels)
        rate = parse_pcie_speed(tree.text(f"{base}/device/current_link_speed"))
        into.add("dspark_rail_pcie_speed_transfers_per_second", rate, **labels)


def _export_port(tree: Tree, rail: Rail, hca: str, labels: dict[str, str], into: Families) -> int | None:
    """What the RDMA port of a rail says. Returns its bytes in both directions, None where it does not count them."""
    base = f"{ROOT}/{hca}/ports/1"
    if tree.names(base) is None:
        return None
    into.add("dspark_rail_port_state_id", state_id(tree.text(f"{base}/state")), **labels)
    into.add("dspark_rail_port_physical_state_id", state_id(tree.text(f"{base}/phys_state")), **labels)
    if tree.names(f"{base}/gids") is not None:
        found = roce_v2_ipv4(read_gids(tree, hca), rail.netdev)
        into.add("dspark_rail_roce_v2_ipv4_gids", len(found), **labels)
        own = [gid.index for gid in found if gid.ipv4 == rail.address]
        into.add("dspark_rail_gid_index", own[0] if own else None, **labels)
    port = Port(hca, "1", {"counters": read_set(tree, f"{base}/counters") or {}})
    sent, received = port.bytes("port_xmit_data"), port.bytes("port_rcv_data")
    into.add("dspark_rail_transmit_bytes_total", sent, **labels)
    into.add("dspark_rail_receive_bytes_total", received, **labels)
    return None if sent is None or received is None else sent + received


def parse_pcie_speed(text: str | None) -> float | None:
    """Transfers a second of `32.0 GT/s PCIe`; `Unknown` is None."""
    found = re.match(r"\s*(\d{1,3}(?:\.\d)?) GT/s", text or "")
    return float(found[1]) * 1e9 if found else None
