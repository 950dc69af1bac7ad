"""IPv4 routes: which device each destination leaves by."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Command("routes.main", ("ip", "-j", "-4", "route")),)


class RouteFacts(Fact):
    """One route of the main table. destination 0.0.0.0/0 is the default route."""

    destination: IPv4Network
    device: str | None = None
    gateway: str | None = None
    metric: int | None = None

    @property
    def is_default(self) -> bool:
        return self.destination.prefixlen == 0


def parse_routes(route_json: str | None) -> tuple[RouteFacts, ...] | None:
    """The routes in `ip -j -4 route`; an entry of another shape is left out, another document is None."""
    if route_json is None:
        return None
    if not route_json.strip():
        return ()
    try:
        document = json.loads(route_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list):
        return None
    found = []
    for item in document:
        if not isinstance(item, dict) or not isinstance(item.get("dst"), str):
            continue
        try:
            destination = IPv4Network("0.0.0.0/0" if item["dst"] == "default" else item["dst"], strict=False)
        except ValueError:
            continue
        device, gateway, metric = item.get("dev"), item.get("gateway"), item.get("metric")
        found.append(
            RouteFacts(
                destination=destination,
                device=device if isinstance(device, str) else None,
                gateway=gateway if isinstance(gateway, str) else None,
                metric=metric if isinstance(metric, int) else None,
            )
        )
    return tuple(found)


def read_routes(reading: NodeReading) -> tuple[RouteFacts, ...] | None:
    """The routes of a reading."""
    return parse_routes(reading.get("routes.main").text())
