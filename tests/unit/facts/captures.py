"""The GB10 captures, with what each is expected to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[2] / "fixtures"
GB10 = FIXTURES / "gb10"


def manifest() -> dict[str, dict[str, Any]]:
    """Provenance and expectation by file."""
    document = json.loads((GB10 / "manifest.json").read_text(encoding="utf-8"))
    return {entry["file"]: entry for entry in document["fixtures"]}


def text(name: str) -> str:
    """A capture as printed."""
    return (GB10 / name).read_text(encoding="utf-8")


def expect(name: str) -> dict[str, Any]:
    """What a capture is expected to say."""
    found: dict[str, Any] = manifest()[name]["expect"]
    return found


def names(prefix: str) -> list[str]:
    """The captures whose path begins so."""
    return sorted(name for name in manifest() if name.startswith(prefix))


def sysfs_probe_files(tree: dict[str, Any]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """A walk of /sys/class/infiniband as the probes return it: links, files, and netdev to port name.

    An attribute that read EINVAL is not there, as with the real probe.
    """
    links, files, ports = {}, {}, {}
    for name, device in tree.items():
        base = f"/sys/class/infiniband/{name}"
        pci = device["pci"]
        links[f"{base}/device"] = f"/sys/devices/pci{pci[:4]}:00/{pci}"
        links[f"{base}/device/net/{device['netdev']}"] = f"/sys/devices/pci{pci[:4]}:00/{pci}/net/{device['netdev']}"
        ports[device["netdev"]] = device["phys_port_name"]
        port = device["ports"]["1"]
        for key in ("state", "phys_state", "rate", "link_layer"):
            files[f"{base}/ports/1/{key}"] = port[key] + "\n"
        for kind, folder in (("gids", "gids"), ("types", "gid_attrs/types"), ("ndevs", "gid_attrs/ndevs")):
            for index, value in port[kind].items():
                if isinstance(value, str):
                    files[f"{base}/ports/1/{folder}/{index}"] = value + "\n"
    return links, files, ports
