"""Netplan files: which of them names which device, and with what address and MTU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files("netplan.files", ("/etc/netplan/*.yaml", "/run/netplan/*.yaml", "/lib/netplan/*.yaml"), root=True),
    Command("netplan.list", ("ls", "-ln", "--time-style=+", "/etc/netplan"), root=True),
)

OWN_FILE = "/etc/netplan/40-cx7.yaml"
OWN_MARK = "dspark-ops"
Owner = Literal["dspark-ops", "installer", "cloud-init", "networkmanager", "spark-vllm-docker", "foreign"]

_LIST_LINE = re.compile(r"^-([r-][w-][xsS-][r-][w-][xsS-][r-][w-][xtT-])[.+@]?\s+\d+\s+\d+\s+\d+\s+\d+\s+(\S.*)$")
_OWNERS: tuple[tuple[str, Owner], ...] = (
    ("00-installer-config", "installer"),
    ("50-cloud-init", "cloud-init"),
    ("90-NM-", "networkmanager"),
    ("01-network-manager", "networkmanager"),
    ("spark-vllm-docker", "spark-vllm-docker"),
)


class NetplanDevice(Fact):
    """What one file says of one device. None: the file does not say."""

    name: str
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    dhcp4: bool | None = None


class NetplanFile(Fact):
    """One file. devices: None when it is not valid netplan. mode: permission bits, None when they were not seen."""

    path: str
    owner: Owner
    mode: int | None = None
    devices: tuple[NetplanDevice, ...] | None = None

    def device(self, name: str) -> NetplanDevice | None:
        """What this file says of a device, or None."""
        return next((d for d in self.devices or () if d.name == name), None)


def parse_netplan(path: str, content: str, mode: int | None = None) -> NetplanFile:
    """One file: its devices by name (ethernets, bonds, bridges, vlans), and who wrote it as far as that shows."""
    return NetplanFile(path=path, owner=_owner(path, content), mode=mode, devices=_devices(content))


def _owner(path: str, content: str) -> Owner:
    head = "\n".join(line for line in content.splitlines() if line.startswith("#"))
    if OWN_MARK in head:
        return "dspark-ops"
    name = path.rsplit("/", 1)[-1]
    return next((owner for part, owner in _OWNERS if part in name), "foreign")


def _devices(content: str) -> tuple[NetplanDevice, ...] | None:
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return None
    if document is None:
        return ()
    network = document.get("network") if isinstance(document, dict) else None
    if not isinstance(network, dict):
        return None
    found = []
    for kind in ("ethernets", "bonds", "bridges", "vlans"):
        section = network.get(kind)
        if isinstance(section, dict):
            found += [_device(str(name), body) for name, body in section.items()]
    return tuple(found)


def _device(name: str, body: Any) -> NetplanDevice:
    settings = body if isinstance(body, dict) else {}
    match = settings.get("match")
    set_name = settings.get("set-name")
    if isinstance(set_name, str):
        name = set_name
    elif isinstance(match, dict) and isinstance(match.get("name"), str):
        name = match["name"]
    mtu, listed, dhcp4 = settings.get("mtu"), settings.get("addresses"), settings.get("dhcp4")
    # An address with options is a mapping with the address as its key.
    addresses = [
        str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry)
        for entry in (listed if isinstance(listed, list) else [])
    ]
    return NetplanDevice(
        name=name,
        mtu=mtu if isinstance(mtu, int) and not isinstance(mtu, bool) else None,
        addresses=tuple(addresses),
        dhcp4=dhcp4 if isinstance(dhcp4, bool) else None,
    )


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
