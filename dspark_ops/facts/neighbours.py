"""Who is at the other end of a cable: neighbour table, answers to a link-local ping, LLDP where a daemon runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, ForEach, NodeReading, Probe

_RDMA = "/sys/class/infiniband"
PROBES: tuple[Probe, ...] = (
    Command("neighbours.table", ("ip", "-j", "neigh"), late=True),
    Command("neighbours.lldp", ("lldpctl", "-f", "json0"), root=True, timeout_s=3.0),
)
# One multicast packet per fabric port; hosts answer with their own link-local address. -L: not to ourselves.
ECHO_PROBES: tuple[Probe, ...] = (
    ForEach(
        "neighbours.echo",
        ("ping", "-6", "-n", "-L", "-c", "1", "-W", "0.1", "-I", "{}", "ff02::1"),
        links=(f"{_RDMA}/*/device/net/*",),
        contents=(f"{_RDMA}/*/parent", f"{_RDMA}/*/ports/1/gid_attrs/ndevs/0"),
    ),
)
_ANSWER = re.compile(r"^\d+ bytes from ([0-9a-fA-F:]+)(?:%([^\s:]+))?:", re.MULTILINE)
_UNSURE = frozenset({"FAILED", "INCOMPLETE", "NOARP"})


class NeighbourFacts(Fact):
    """One entry of the neighbour table whose hardware address the kernel holds. fresh: confirmed a moment ago."""

    device: str
    address: IPv4Address | IPv6Address
    mac: str
    fresh: bool


class EchoFacts(Fact):
    """Who answered the link-local ping that left by one device; nobody is an empty tuple."""

    device: str
    responders: tuple[IPv6Address, ...] = ()


class LldpFacts(Fact):
    """What the far end of one device says of itself. A field that it does not say is None."""

    device: str
    chassis: str | None = None
    port: str | None = None
    description: str | None = None


def parse_neighbours(neigh_json: str | None) -> tuple[NeighbourFacts, ...] | None:
    """The entries of `ip -j neigh` that carry a hardware address; None when the text is not that."""
    document = _array(neigh_json)
    if document is None:
        return None
    found = []
    for item in document:
        if not isinstance(item, dict):
            continue
        device, mac, state = item.get("dev"), item.get("lladdr"), item.get("state")
        states = {s for s in state if isinstance(s, str)} if isinstance(state, list) else set()
        if not isinstance(device, str) or not isinstance(mac, str) or states & _UNSURE:
            continue
        try:
            address = ip_address(item.get("dst", ""))
        except ValueError:
            continue
        found.append(NeighbourFacts(device=device, address=address, mac=mac.lower(), fresh="STALE" not in states))
    return tuple(found)


def parse_echo(device: str, stdout: str) -> EchoFacts:
    """The link-local addresses that answered `ping -6 ff02::1`, in their order, each once."""
    found = []
    for address, _zone in _ANSWER.findall(stdout):
        try:
            found.append(IPv6Address(address))
        except ValueError:
            continue
    return EchoFacts(device=device, responders=tuple(dict.fromkeys(found)))


def parse_lldp(document: str | None) -> tuple[LldpFacts, ...] | None:
    """The neighbours in `lldpctl -f json0`; None when no LLDP daemon answered."""
    if document is None:
        return None
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or "lldp" not in parsed:
        return None
    found = []
    for block in _each(parsed["lldp"]):
        for interface in _each(block.get("interface")):
            name = interface.get("name")
            if not isinstance(name, str):
                continue
            port = next(_each(interface.get("port")), {})
            chassis = next(_each(interface.get("chassis")), {})
            found.append(
                LldpFacts(
                    device=name,
                    chassis=_value(chassis.get("name")),
                    port=_value(port.get("id")),
                    description=_value(port.get("descr")),
                )
            )
    return tuple(found)


def _array(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    if not text.strip():
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, list) else None


def _each(value: object) -> Iterator[Mapping[str, Any]]:
    """json0 wraps everything in lists; be content with a bare object too."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield item


def _value(value: object) -> str | None:
    text = next(_each(value), {}).get("value")
    return text if isinstance(text, str) and text else None


def read_neighbours(reading: NodeReading) -> tuple[NeighbourFacts, ...] | None:
    """The neighbour table of a reading."""
    return parse_neighbours(reading.get("neighbours.table").text())


def read_echoes(reading: NodeReading) -> tuple[EchoFacts, ...] | None:
    """The answers of a reading; None when nobody was asked."""
    outputs = reading.get("neighbours.echo").files
    return None if outputs is None else tuple(parse_echo(device, outputs[device]) for device in sorted(outputs))


def read_lldp(reading: NodeReading) -> tuple[LldpFacts, ...] | None:
    """The LLDP neighbours of a reading; None without a daemon."""
    return parse_lldp(reading.get("neighbours.lldp").text())
