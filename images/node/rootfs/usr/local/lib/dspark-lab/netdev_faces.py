"""speed and phys_port_name of the CX7 ports, bound over the files that a virtual link has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from board import PORTS, RUN
from rdma_tree import Link

_FACES = RUN / "netdev"


def refresh(links: Mapping[str, Link]) -> None:
    """200000 with carrier, -1 without; a port that is administratively down keeps the kernel's own answer (EINVAL)."""
    for port in PORTS:
        link = links.get(port.netdev)
        if link is None:
            continue
        _show(port.netdev, "phys_port_name", port.phys_port_name)
        if link.admin_up:
            _show(port.netdev, "speed", "200000" if link.running else "-1")
        else:
            _hide(port.netdev, "speed")


def _show(netdev: str, name: str, value: str) -> None:
    face = _FACES / netdev / name
    face.parent.mkdir(parents=True, exist_ok=True)
    text = (value + "\n").encode()
    if not face.exists() or face.read_bytes() != text:
        face.write_bytes(text)
    if not _covered(netdev, name):
        subprocess.run(["mount", "--bind", str(face), _target(netdev, name)], check=False, timeout=10)


def _hide(netdev: str, name: str) -> None:
    if _covered(netdev, name):
        subprocess.run(["umount", _target(netdev, name)], check=False, timeout=10)


def _covered(netdev: str, name: str) -> bool:
    """Whether our file lies over the kernel's: it is on another file system than its neighbour."""
    target = Path(_target(netdev, name))
    return target.exists() and os.stat(target).st_dev != os.stat(target.with_name("ifindex")).st_dev


def _target(netdev: str, name: str) -> str:
    return f"/sys/devices/virtual/net/{netdev}/{name}"
