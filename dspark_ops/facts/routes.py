"""IPv4 routes: which device each destination leaves by."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from dspark_ops.config.models import Role, Site
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Command("routes.main", ("ip", "-j", "-4", "route")),)
_PATH = "routes.to."


class RouteFacts(Fact):
    """One route of the main table. destination 0.0.0.0/0 is the default route."""

    destination: IPv4Network
    device: str | None = None
    gateway: str | None = None
    metric: int | None = None

    @property
    def is_default(self) -> bool:
        return self.destination.prefixlen == 0


class PathFacts(Fact):
    """By which device the kernel sends to the far end of a rail, all its tables and rules considered.

    device: None when it knows no way.
    """

    rail: str
    device: str | None = None


def probes(site: Site, role: Role) -> tuple[Probe, ...]:
    """The way to the far end of each rail, as the kernel would take it."""
    peer: Role = "worker" if role == "head" else "head"
    return tuple(
        Command(f"{_PATH}{rail.name}", ("ip", "-j", "-4", "route", "get", str(rail.of(peer).address.ip)))
        for rail in site.fabric.rails
    )


def parse_path(rail: str, stdout: str | None, stderr: str | None = None) -> PathFacts | None:
    """The answer of `ip -j -4 route get ADDRESS`; None when it is not one."""
    if "unreachable" in (stderr or "") or "No route to host" in (stderr or ""):
        return PathFacts(rail=rail)
    try:
        document = json.loads(stdout or "")
    except (ValueError, RecursionError):
        return None
    item = document[0] if isinstance(document, list) and document else None
    device = item.get("dev") if isinstance(item, dict) else None
    return PathFacts(rail=rail, device=device) if isinstance(device, str) else None


def read_paths(reading: NodeReading) -> tuple[PathFacts, ...] | None:
    """The ways of a reading; None when none was asked for, or one was not understood."""
    found = [
        parse_path(name.removeprefix(_PATH), result.stdout, result.stderr)
        for name, result in reading.results.items()
        if name.startswith(_PATH)
    ]
    whole = tuple(path for path in found if path is not None)
    return whole if found and len(whole) == len(found) else None


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
