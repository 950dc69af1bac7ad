"""Netplan files: which of them names which device, and with what address and MTU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import yaml

from dspark_ops.facts.makers import Maker, Port, maker_of
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files("netplan.files", ("/etc/netplan/*.yaml", "/run/netplan/*.yaml", "/lib/netplan/*.yaml"), root=True),
    Command("netplan.list", ("ls", "-ln", "--time-style=+", "/etc/netplan"), root=True),
)

_LIST_LINE = re.compile(r"^-([r-][w-][xsS-][r-][w-][xsS-][r-][w-][xtT-])[.+@]?\s+\d+\s+\d+\s+\d+\s+\d+\s+(\S.*)$")


class NetplanDevice(Fact):
    """What one file says of one device. None: the file does not say.

    name: may be a pattern (match: name). mac: what it is matched by instead. gateway: it gives a default route.
    """

    name: str
    mac: str | None = None
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    dhcp4: bool | None = None
    dhcp6: bool | None = None
    gateway: bool = False
    link_local: tuple[str, ...] | None = None

    def covers(self, netdev: str, mac: str | None) -> bool:
        """True when these words are about that network device."""
        if self.mac is not None:
            return mac is not None and self.mac == mac.lower()
        return fnmatchcase(netdev, self.name)


class NetplanFile(Fact):
    """One file. devices: None when it is not valid netplan. mode: permission bits, None when they were not seen.

    owner: the tool that wrote it, as far as its content shows.
    """

    path: str
    owner: Maker
    mode: int | None = None
    renderer: str | None = None
    devices: tuple[NetplanDevice, ...] | None = None

    def device(self, name: str, mac: str | None = None) -> NetplanDevice | None:
        """What this file says of a device, or None."""
        return next((d for d in self.devices or () if d.covers(name, mac)), None)


def parse_netplan(path: str, content: str, mode: int | None = None) -> NetplanFile:
    """One file: its devices by name (ethernets, bonds, bridges, vlans), and who wrote it as far as that shows."""
    network = _network(content)
    devices = None if network is None else _devices(network)
    ports = [Port(d.name, d.addresses, d.mtu, d.link_local) for d in devices or ()]
    renderer = (network or {}).get("renderer")
    return NetplanFile(
        path=path,
        owner=maker_of(path, content, ports, nm_backend=_has_nm_keys(network)),
        mode=mode,
        renderer=renderer if isinstance(renderer, str) else None,
        devices=devices,
    )


def _network(content: str) -> Mapping[str, Any] | None:
    """The part below `network`; empty for an empty file, None when it is not netplan."""
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return None
    if document is None:
        return {}
    network = document.get("network") if isinstance(document, dict) else None
    return network if isinstance(network, dict) else None


def _devices(network: Mapping[str, Any]) -> tuple[NetplanDevice, ...]:
    found = []
    for kind in ("ethernets", "bonds", "bridges", "vlans"):
        section = network.get(kind)
        if isinstance(section, dict):
            # `version` and `renderer` may also stand beside the devices of a section.
            found += [_device(str(name), body) for name, body in section.items() if name not in ("renderer", "version")]
    return tuple(found)


def _has_nm_keys(network: Mapping[str, Any] | None) -> bool:
    """NetworkManager that keeps its profiles in netplan writes a block of its own beside each device."""
    ethernets = (network or {}).get("ethernets")
    bodies = ethernets.values() if isinstance(ethernets, dict) else ()
    return any(isinstance(body, dict) and isinstance(body.get("networkmanager"), dict) for body in bodies)


def _device(name: str, body: Any) -> NetplanDevice:
    settings = body if isinstance(body, dict) else {}
    match = settings.get("match")
    matched = match if isinstance(match, dict) else {}
    set_name, mac = settings.get("set-name"), matched.get("macaddress")
    if isinstance(set_name, str):
        name, mac = set_name, None
    elif isinstance(matched.get("name"), str):
        name = matched["name"]
    mtu, local = settings.get("mtu"), settings.get("link-local")
    return NetplanDevice(
        name=name,
        mac=mac.lower() if isinstance(mac, str) else None,
        mtu=mtu if isinstance(mtu, int) and not isinstance(mtu, bool) else None,
        # An address with options is a mapping with the address as its key.
        addresses=tuple(
            str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry)
            for entry in _items(settings.get("addresses"))
        ),
        dhcp4=_flag(settings.get("dhcp4")),
        dhcp6=_flag(settings.get("dhcp6")),
        gateway=_gives_gateway(settings),
        link_local=tuple(str(word) for word in local) if isinstance(local, list) else None,
    )


def _gives_gateway(settings: Mapping[str, Any]) -> bool:
    routes = [r for r in _items(settings.get("routes")) if isinstance(r, dict)]
    return "gateway4" in settings or any(str(r.get("to")) in ("default", "0.0.0.0/0") for r in routes)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def parse_modes(listing: str | None) -> dict[str, int]:
    """File name to permission bits, from `ls -ln --time-style=+`."""
    modes = {}
    for line in (listing or "").splitlines():
        match = _LIST_LINE.match(line)
        if match:
            bits = "".join("0" if letter in "-ST" else "1" for letter in match[1])
            modes[match[2]] = int(bits, 2)
    return modes


def read_netplan(reading: NodeReading) -> tuple[NetplanFile, ...] | None:
    """The files of a reading, in the order netplan reads them. Without root they cannot be read, which is None."""
    files: Mapping[str, str] | None = reading.get("netplan.files").files
    if files is None or (not reading.sudo and reading.user != "root"):
        return None
    modes = parse_modes(reading.get("netplan.list").text())
    return tuple(
        parse_netplan(path, files[path], modes.get(path.rsplit("/", 1)[-1]) if path.startswith("/etc/") else None)
        for path in sorted(files, key=lambda p: (p.rsplit("/", 1)[-1], p))
    )
