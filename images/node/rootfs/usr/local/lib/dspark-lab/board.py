"""What a DGX Spark has on board, as far as the lab shows it: four CX7 functions, the management NIC, the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RUN = Path("/run/dspark-lab")
#: The tree the daemon writes; bind-mounted read-only where a Spark has it.
TREE = RUN / "sys"
FIRMWARE = "28.45.4028"
BOARD_ID = "NVD0000000087"
#: RoCE address table of a CX7 function.
GID_ENTRIES = 256


@dataclass(frozen=True)
class Port:
    """One CX7 function: half A is PCI domain 0000, half B is 0002; the function number is the cage."""

    rdma: str
    netdev: str
    pci: str
    phys_port_name: str

    @property
    def pci_directory(self) -> str:
        """Its directory below /sys."""
        domain = self.pci[:4]
        return f"devices/pci{domain}:00/{domain}:00:00.0/{self.pci}"

    @property
    def directory(self) -> Path:
        """Its RDMA device's directory in the tree."""
        return TREE / self.pci_directory / "infiniband" / self.rdma


PORTS = (
    Port("rocep1s0f0", "enp1s0f0np0", "0000:01:00.0", "p0"),
    Port("rocep1s0f1", "enp1s0f1np1", "0000:01:00.1", "p1"),
    Port("roceP2p1s0f0", "enP2p1s0f0np0", "0002:01:00.0", "p0"),
    Port("roceP2p1s0f1", "enP2p1s0f1np1", "0002:01:00.1", "p1"),
)


def guid(mac: str) -> str:
    """The GUID that mlx5 derives from a MAC: 02:00:47:01:1a:16 -> 0200:4703:0001:1a16."""
    a, b, c, d, e, f = mac.split(":")
    return f"{a}{b}:{c}03:00{d}:{e}{f}"
