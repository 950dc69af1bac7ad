"""Network devices: MTU, carrier, addresses, and what sysfs says of the port."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Command("links.addr", ("ip", "-j", "-d", "addr")),
    Files("links.sysfs", ("/sys/class/net/*/phys_port_name", "/sys/class/net/*/speed")),
)


class AddressFacts(Fact):
    """One address of a device. dynamic: a lease, which can change under us."""

    address: IPv4Interface | IPv6Interface
    dynamic: bool = False
    scope: str | None = None


class LinkFacts(Fact):
    """One network device.

    carrier: None while the device is administratively down, where the kernel does not know.
    speed_mbps: of the cage, not of the PCIe half behind it; None without a cable.
    kind: the kind of a virtual device (veth, bridge, bond), None for hardware. parent: the device that it sits on.
    """

    name: str
    mac: str | None = None
    mtu: int | None = None
    operstate: str | None = None
    admin_up: bool | None = None
    carrier: bool | None = None
    master: str | None = None
    kind: str | None = None
    parent: str | None = None
    phys_port_name: str | None = None
    speed_mbps: int | None = None
    addresses: tuple[AddressFacts, ...] = ()

    @property
    def ipv4(self) -> tuple[IPv4Interface, ...]:
        """The IPv4 addresses with their prefixes."""
        return tuple(a.address for a in self.addresses if isinstance(a.address, IPv4Interface))


def parse_links(addr_json: str | None, sysfs: Mapping[str, str] | None = None) -> tuple[LinkFacts, ...] | None:
    """The devices in `ip -j -d addr`, in its order; None when the text is not that."""
    if addr_json is None:
        return None
    try:
        document = json.loads(addr_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list):
        return None
    files = sysfs or {}
    links = [_link(item, files) for item in document if isinstance(item, dict) and isinstance(item.get("ifname"), str)]
    if document and not links:
        return None
    return tuple(links)


def _link(item: Mapping[str, Any], sysfs: Mapping[str, str]) -> LinkFacts:
    name: str = item["ifname"]
    raw = item.get("flags")
    flags = {f for f in raw if isinstance(f, str)} if isinstance(raw, list) else None
    admin_up = None if flags is None else "UP" in flags
    info = item.get("linkinfo")
    port = sysfs.get(f"/sys/class/net/{name}/phys_port_name", "").strip()
    speed = whole_number(sysfs.get(f"/sys/class/net/{name}/speed"))
    listed = item.get("addr_info")
    return LinkFacts(
        name=name,
        mac=_text(item.get("address")),
        mtu=_number(item.get("mtu")),
        operstate=_text(item.get("operstate")),
        admin_up=admin_up,
        carrier=None if flags is None or not admin_up else "LOWER_UP" in flags,
        master=_text(item.get("master")),
        kind=_text(info.get("info_kind")) if isinstance(info, dict) else None,
        parent=_text(item.get("link")),
        phys_port_name=port or _text(item.get("phys_port_name")),
        speed_mbps=speed if speed is not None and speed > 0 else None,
        addresses=tuple(filter(None, map(_address, listed))) if isinstance(listed, list) else (),
    )


def _address(entry: object) -> AddressFacts | None:
    if not isinstance(entry, dict):
        return None
    try:
        address = ip_interface(f"{entry['local']}/{entry['prefixlen']}")
    except (KeyError, ValueError):
        return None
    return AddressFacts(address=address, dynamic=entry.get("dynamic") is True, scope=_text(entry.get("scope")))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_links(reading: NodeReading) -> tuple[LinkFacts, ...] | None:
    """The devices of a reading."""
    return parse_links(reading.get("links.addr").text(), reading.get("links.sysfs").files)
