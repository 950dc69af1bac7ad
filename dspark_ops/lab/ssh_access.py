"""Keys and the ssh_config through which everyone reaches the nodes; host keys are known before the first connection."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.layout import NODES, USER, LabPaths, Node

_CONNECT_TIMEOUT_S = 4


def ensure_keypair(key: Path, comment: str) -> str:
    """An ed25519 key without a passphrase at `key`, made once; its public line. Complete or absent."""
    public = key.with_name(key.name + ".pub")
    if not (key.is_file() and public.is_file()):
        fresh = key.with_name(key.name + ".fresh")
        for path in (fresh, fresh.with_name(fresh.name + ".pub"), key, public):
            path.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)],
            check=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        fresh.with_name(fresh.name + ".pub").replace(public)
        fresh.replace(key)
    return public.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Endpoint:
    """Where a node's SSH server is."""

    address: str
    port: int = 22

    @property
    def known_as(self) -> str:
        """As known_hosts names it."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


def write_ssh_files(paths: LabPaths, subnet: str, host_keys: Mapping[str, str]) -> None:
    """The files for nodes that are reached at their management addresses."""
    write_endpoints(paths, {node.name: Endpoint(node.management_ip(subnet)) for node in NODES}, host_keys)


def write_endpoints(paths: LabPaths, endpoints: Mapping[str, Endpoint], host_keys: Mapping[str, str]) -> None:
    """known_hosts from the keys that were put into the nodes, and the ssh_config. Unchanged files are not touched."""
    known, config = [], []
    for name, endpoint in endpoints.items():
        algorithm, blob = host_keys[name].split()[:2]
        known.append(f"{name},{endpoint.known_as} {algorithm} {blob}")
        config += [
            f"Host {name}",
            f"  HostName {endpoint.address}",
            f"  User {USER}",
            f"  Port {endpoint.port}",
            f"  IdentityFile {paths.key}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {paths.known_hosts}",
            "  GlobalKnownHostsFile none",
            "  StrictHostKeyChecking yes",
            "",
        ]
    _write(paths.known_hosts, "\n".join(known) + "\n")
    _write(paths.ssh_config, "\n".join(config))


def answers(paths: LabPaths, node: Node, *command: str) -> bool:
    """Whether `command` (default: true) succeeds on the node over SSH. A refused connection is False, not an error."""
    return ask(paths, node, *(command or ("true",))) is not None


def ask(paths: LabPaths, node: Node, *command: str, timeout_s: float = _CONNECT_TIMEOUT_S + 10) -> str | None:
    """What `command` prints on the node over SSH; None where it fails or the node does not answer."""
    if not paths.ssh_config.is_file():
        return None
    options = ["-F", str(paths.ssh_config), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}"]
    try:
        done = subprocess.run(
            ["ssh", *options, node.name, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def wait_until_ready(paths: LabPaths, *, timeout_s: float = 90) -> None:
    """Return when both nodes run a command over SSH and their Engine and look-alikes are up."""
    deadline = time.monotonic() + timeout_s
    waiting = list(NODES)
    while waiting:
        node = waiting[0]
        if answers(paths, node, "dspark-lab-ready"):
            waiting.pop(0)
        elif time.monotonic() > deadline:
            raise NoVerdictError(
                f"{node.name} did not answer over SSH with Docker and look-alikes up within {timeout_s:.0f} s",
                hint=f"`docker logs {node.container}` and `ssh -F {paths.ssh_config} {node.name}` say more",
            )
        else:
            time.sleep(0.25)


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(path.name + ".fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o600)
    fresh.replace(path)
