"""Names of everything the lab makes, in one place: what is made under these names is what `lab down` removes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspark_ops.paths import cache_dir, state_dir

LABEL = "io.dspark-ops.lab"
NETWORK = "dspark-lab"
IMAGE_REPOSITORY = "dspark-lab-node"
ROOT_REPOSITORY = "dspark-lab-root"
USER = "nvidia"
MANAGEMENT_PORT = "enP7s7"
#: Tried in this order; the first that no route of the machine touches is taken.
SUBNETS = tuple(f"10.77.{third}" for third in range(77, 97))

Half = Literal["A", "B"]


@dataclass(frozen=True)
class Node:
    """One virtual Spark. `number` makes its addresses: management .11 and .12, MACs 02:00:47:01:* and 02:00:47:02:*."""

    name: str
    container: str
    number: int

    @property
    def volume(self) -> str:
        """Holds the nested Engine's images; overlay2 cannot lie on an overlay."""
        return f"{self.container}-docker"

    def management_ip(self, subnet: str) -> str:
        """Its address in the lab's own network, e.g. 10.77.77.11."""
        return f"{subnet}.{10 + self.number}"


HEAD = Node("spark-head", "dspark-lab-head", 1)
WORKER = Node("spark-worker", "dspark-lab-worker", 2)
NODES = (HEAD, WORKER)


@dataclass(frozen=True)
class Port:
    """One CX7 function: cage 0 or 1, PCIe half A (domain 0000) or B (domain 0002)."""

    name: str
    cage: int
    half: Half
    mac_offset: int

    def mac(self, node: Node) -> str:
        """As on a Spark, half A follows the management MAC by 1 and 2, half B by 5 and 6."""
        return f"02:00:47:{node.number:02x}:1a:{0x15 + self.mac_offset:02x}"


PORTS = (
    Port("enp1s0f0np0", 0, "A", 1),
    Port("enp1s0f1np1", 1, "A", 2),
    Port("enP2p1s0f0np0", 0, "B", 5),
    Port("enP2p1s0f1np1", 1, "B", 6),
)


@dataclass(frozen=True)
class LabPaths:
    """Where the lab keeps things: `state` goes with `lab down`, `cache` only with `--purge`."""

    state: Path
    cache: Path

    @property
    def lock(self) -> Path:
        return self.state.with_name("lab.lock")

    @property
    def images(self) -> Path:
        """Where `image build` keeps what it has built; not the lab's, so it outlives the lab."""
        return self.cache.with_name("images")

    @property
    def record(self) -> Path:
        return self.state / "lab.json"

    @property
    def key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def dark(self) -> Path:
        """A network namespace as a file: the far ends of empty cages lie there and stay down."""
        return self.state / "dark.netns"

    @property
    def log(self) -> Path:
        return self.state / "log"

    def identity(self) -> str:
        """The label value of everything that belongs to this lab and not to another user's."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:12]


def lab_paths() -> LabPaths:
    """The paths of this user's lab."""
    return LabPaths(state=state_dir() / "lab", cache=cache_dir() / "lab")
