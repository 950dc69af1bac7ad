"""Names, numbers and places of the VM pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import ConfigError
from dspark_ops.lab.layout import MANAGEMENT_PORT, NODES, PORTS, LabPaths, Node, Port
from dspark_ops.paths import cache_dir, state_dir

#: The port by which the machine reaches the node over SSH; a Spark has no such port.
LAB_PORT = "lab0"
MANAGEMENT_SUBNET = "10.77.97"
#: The name of the clean state in both disks.
SNAPSHOT = "clean"
MEMORY_MIB = 2048
#: Tried upwards from here when the node's own is taken.
_FIRST_SSH_PORT = 22470
#: sun_path holds 108 bytes with its end.
_LONGEST_SOCKET_BYTES = 107


@dataclass(frozen=True)
class Rail:
    """One port of both nodes, the soft-RoCE device on it, and the cable that joins them."""

    port: Port
    rdma: str

    @property
    def name(self) -> str:
        """The rail is called as its port, e.g. enp1s0f0np0."""
        return self.port.name

    @property
    def cable(self) -> int:
        """The QSFP cable that both twins of a cage share: 1 or 2."""
        return self.port.cage + 1

    @property
    def device(self) -> str:
        """The emulator's id of the NIC."""
        return f"rail{PORTS.index(self.port)}"


RAILS = tuple(
    Rail(port, name)
    for port, name in zip(PORTS, ("rocep1s0f0", "rocep1s0f1", "roceP2p1s0f0", "roceP2p1s0f1"), strict=True)
)


def preferred_ssh_port(node: Node) -> int:
    """Where the node's SSH is on the loopback, unless something else is there."""
    return _FIRST_SSH_PORT + node.number


def management_address(node: Node) -> str:
    """Its address on the link between the two management ports."""
    return f"{MANAGEMENT_SUBNET}.{10 + node.number}"


def management_mac(node: Node) -> str:
    """As on a Spark the ports' MACs follow the management port's."""
    return f"02:00:47:{node.number:02x}:1a:15"


def lab_mac(node: Node) -> str:
    """The MAC of the port that the machine comes in by."""
    return f"02:00:47:{node.number:02x}:00:01"


def peer_of(node: Node) -> Node:
    """The other node."""
    return next(other for other in NODES if other != node)


def rails_named(name: str) -> tuple[Rail, ...]:
    """The rail of that port name, or both rails of cable 1 or 2.

    Raises:
        ConfigError: neither a port nor a cable has this name.
    """
    found = tuple(rail for rail in RAILS if name in (rail.name, str(rail.cable)))
    if not found:
        known = ", ".join(rail.name for rail in RAILS)
        raise ConfigError(f"no rail or cable is called {name!r}", hint=f"a rail: {known}; or a cable: 1, 2")
    return found


def name_files() -> dict[str, str]:
    """The .link files that give every port its name by the MACs it has on both nodes: path below the root -> text."""
    macs = {
        LAB_PORT: [lab_mac(node) for node in NODES],
        MANAGEMENT_PORT: [management_mac(node) for node in NODES],
        **{port.name: [port.mac(node) for node in NODES] for port in PORTS},
    }
    return {
        f"etc/systemd/network/10-dspark-lab-{name}.link": (
            f"[Match]\nMACAddress={' '.join(addresses)}\n\n[Link]\nName={name}\nNamePolicy=\n"
        )
        for name, addresses in macs.items()
    }


@dataclass(frozen=True)
class VmPaths(LabPaths):
    """Where the VM pair keeps things: `state` goes with `lab down`; `cache` (disks, keys) only with `--purge`."""

    @property
    def lock(self) -> Path:
        return self.state.with_name("lab-vm.lock")

    @property
    def record(self) -> Path:
        return self.state / "lab-vm.json"

    @property
    def key(self) -> Path:
        return self.disks / "id_ed25519"

    @property
    def disks(self) -> Path:
        """The two disks with the snapshot, the nodes' identities and the keys."""
        return self.cache / "pair"

    @property
    def disk_record(self) -> Path:
        """What the disks were made from, and whether their snapshot is whole."""
        return self.disks / "disks.json"

    def disk(self, node: Node) -> Path:
        return self.disks / f"{node.name}.qcow2"

    def identity_tar(self, node: Node) -> Path:
        return self.disks / f"{node.name}.identity.tar"

    def host_key(self, node: Node) -> Path:
        return self.disks / f"{node.name}.hostkey"

    def console(self, node: Node) -> Path:
        return self.log / f"{node.name}.console"

    def monitor(self, node: Node) -> Path:
        return self.socket(node, "qmp")

    def socket(self, node: Node, name: str) -> Path:
        """A Unix socket of the node.

        Raises:
            ConfigError: the state directory is too deep for one.
        """
        path = self.state / f"{node.number}.{name}"
        if len(bytes(path)) > _LONGEST_SOCKET_BYTES:
            raise ConfigError(
                f"the state directory is too deep for a Unix socket: {path} is over {_LONGEST_SOCKET_BYTES} bytes",
                hint="set XDG_STATE_HOME to a shorter path",
            )
        return path


def vm_paths() -> VmPaths:
    """The paths of this user's VM pair."""
    return VmPaths(state=state_dir() / "lab-vm", cache=cache_dir() / "lab-vm")
