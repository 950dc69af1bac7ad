"""What goes wrong with a fabric in the field, done to the rehearsal pair and undone, by plain ssh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.operator_cli import Operator

A0, B0, A1, B1 = "enp1s0f0np0", "enP2p1s0f0np0", "enp1s0f1np1", "enP2p1s0f1np1"
PCI = "/run/dspark-lab/sys/devices/pci0002:00/0002:00:00.0/0002:01:00.0"
PROFILES = "/etc/NetworkManager/system-connections"


@dataclass(frozen=True)
class Fault:
    """A harm, its undoing, and what the tool must say: the check that names it and words of its finding.

    role: the node that is harmed. site: overrides under which it is one.
    """

    name: str
    role: str
    harm: str
    undo: str
    check: str
    status: str
    says: tuple[str, ...]
    site: tuple[str, ...] = ()

    @contextmanager
    def done_to(self, operator: Operator) -> Iterator[None]:
        try:
            shell(operator, self.role, self.harm)
            yield
        finally:
            shell(operator, self.role, self.undo)


def shell(operator: Operator, role: str, script: str) -> str:
    """Run a script as root on a node."""
    return operator.on(role, "bash", "-euc", "'" + script.replace("'", "'\\''") + "'")


ONE_CABLE = (
    "fabric.rails=["
    f"{{name: p0a, head: {{netdev: {A0}, hca: rocep1s0f0, address: 10.77.0.1/24}},"
    f" worker: {{netdev: {A0}, hca: rocep1s0f0, address: 10.77.0.2/24}}}},"
    f"{{name: p0b, head: {{netdev: {B0}, hca: roceP2p1s0f0, address: 10.77.1.1/24}},"
    f" worker: {{netdev: {B0}, hca: roceP2p1s0f0, address: 10.77.1.2/24}}}}]"
)

FAULTS = (
    Fault(
        "MTU 1500 on one end",
        "worker",
        f"ip link set {A0} mtu 1500",
        f"ip link set {A0} mtu 9000",
        "fabric.mtu",
        "fail",
        (A0, "1500", "p0a"),
    ),
    Fault(
        "twins on one subnet",
        "head",
        f"ip addr del 10.77.1.1/24 dev {B0}; ip addr add 10.77.0.5/24 dev {B0}",
        f"ip addr del 10.77.0.5/24 dev {B0}; ip addr add 10.77.1.1/24 dev {B0}",
        "fabric.twin_subnets",
        "fail",
        (A0, B0, "10.77.0.0/24"),
    ),
    Fault(
        "address missing on one twin",
        "head",
        f"ip addr del 10.77.1.1/24 dev {B0}",
        f"ip addr add 10.77.1.1/24 dev {B0}",
        "fabric.address_planned",
        "fail",
        (B0, "10.77.1.1/24"),
    ),
    Fault(
        "second cable half-configured",
        "head",
        f"ip addr del 10.77.3.1/24 dev {B1}",
        f"ip addr add 10.77.3.1/24 dev {B1}",
        "fabric.rails_complete",
        "fail",
        (B1, "cage 1"),
        (ONE_CABLE,),
    ),
    Fault(
        "a foreign netplan file",
        "worker",
        'umask 077; printf "network:\\n  version: 2\\n  ethernets:\\n    '
        f'{A0}:\\n      addresses: [192.168.177.12/24]\\n" > /etc/netplan/98-spark-vllm-docker.yaml',
        "rm -f /etc/netplan/98-spark-vllm-docker.yaml",
        "fabric.persistence_owner",
        "fail",
        ("98-spark-vllm-docker.yaml", A0),
    ),
    Fault(
        "a NetworkManager profile fighting",
        "worker",
        f'mkdir -p {PROFILES}; umask 077; printf "[connection]\\nid=fast-rail\\ntype=ethernet\\n'
        f'interface-name={A0}\\n\\n[ipv4]\\nmethod=manual\\naddress1=192.168.100.11/24\\n"'
        f" > {PROFILES}/fast-rail.nmconnection",
        f"rm -f {PROFILES}/fast-rail.nmconnection",
        "fabric.persistence_owner",
        "fail",
        ("fast-rail", A0),
    ),
    Fault(
        "a default route through a rail",
        "head",
        f"ip route add default via 10.77.0.2 dev {A0} metric 500",
        f"ip route del default via 10.77.0.2 dev {A0} metric 500",
        "fabric.default_route_leak",
        "fail",
        (A0,),
    ),
    Fault(
        "PCIe half B trained at x2",
        "head",
        f"echo 2 > {PCI}/current_link_width",
        f"echo 4 > {PCI}/current_link_width",
        "fabric.pcie_width",
        "fail",
        ("roceP2p1s0f0", "x2"),
    ),
    Fault(
        "an empty NCCL_IB_GID_INDEX in a file of the host",
        "head",
        'echo "NCCL_IB_GID_INDEX=" > /etc/nccl.conf',
        "rm -f /etc/nccl.conf",
        "nccl.conf_files",
        "fail",
        ("NCCL_IB_GID_INDEX", "/etc/nccl.conf"),
    ),
)
