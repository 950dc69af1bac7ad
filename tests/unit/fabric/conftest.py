"""Two nodes' ports and networks out of recorded `ip -j addr` output."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.models import Role
from dspark_ops.fabric.ports import FabricPort, Half
from dspark_ops.fabric.rails import UsedNetwork

CAPTURES = Path(__file__).parent / "captures"
HCAS: dict[str, tuple[str, int, Half]] = {
    "enp1s0f0np0": ("rocep1s0f0", 0, "A"),
    "enp1s0f1np1": ("rocep1s0f1", 1, "A"),
    "enP2p1s0f0np0": ("roceP2p1s0f0", 0, "B"),
    "enP2p1s0f1np1": ("roceP2p1s0f1", 1, "B"),
}
Node = tuple[tuple[FabricPort, ...], tuple[UsedNetwork, ...]]


@pytest.fixture
def node() -> Callable[..., Node]:
    """node(capture, role, shift=0, side=None): ports and networks; shift is added to every address of a rail."""

    def build(capture: str, role: Role, *, shift: int = 0, side: str | None = None) -> Node:
        document: Any = json.loads((CAPTURES / f"ip-j-addr-{capture}.json").read_text())
        ports, used = [], []
        for link in document[side] if side else document:
            name = link["ifname"]
            step = shift if name in HCAS else shift and 1
            found = [
                IPv4Interface(f"{item['local']}/{item['prefixlen']}")
                for item in link["addr_info"]
                if item["family"] == "inet"
            ]
            moved = tuple(IPv4Interface((int(address.ip) + step, address.network.prefixlen)) for address in found)
            used += [UsedNetwork(address.network, role, f"address on {name}", name) for address in moved]
            if name in HCAS:
                hca, cage, half = HCAS[name]
                ports.append(FabricPort(name, cage, half, "LOWER_UP" in link["flags"], hca, moved))
        return tuple(ports), tuple(used)

    return build
