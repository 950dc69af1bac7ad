"""What a dockerd changes on the machine outside its own directories, recorded before and put back after."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspark_ops.lab.layout import NETWORK

#: Made by dockerd or containerd on first start, whatever their data and exec roots are.
_MADE = (
    "/etc/docker/key.json",
    "/etc/docker",
    "/run/docker",
    "/run/containerd",
    "/run/runc",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/run/docker",
    "/opt/containerd/bin",
    "/opt/containerd/lib",
    "/opt/containerd",
    "/run/xtables.lock",
)
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/default/forwarding",
    "net/ipv6/conf/all/forwarding",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
)
_BRIDGES = ("docker0", NETWORK)
_TABLES = ("filter", "nat", "raw", "mangle")
_FAMILIES = ("iptables", "ip6tables")


def record() -> dict[str, Any]:
    """The machine as it is before our dockerd: absent paths, sysctls, bridges, netfilter rules."""
    return {
        "absent": [path for path in _MADE if not os.path.lexists(path)],
        "sysctl": {name: value for name in _SYSCTLS if (value := _sysctl(name)) is not None},
        "cgroups": _cgroups(),
        "links": _links(),
        "netfilter": {family: {table: _rules(family, table) for table in _TABLES} for family in _FAMILIES},
    }


def restore(before: Mapping[str, Any]) -> None:
    """Take away what was not there in `before`; best effort on each thing, because the rest should still go.

    Bridges that dockerd made (docker0, br-<network id>), netfilter chains called DOCKER* with every rule that was not
    there before and belongs to them or to those bridges, the policy of FORWARD, sysctls, and empty directories.
    """
    bridges = [n for n in _links() if n not in before["links"] and (n in _BRIDGES or n.startswith("br-"))]
    for family, tables in before["netfilter"].items():
        for table, rules in tables.items():
            _restore_table(family, table, rules, bridges)
    for name in bridges:
        _run("ip", "link", "delete", name)
    for name, value in before["sysctl"].items():
        if _sysctl(name) not in (None, value):
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value, encoding="ascii")
    if not _another_engine():
        for cgroup in sorted(set(_cgroups()) - set(before.get("cgroups", ()))):
            _remove_cgroup(Path(cgroup))
        for path in before["absent"]:
            _remove(Path(path))


def _restore_table(family: str, table: str, before: list[str], bridges: list[str]) -> None:
    now = _rules(family, table)
    chains = [r.split()[1] for r in now if r.startswith("-N DOCKER") and r not in before]
    ours = {*chains, *bridges}
    subnets = {
        r.split()[3] for r in now if r.startswith("-A POSTROUTING -s ") and any(f"! -o {b}" in r for b in bridges)
    }
    for rule in now:
        words = rule.split()
        if words[0] == "-A" and rule not in before and (ours | subnets) & set(words[2:]):
            _run(family, "-w", "10", "-t", table, "-D", *words[1:])
    for chain in chains:
        _run(family, "-w", "10", "-t", table, "-F", chain)
    for chain in chains:
        _run(family, "-w", "10", "-t", table, "-X", chain)
    for rule in before:
        if rule.startswith("-P ") and rule not in now:
            _run(family, "-w", "10", "-t", table, *rule.split())


def _remove(path: Path) -> None:
    """Remove a directory tree of run-time state that did not exist before us; sockets included, mounts never."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.is_dir() and not any(line.split()[1].startswith(f"{path}/") for line in _mounts()):
        shutil.rmtree(path, ignore_errors=True)


def _another_engine() -> bool:
    """Whether some other dockerd or containerd runs, which may by now use the shared run-time directories."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text(encoding="utf-8").strip()
                # A zombie has no arguments and uses nothing.
                if name in {"dockerd", "containerd"} and (entry / "cmdline").read_bytes():
                    return True
    return False


def _mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()


def _cgroups() -> list[str]:
    """The parents that dockerd makes for its containers, in every hierarchy of cgroup v1 or in the one of v2."""
    root = Path("/sys/fs/cgroup")
    return sorted(str(path) for pattern in ("docker", "*/docker") for path in root.glob(pattern) if path.is_dir())


def _remove_cgroup(directory: Path) -> None:
    """Remove an empty tree of cgroups, deepest first; one that still has processes stays."""
    for path in sorted((p for p in directory.rglob("*") if p.is_dir()), key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
    with contextlib.suppress(OSError):
        directory.rmdir()


def _links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _rules(family: str, table: str) -> list[str]:
    """`iptables -S` of one table; empty where the kernel or the program has no such table."""
    try:
        done = subprocess.run(
            [family, "-w", "10", "-t", table, "-S"], capture_output=True, text=True, timeout=30, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
