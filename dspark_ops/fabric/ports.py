"""The fabric ports of a node: its ConnectX-7 functions, cage by cage. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import Literal

from dspark_ops.facts.links import LinkFacts
from dspark_ops.facts.rdma import HcaFacts

Half = Literal["A", "B"]


@dataclass(frozen=True)
class FabricPort:
    """One ConnectX-7 function of a node: a cage (0, 1) seen through one PCIe half.

    carrier: None where it could not be read. addresses: the static IPv4 addresses it has now.
    """

    netdev: str
    cage: int
    half: Half
    carrier: bool | None
    hca: str | None = None
    addresses: tuple[IPv4Interface, ...] = ()
    mac: str | None = None
    link_local: tuple[IPv6Address, ...] = ()

    @property
    def label(self) -> str:
        return f"p{self.cage}{self.half.lower()}"


def fabric_ports(links: Iterable[LinkFacts], rdma: Iterable[HcaFacts]) -> tuple[FabricPort, ...]:
    """The functions whose cage and half are known, cage by cage, half A first."""
    by_name = {link.name: link for link in links}
    found = []
    for hca in rdma:
        link = by_name.get(hca.netdev or "")
        if link is None or hca.cage is None or hca.half is None:
            continue
        found.append(
            FabricPort(
                netdev=link.name,
                cage=hca.cage,
                half=hca.half,
                carrier=link.carrier,
                hca=hca.name,
                addresses=tuple(
                    item.address
                    for item in link.addresses
                    if isinstance(item.address, IPv4Interface) and not item.dynamic
                ),
                mac=link.mac.lower() if link.mac else None,
                link_local=tuple(
                    item.address.ip
                    for item in link.addresses
                    if isinstance(item.address, IPv6Interface) and item.address.ip.is_link_local
                ),
            )
        )
    return tuple(sorted(found, key=lambda port: (port.cage, port.half)))
