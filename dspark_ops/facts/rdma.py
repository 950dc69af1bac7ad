"""RDMA devices as sysfs shows them: found by the tree, never by name; the same on hardware and in the rehearsal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from dspark_ops.facts.gids import GidFacts, parse_gids
from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, Links, NodeReading, Probe

_ROOT = "/sys/class/infiniband"
# Two digits of indexes: tables are 256 long and an address sits in the first free entry, far below 100.
PROBES: tuple[Probe, ...] = (
    Links("rdma.devices", (f"{_ROOT}/*/device", f"{_ROOT}/*/device/net/*")),
    Files(
        "rdma.files",
        (
            f"{_ROOT}/*/fw_ver",
            f"{_ROOT}/*/board_id",
            f"{_ROOT}/*/ports/1/state",
            f"{_ROOT}/*/ports/1/phys_state",
            f"{_ROOT}/*/ports/1/rate",
            f"{_ROOT}/*/ports/1/link_layer",
            f"{_ROOT}/*/device/current_link_width",
            f"{_ROOT}/*/device/current_link_speed",
            f"{_ROOT}/*/device/max_link_width",
            *(
                f"{_ROOT}/*/ports/1/{kind}/{index}"
                for kind in ("gids", "gid_attrs/types", "gid_attrs/ndevs")
                for index in ("[0-9]", "[0-9][0-9]")
            ),
        ),
        max_bytes=256,
    ),
)

_PCI = re.compile(r"([0-9a-f]{4}):[0-9a-f]{2}:[0-9a-f]{2}\.([0-7])")
_PORT = re.compile(r"p(\d+)")
# GB10: the two PCIe halves of the one ConnectX-7 are two PCI domains.
_HALF_BY_DOMAIN: dict[str, Literal["A", "B"]] = {"0000": "A", "0002": "B"}


class HcaFacts(Fact):
    """One RDMA device.

    cage: the physical socket, from `phys_port_name`, else the PCI function number. half: the PCIe half, by PCI domain.
    active: the port is ACTIVE; None when its state could not be read.
    """

    name: str
    netdev: str | None = None
    pci: str | None = None
    cage: int | None = None
    half: Literal["A", "B"] | None = None
    state: str | None = None
    phys_state: str | None = None
    rate: str | None = None
    link_layer: str | None = None
    firmware: str | None = None
    board_id: str | None = None
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    pcie_speed: str | None = None
    gids: tuple[GidFacts, ...] = ()

    @property
    def active(self) -> bool | None:
        return None if self.state is None else self.state.endswith("ACTIVE")


def parse_rdma(
    devices: Mapping[str, str] | None, files: Mapping[str, str] | None, phys_port_names: Mapping[str, str]
) -> tuple[HcaFacts, ...] | None:
    """The devices, by name. An empty tree is an empty tuple; a tree that was not read is None.

    devices: path to link target. files: path to content. phys_port_names: netdev to `phys_port_name`.
    """
    if devices is None or files is None:
        return None
    names: dict[str, str | None] = {}
    netdevs: dict[str, str] = {}
    for path, target in devices.items():
        parts = path.removeprefix(_ROOT + "/").split("/")
        if not path.startswith(_ROOT + "/"):
            continue
        if parts[1:] == ["device"]:
            names[parts[0]] = target.rstrip("/").rsplit("/", 1)[-1]
        elif parts[1:3] == ["device", "net"] and len(parts) == 4:
            names.setdefault(parts[0], None)
            netdevs.setdefault(parts[0], parts[3])
    for path in files:
        if path.startswith(_ROOT + "/"):
            names.setdefault(path.removeprefix(_ROOT + "/").split("/")[0], None)
    return tuple(_hca(name, names[name], netdevs.get(name), files, phys_port_names) for name in sorted(names))


def _hca(
    name: str, pci: str | None, netdev: str | None, files: Mapping[str, str], phys_port_names: Mapping[str, str]
) -> HcaFacts:
    base = f"{_ROOT}/{name}/"
    mine = {path.removeprefix(base): text for path, text in files.items() if path.startswith(base)}
    port = {path.removeprefix("ports/1/"): text for path, text in mine.items() if path.startswith("ports/1/")}

    def word(source: Mapping[str, str], key: str) -> str | None:
        return source.get(key, "").strip() or None

    address = _PCI.fullmatch(pci) if pci else None
    return HcaFacts(
        name=name,
        netdev=netdev,
        pci=pci if address else None,
        cage=cage_of(phys_port_names.get(netdev or ""), pci),
        half=_HALF_BY_DOMAIN.get(address[1]) if address else None,
        state=word(port, "state"),
        phys_state=word(port, "phys_state"),
        rate=word(port, "rate"),
        link_layer=word(port, "link_layer"),
        firmware=word(mine, "fw_ver"),
        board_id=word(mine, "board_id"),
        pcie_width=whole_number(mine.get("device/current_link_width")),
        pcie_max_width=whole_number(mine.get("device/max_link_width")),
        pcie_speed=word(mine, "device/current_link_speed"),
        gids=parse_gids(port),
    )


def cage_of(phys_port_name: str | None, pci: str | None) -> int | None:
    """The cage: the number in `phys_port_name` (p0, p1), else the PCI function number, else None."""
    named = _PORT.fullmatch((phys_port_name or "").strip())
    if named:
        return int(named[1])
    address = _PCI.fullmatch(pci or "")
    return int(address[2]) if address else None


def read_rdma(reading: NodeReading) -> tuple[HcaFacts, ...] | None:
    """The RDMA devices of a reading."""
    sysfs = reading.get("links.sysfs").files or {}
    names = {p.split("/")[4]: t for p, t in sysfs.items() if p.endswith("/phys_port_name") and p.count("/") == 5}
    return parse_rdma(reading.get("rdma.devices").files, reading.get("rdma.files").files, names)
