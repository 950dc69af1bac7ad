"""Where the control host's own session comes in: the port and the network that a change must leave alone."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from pathlib import Path

from ansible.module_utils.dspark_netplan_rules import Link, Rail


def control_address() -> str | None:
    """The control host as this node sees it: from the SSH session above us, which sudo hides from us."""
    pid = os.getpid()
    for _ in range(32):
        address = _session_peer(pid)
        if address is not None:
            return address
        pid = _parent(pid)
        if pid <= 1:
            return None
    return None


def _session_peer(pid: int) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for variable in environment:
        if variable.startswith(b"SSH_CONNECTION="):
            peer = variable.removeprefix(b"SSH_CONNECTION=").decode("ascii", "replace").split(" ")[0]
            try:
                return str(ipaddress.ip_address(peer.partition("%")[0]))
            except ValueError:
                return None
    return None


def _parent(pid: int) -> int:
    try:
        # The name, in parentheses, may hold blanks.
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        )
    except (OSError, ValueError, IndexError):
        return 0


def route_netdev(address: str) -> str | None:
    """The port over which this node answers an address."""
    try:
        done = subprocess.run(
            ["ip", "-j", "route", "get", address], capture_output=True, text=True, timeout=5, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else []
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return str(found[0]["dev"]) if found and "dev" in found[0] else None


def management_conflicts(
    rails: list[Rail], links: dict[str, Link], control: str | None, management: str | None
) -> list[str]:
    """Rails that would take the control host's way to this node, as sentences. Pure."""
    problems = []
    peer = ipaddress.ip_address(control) if control else None
    held = links[management].addresses if management in links else ()
    networks = [ipaddress.ip_interface(address).network for address in held]
    for rail in rails:
        if rail.netdev == management:
            problems.append(
                f"{rail.netdev} (rail {rail.name}) carries this session of the control host {control} "
                f"[fabric.management_port]"
            )
            continue
        net = ipaddress.ip_interface(rail.address).network
        if peer is not None and peer in net:
            problems.append(
                f"rail {rail.name} ({net}) would swallow the control host {control} [fabric.management_subnet]"
            )
        elif any(other.version == net.version and other.overlaps(net) for other in networks):
            problems.append(f"rail {rail.name} ({net}) overlaps {management}'s network [fabric.management_subnet]")
    return problems
