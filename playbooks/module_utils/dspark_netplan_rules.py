"""Who configures a rail: pure functions over parsed netplan files and the live links of a node."""

from __future__ import annotations

import fnmatch
import ipaddress
from dataclasses import dataclass
from typing import Any

# Keys that neither give nor take an address or an MTU; a definition with only these leaves the rail to us.
_NEUTRAL = {
    "match",
    "set-name",
    "optional",
    "wakeonlan",
    "link-local",
    "accept-ra",
    "ipv6-privacy",
    "emit-lldp",
    "renderer",
    "ignore-carrier",
    "critical",
    "optional-addresses",
}
_GROUPING = ("bonds", "bridges", "vrfs")


@dataclass(frozen=True)
class Rail:
    """What one port must have."""

    name: str
    netdev: str
    address: str
    mtu: int


@dataclass(frozen=True)
class Link:
    """What one port has now. carrier None: the port is down, so nobody can tell."""

    netdev: str
    mac: str | None
    mtu: int
    carrier: bool | None
    master: str | None
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Ownership:
    """own: rails that our file must hold. adopted: another file gives exactly what is wanted. conflicts: sentences."""

    own: tuple[str, ...]
    adopted: dict[str, str]
    conflicts: tuple[str, ...]


def effective_files(paths: list[str]) -> list[str]:
    """The files netplan reads, in its order: of one base name the copy in /run wins over /etc, and that over /lib."""
    rank = {"/run/netplan": 2, "/etc/netplan": 1}
    chosen: dict[str, str] = {}
    for path in paths:
        folder, _, base = path.rpartition("/")
        held = chosen.get(base)
        if held is None or rank.get(folder, 0) > rank.get(held.rpartition("/")[0], 0):
            chosen[base] = path
    return [chosen[base] for base in sorted(chosen)]


def ownership(rails: list[Rail], foreign: dict[str, Any], links: dict[str, Link]) -> Ownership:
    """Decide for every rail who configures it. foreign: path to parsed content, without our own file."""
    own: list[str] = []
    adopted: dict[str, str] = {}
    conflicts: list[str] = []
    for rail in rails:
        link = links.get(rail.netdev)
        conflicts += _groupings(rail, foreign)
        settings: dict[str, Any] = {}
        sources: list[str] = []
        for path, document in foreign.items():
            for definition in _definitions(document, rail.netdev, link.mac if link else None):
                told = {key: value for key, value in definition.items() if not _says_nothing(key, value)}
                if told:
                    sources.append(path)
                    _merge(settings, told)
        if not settings:
            own.append(rail.netdev)
            continue
        reasons = _mismatches(rail, settings)
        if reasons:
            conflicts.append(f"{' and '.join(dict.fromkeys(sources))} configures {rail.netdev}: {'; '.join(reasons)}")
        else:
            adopted[rail.netdev] = sources[-1]
    return Ownership(tuple(own), adopted, tuple(conflicts))


def live_conflicts(
    rails: list[Rail], links: dict[str, Link], ours: set[str], others: dict[str, list[str]]
) -> list[str]:
    """What on the live links speaks against the plan, as sentences.

    ours: addresses that our own file gave or gives. others: addresses of the node's interfaces that are no rails.
    """
    problems = []
    for rail in rails:
        link = links.get(rail.netdev)
        if link is None:
            problems.append(f"there is no port {rail.netdev} (rail {rail.name}) [fabric.port_absent]")
            continue
        if link.master is not None:
            problems.append(f"{rail.netdev} is part of {link.master}; a rail must stand alone [fabric.port_enslaved]")
        if link.carrier is False:
            problems.append(
                f"{rail.netdev} (rail {rail.name}) has no carrier: is the cable plugged? [fabric.no_carrier]"
            )
        strange = [a for a in link.addresses if a != rail.address and a not in ours and not _is_link_local(a)]
        if strange:
            problems.append(
                f"{rail.netdev} has {', '.join(strange)}, which neither netplan nor dspark-ops gave; wanted "
                f"{rail.address} alone [fabric.foreign_address]"
            )
        net = ipaddress.ip_interface(rail.address).network
        for netdev, addresses in others.items():
            for address in addresses:
                if ipaddress.ip_interface(address).network.overlaps(net):
                    problem = f"rail {rail.name} ({net}) overlaps {address} of {netdev} [fabric.subnet_overlap]"
                    problems.append(problem)
    return problems


def not_effective(rails: list[Rail], links: dict[str, Link]) -> list[str]:
    """What still differs between the wanted and the live state; empty when every rail is as wanted."""
    missing = []
    for rail in rails:
        link = links.get(rail.netdev)
        if link is None:
            missing.append(f"{rail.netdev} is absent")
            continue
        if link.mtu != rail.mtu:
            missing.append(f"{rail.netdev} has MTU {link.mtu} instead of {rail.mtu}")
        extra = [a for a in link.addresses if a != rail.address and not _is_link_local(a)]
        if rail.address not in link.addresses:
            missing.append(f"{rail.netdev} lacks {rail.address}")
        if extra:
            missing.append(f"{rail.netdev} also has {', '.join(extra)}")
        if link.carrier is not True:
            missing.append(f"{rail.netdev} has no carrier")
    return missing


def addresses_of(document: Any) -> set[str]:
    """All addresses that a netplan file gives to ethernets."""
    found: set[str] = set()
    for definition in _section(document, "ethernets").values():
        if isinstance(definition, dict):
            found.update(_addresses(definition))
    return found


def dropped(document: Any, rails: list[Rail]) -> dict[str, list[str]]:
    """Ports that our old file configured and that are no rail any more, with the addresses it gave them."""
    kept = {rail.netdev for rail in rails}
    found = _section(document, "ethernets")
    return {n: _addresses(d) for n, d in found.items() if n not in kept and isinstance(d, dict)}


def _section(document: Any, name: str) -> dict[str, Any]:
    network = document.get("network") if isinstance(document, dict) else None
    section = network.get(name) if isinstance(network, dict) else None
    return section if isinstance(section, dict) else {}


def _definitions(document: Any, netdev: str, mac: str | None) -> list[dict[str, Any]]:
    found = []
    for name, definition in _section(document, "ethernets").items():
        if not isinstance(definition, dict):
            if name == netdev:
                found.append({})
            continue
        match = definition.get("match")
        if isinstance(match, dict):
            by_name = any(fnmatch.fnmatchcase(netdev, str(p)) for p in str(match.get("name", "")).split())
            by_mac = mac is not None and str(match.get("macaddress", "")).lower() == mac.lower()
            if by_name or by_mac or definition.get("set-name") == netdev:
                found.append(definition)
        elif name == netdev:
            found.append(definition)
    return found


def _groupings(rail: Rail, foreign: dict[str, Any]) -> list[str]:
    found = []
    for path, document in foreign.items():
        for kind in _GROUPING:
            for name, definition in _section(document, kind).items():
                if isinstance(definition, dict) and rail.netdev in (definition.get("interfaces") or []):
                    found.append(f"{path} puts {rail.netdev} into {kind[:-1]} {name}; a rail must stand alone")
        for name, definition in _section(document, "vlans").items():
            if isinstance(definition, dict) and definition.get("link") == rail.netdev:
                found.append(f"{path} lays VLAN {name} on {rail.netdev}; a rail must stand alone")
    return found


def _says_nothing(key: str, value: Any) -> bool:
    return key in _NEUTRAL or (key in ("dhcp4", "dhcp6") and value in (False, "no", "false"))


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """As netplan does: lists grow, everything else is overridden by the later file."""
    for key, value in more.items():
        if isinstance(value, list) and isinstance(into.get(key), list):
            into[key] = [*into[key], *value]
        else:
            into[key] = value


def _addresses(settings: dict[str, Any]) -> list[str]:
    given = settings.get("addresses") or []
    return [str(next(iter(a))) if isinstance(a, dict) else str(a) for a in given]


def _mismatches(rail: Rail, settings: dict[str, Any]) -> list[str]:
    reasons = []
    addresses = list(dict.fromkeys(_addresses(settings)))
    if addresses != [rail.address]:
        reasons.append(f"addresses {', '.join(addresses) or 'none'} instead of {rail.address}")
    if settings.get("mtu") != rail.mtu:
        reasons.append(f"mtu {settings.get('mtu', 'unset')} instead of {rail.mtu}")
    others = sorted(set(settings) - {"addresses", "mtu"})
    if others:
        reasons.append(f"also sets {', '.join(others)}")
    return reasons


def _is_link_local(address: str) -> bool:
    return ipaddress.ip_interface(address).version == 6 and ipaddress.ip_interface(address).is_link_local
