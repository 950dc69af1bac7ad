"""RDMA devices as sysfs shows them: found by the tree, never by name; the same on hardware and in the rehearsal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from dspark_ops.facts.gids import GidFacts, parse_gids
from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.facts.verbs import VerbsDevice, read_verbs
from dspark_ops.transport.base import Files, Links, NodeReading, Probe

_ROOT = "/sys/class/infiniband"
# The first 40 indexes: tables are 256 long (soft-RoCE 1024), an address sits in the first free entry, and every file
# costs its time.
PROBES: tuple[Probe, ...] = (
    Links("rdma.devices", (f"{_ROOT}/*/device", f"{_ROOT}/*/device/driver", f"{_ROOT}/*/device/net/*")),
    Files(
        "rdma.files",
        (
            f"{_ROOT}/*/fw_ver",
            f"{_ROOT}/*/board_id",
            f"{_ROOT}/*/sys_image_guid",
            f"{_ROOT}/*/parent",
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
                for index in ("[0-9]", "[1-3][0-9]")
            ),
        ),
        max_bytes=256,
    ),
)

_PCI = re.compile(r"([0-9a-f]{4}):[0-9a-f]{2}:[0-9a-f]{2}\.([0-7])")
_PORT = re.compile(r"p(\d{1,3})")
# systemd's predictable name: enP<domain>p<bus>s<slot>f<function>np<port>; no domain is domain 0.
_PREDICTABLE = re.compile(r"en(?:P(\d{1,5}))?p\d{1,3}s\d{1,3}f([0-7])(?:np(\d))?")
# GB10: the two PCIe halves of the one ConnectX-7 are two PCI domains.
_HALF_BY_DOMAIN: dict[int, Literal["A", "B"]] = {0: "A", 2: "B"}


class HcaFacts(Fact):
    """One RDMA device.

    cage: the physical socket, from `phys_port_name`, else the PCI function number. half: the PCIe half, by PCI domain.
    identity: where cage and half come from: "sysfs", or "name" where the device has no PCI address (soft-RoCE) and
    only the predictable name of its network device tells; None when neither does.
    driver: mlx5 (hardware, or a look-alike of its tree) or rxe (soft-RoCE).
    active: the port is ACTIVE; None when its state could not be read. active_mtu_bytes: of an ACTIVE port only, because
    any other one reads 1024.
    """

    name: str
    netdev: str | None = None
    pci: str | None = None
    cage: int | None = None
    half: Literal["A", "B"] | None = None
    identity: Literal["sysfs", "name"] | None = None
    driver: Literal["mlx5", "rxe"] | None = None
    state: str | None = None
    phys_state: str | None = None
    rate: str | None = None
    link_layer: str | None = None
    firmware: str | None = None
    board_id: str | None = None
    sys_image_guid: str | None = None
    active_mtu_bytes: int | None = None
    pcie_width: int | None = None
    pcie_max_width: int | None = None
    pcie_speed: str | None = None
    gids: tuple[GidFacts, ...] = ()

    @property
    def active(self) -> bool | None:
        return None if self.state is None else self.state.endswith("ACTIVE")


def parse_rdma(
    devices: Mapping[str, str] | None,
    files: Mapping[str, str] | None,
    phys_port_names: Mapping[str, str],
    verbs: Sequence[VerbsDevice] | None = None,
) -> tuple[HcaFacts, ...] | None:
    """The devices, by name. An empty tree is an empty tuple; a tree that was not read is None.

    devices: path to link target. files: path to content. phys_port_names: netdev to `phys_port_name`. verbs: what
    `ibv_devinfo` shows of the same devices, None where it was not run.
    """
    if devices is None or files is None:
        return None
    names: dict[str, dict[str, str]] = {}
    for path, target in devices.items():
        name, _, rest = path.removeprefix(_ROOT + "/").partition("/")
        if not path.startswith(_ROOT + "/") or not name:
            continue
        last = target.rstrip("/").rsplit("/", 1)[-1]
        if rest in ("device", "device/driver"):
            names.setdefault(name, {})[rest] = last
        elif rest.startswith("device/net/") and rest.count("/") == 2:
            names.setdefault(name, {}).setdefault("netdev", rest.rsplit("/", 1)[-1])
    for path in files:
        if path.startswith(_ROOT + "/"):
            names.setdefault(path.removeprefix(_ROOT + "/").split("/")[0], {})
    shown = {device.name: device for device in verbs or ()}
    return tuple(_hca(name, names[name], files, phys_port_names, shown.get(name)) for name in sorted(names))


def _hca(
    name: str,
    links: Mapping[str, str],
    files: Mapping[str, str],
    phys_port_names: Mapping[str, str],
    verbs: VerbsDevice | None,
) -> HcaFacts:
    base = f"{_ROOT}/{name}/"
    mine = {path.removeprefix(base): text for path, text in files.items() if path.startswith(base)}
    port = {path.removeprefix("ports/1/"): text for path, text in mine.items() if path.startswith("ports/1/")}

    def word(source: Mapping[str, str], key: str) -> str | None:
        return source.get(key, "").strip() or None

    gids = parse_gids(port)
    # A soft device is not below a PCI function: its parent file, or else its GIDs, name the network device.
    netdev = links.get("netdev") or word(mine, "parent") or next((g.ndev for g in gids if g.ndev), None)
    pci = links.get("device")
    address = _PCI.fullmatch(pci) if pci else None
    by_name = _PREDICTABLE.fullmatch(netdev or "") if address is None else None
    state = word(port, "state")
    active = state is not None and state.endswith("ACTIVE")
    return HcaFacts(
        name=name,
        netdev=netdev,
        pci=pci if address else None,
        cage=_cage(phys_port_names.get(netdev or ""), pci, by_name),
        half=_half(address, by_name),
        identity="sysfs" if address else "name" if by_name else None,
        driver=_driver(links, mine, verbs),
        state=state,
        phys_state=word(port, "phys_state"),
        rate=word(port, "rate"),
        link_layer=word(port, "link_layer"),
        firmware=word(mine, "fw_ver"),
        board_id=word(mine, "board_id"),
        sys_image_guid=word(mine, "sys_image_guid"),
        active_mtu_bytes=verbs.active_mtu_bytes if verbs and active and verbs.active else None,
        pcie_width=whole_number(mine.get("device/current_link_width")),
        pcie_max_width=whole_number(mine.get("device/max_link_width")),
        pcie_speed=word(mine, "device/current_link_speed"),
        gids=gids,
    )


def _driver(
    links: Mapping[str, str], mine: Mapping[str, str], verbs: VerbsDevice | None
) -> Literal["mlx5", "rxe"] | None:
    """By the PCI driver; the board of a Mellanox NIC is mlx5 too; only a soft device has a parent file."""
    driver = links.get("device/driver", "")
    vendor = verbs.vendor_id if verbs else None
    if driver.startswith("mlx5") or (mine.get("board_id", "").strip() and "device" in links) or vendor == "0x02c9":
        return "mlx5"
    return "rxe" if "parent" in mine and "device" not in links else None


def _half(address: re.Match[str] | None, by_name: re.Match[str] | None) -> Literal["A", "B"] | None:
    if address is not None:
        return _HALF_BY_DOMAIN.get(int(address[1], 16))
    return _HALF_BY_DOMAIN.get(int(by_name[1] or 0)) if by_name else None


def _cage(phys_port_name: str | None, pci: str | None, by_name: re.Match[str] | None) -> int | None:
    found = cage_of(phys_port_name, pci)
    if found is None and by_name is not None:
        return int(by_name[3] or by_name[2])
    return found


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
    return parse_rdma(reading.get("rdma.devices").files, reading.get("rdma.files").files, names, read_verbs(reading))
