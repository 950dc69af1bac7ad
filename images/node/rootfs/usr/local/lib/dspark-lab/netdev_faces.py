"""phys_port_name, device and speed of the CX7 ports, laid over the sysfs directory that a virtual link has.

An overlay adds what a virtual link lacks and lets everything else through, live. `speed` changes, so it is a bind mount
on top. Both go by themselves with the port.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from board import PORTS, RUN, Port
from pci_functions import link as symlink
from rdma_tree import Link

_FACES = RUN / "netdev"
_OVERLAY = "dspark-lab-port"


def refresh(links: Mapping[str, Link]) -> None:
    """Lay the faces of every port that is there.

    speed: 200000 with carrier, -1 without; a port that is administratively down keeps the kernel's own answer (EINVAL).
    """
    mounted = _mounted()
    for port in PORTS:
        seen = links.get(port.netdev)
        if seen is None:
            continue
        if _directory(port) not in mounted:
            _lay(port)
        speed = f"{_directory(port)}/speed"
        if seen.admin_up:
            _write(_FACES / port.netdev / "speed", "200000" if seen.running else "-1")
            if speed not in mounted:
                _run("mount", "--bind", str(_FACES / port.netdev / "speed"), speed)
        elif speed in mounted:
            _run("umount", speed)


def _lay(port: Port) -> None:
    added = _FACES / port.netdev / "added"
    added.mkdir(parents=True, exist_ok=True)
    _write(added / "phys_port_name", port.phys_port_name)
    symlink(added / "device", f"/sys/{port.pci_directory}")
    target = _directory(port)
    _run("mount", "-t", "overlay", _OVERLAY, "-o", f"lowerdir={added}:{target}", target)


def _directory(port: Port) -> str:
    return f"/sys/devices/virtual/net/{port.netdev}"


def _write(path: Path, value: str) -> None:
    """Write in place: the file is mounted, so it must stay the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{value}\n".encode("ascii")
    if path.exists() and path.read_bytes() == text:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o444)
    try:
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))
    finally:
        os.close(descriptor)


def _mounted() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {line.split()[4] for line in lines}


def _run(*command: str) -> None:
    subprocess.run(command, check=False, timeout=10)
