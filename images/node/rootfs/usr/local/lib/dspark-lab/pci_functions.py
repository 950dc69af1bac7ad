"""The PCI functions of the look-alike: the sysfs files that tools read, and a config space for lspci."""

from __future__ import annotations

import struct
from pathlib import Path

from board import PORTS, TREE, Port

_CAPABILITY_POINTER = 0x34
_STATUS_HAS_CAPABILITIES = 0x0010
_PCIE_CAPABILITY = 0x10
_ENDPOINT_V2 = 0x0002
_GEN5_X4 = 0x0045
_FILES = {
    "vendor": "0x15b3",
    "device": "0x1021",
    "subsystem_vendor": "0x15b3",
    "subsystem_device": "0x0170",
    "class": "0x020000",
    "revision": "0x00",
    "irq": "0",
    "numa_node": "-1",
    "enable": "1",
    "current_link_speed": "32.0 GT/s PCIe",
    "current_link_width": "4",
    "max_link_speed": "32.0 GT/s PCIe",
    "max_link_width": "4",
    "power_state": "D0",
}


def config_space() -> bytes:
    """256 bytes of configuration: a Mellanox Ethernet endpoint whose link is trained at 32 GT/s, x4."""
    space = bytearray(256)
    struct.pack_into("<HHHH", space, 0, 0x15B3, 0x1021, 0x0006, _STATUS_HAS_CAPABILITIES)
    space[0x0A:0x0C] = b"\x00\x02"
    space[0x0E] = 0x80
    struct.pack_into("<HH", space, 0x2C, 0x15B3, 0x0170)
    at = 0x60
    space[_CAPABILITY_POINTER] = at
    space[at] = _PCIE_CAPABILITY
    struct.pack_into("<H", space, at + 0x02, _ENDPOINT_V2)
    struct.pack_into("<I", space, at + 0x0C, _GEN5_X4)
    struct.pack_into("<H", space, at + 0x12, _GEN5_X4)
    return bytes(space)


def lay(port: Port) -> None:
    """Write one function's directory and its link in the list of PCI devices."""
    directory = TREE / port.pci_directory
    (directory / "net").mkdir(parents=True, exist_ok=True)
    (directory / "infiniband").mkdir(exist_ok=True)
    for name, value in _FILES.items():
        (directory / name).write_text(value + "\n", encoding="ascii")
    (directory / "uevent").write_text(
        f"DRIVER=mlx5_core\nPCI_CLASS=20000\nPCI_ID=15B3:1021\nPCI_SLOT_NAME={port.pci}\n", encoding="ascii"
    )
    (directory / "config").write_bytes(config_space())
    (directory / "resource").write_text(
        "0x0000000000000000 0x0000000000000000 0x0000000000000000\n" * 7, encoding="ascii"
    )
    link(TREE / "bus/pci/drivers/mlx5_core" / port.pci, f"/sys/{port.pci_directory}")
    link(directory / "driver", "/sys/bus/pci/drivers/mlx5_core")
    link(TREE / "bus/pci/devices" / port.pci, f"/sys/{port.pci_directory}")


def lay_all() -> None:
    """Write every function."""
    for port in PORTS:
        lay(port)


def link(at: Path, target: str) -> None:
    """A symbolic link that is there already with this target stays."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_symlink() and str(at.readlink()) == target:
        return
    at.unlink(missing_ok=True)
    at.symlink_to(target)
