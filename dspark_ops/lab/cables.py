"""The cables: veth pairs between the nodes' network namespaces, and empty cages whose far end lies in the dark."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import NoVerdictError
from dspark_ops.lab.layout import HEAD, NODES, PORTS, WORKER, Node, Port

_TIMEOUT_S = 20


@dataclass(frozen=True)
class Namespace:
    """A network namespace: a process of it, or a file it is mounted on."""

    pid: int | None = None
    file: Path | None = None

    def name(self) -> str:
        """As `ip link ... netns` takes it."""
        return str(self.pid if self.pid is not None else self.file)

    def enter(self) -> list[str]:
        """The nsenter prefix."""
        where = f"/proc/{self.pid}/ns/net" if self.pid is not None else str(self.file)
        return ["nsenter", f"--net={where}"]


@dataclass(frozen=True)
class LinkState:
    """A link as the kernel shows it; `peer_index` is the ifindex of the veth's other end, in its own namespace."""

    index: int
    peer_index: int | None
    admin_up: bool
    carrier: bool
    mtu: int
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Wiring:
    """Where the ends are: the two nodes' namespaces and the dark one.

    crossed: with two cables, cage 0 of the head faces cage 1 of the worker and 1 faces 0; both halves go along.
    """

    nodes: Mapping[str, Namespace]
    dark: Namespace
    crossed: bool = False

    def far(self, port: Port, cables: int) -> Port:
        """The worker's port that faces this port of the head."""
        if not self.crossed or cables < 2:
            return port
        return next(other for other in PORTS if other.half == port.half and other.cage != port.cage)

    def correct(self, cables: int) -> dict[tuple[str, str], bool]:
        """(node name, port name) -> whether the port is there and its far end lies where `cables` wants it."""
        seen = {node.name: links(self.nodes[node.name]) for node in NODES}
        dark = links(self.dark)
        verdict: dict[tuple[str, str], bool] = {}
        for port in PORTS:
            if port.cage < cables:
                far = self.far(port, cables)
                ends = (seen[HEAD.name].get(port.name), seen[WORKER.name].get(far.name))
                verdict[HEAD.name, port.name] = verdict[WORKER.name, far.name] = _joined(*ends)
            else:
                for node in NODES:
                    end = dark.get(dark_name(node, port))
                    verdict[node.name, port.name] = _joined(seen[node.name].get(port.name), end)
        return verdict

    def plug(self, cables: int) -> tuple[str, ...]:
        """Lay what is not as wanted, leave the rest alone; the ports that were laid anew, as `node/port`.

        Each pair is made in its two namespaces in one step: nothing passes through the machine's own namespace, so an
        interrupted run leaves no half link there.
        """
        laid: list[str] = []
        verdict = self.correct(cables)
        for port in PORTS:
            if port.cage < cables:
                far = self.far(port, cables)
                if not verdict[HEAD.name, port.name]:
                    self._remove(port, [HEAD])
                    self._remove(far, [WORKER])
                    self._pair(HEAD, port, self.nodes[WORKER.name], far.name, far.mac(WORKER))
                    laid += [f"{HEAD.name}/{port.name}", f"{WORKER.name}/{far.name}"]
                self._up(port, [HEAD])
                self._up(far, [WORKER])
                continue
            for node in NODES:
                if not verdict[node.name, port.name]:
                    self._remove(port, [node])
                    self._pair(node, port, self.dark, dark_name(node, port), None)
                    laid.append(f"{node.name}/{port.name}")
                    self._up(port, [node])
        return tuple(laid)

    def _pair(self, node: Node, port: Port, far: Namespace, far_name: str, far_mac: str | None) -> None:
        near = ["name", port.name, "address", port.mac(node), "netns", self.nodes[node.name].name()]
        peer = ["name", far_name, *(["address", far_mac] if far_mac else []), "netns", far.name()]
        _run("ip", "link", "add", *near, "type", "veth", "peer", *peer)

    def _remove(self, port: Port, nodes: Sequence[Node]) -> None:
        """Pull the port's link, wherever its far end is; the pair goes as a whole."""
        for node in nodes:
            if port.name in links(self.nodes[node.name]):
                _run(*self.nodes[node.name].enter(), "ip", "link", "delete", port.name)
            if dark_name(node, port) in links(self.dark):
                _run(*self.dark.enter(), "ip", "link", "delete", dark_name(node, port))

    def _up(self, port: Port, nodes: Sequence[Node]) -> None:
        for node in nodes:
            state = links(self.nodes[node.name]).get(port.name)
            if state is not None and not state.admin_up:
                _run(*self.nodes[node.name].enter(), "ip", "link", "set", port.name, "up")


def dark_name(node: Node, port: Port) -> str:
    """The far end's name in the dark namespace, e.g. d1c1A."""
    return f"d{node.number}c{port.cage}{port.half}"


def ensure_dark(file: Path) -> Namespace:
    """The dark namespace, kept by a mount on `file` and by no process."""
    if not is_namespace(file):
        file.touch()
        _run("unshare", f"--net={file}", "true")
    return Namespace(file=file)


def is_namespace(file: Path) -> bool:
    """Whether a namespace is mounted on the file (a plain file is what an interrupted run leaves)."""
    return file.exists() and file.stat().st_dev != file.parent.stat().st_dev


def links(namespace: Namespace) -> dict[str, LinkState]:
    """Every link of a namespace with its global addresses, by name."""
    listed = json.loads(_run(*namespace.enter(), "ip", "-j", "-d", "addr"))
    found = {}
    for item in listed:
        flags = set(item.get("flags", ()))
        found[str(item["ifname"])] = LinkState(
            index=int(item["ifindex"]),
            peer_index=item.get("link_index"),
            admin_up="UP" in flags,
            carrier={"UP", "LOWER_UP"} <= flags,
            mtu=int(item["mtu"]),
            mac=str(item.get("address", "")),
            addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in item.get("addr_info", ()) if "local" in a),
        )
    return found


def _joined(near: LinkState | None, far: LinkState | None) -> bool:
    return near is not None and far is not None and near.peer_index == far.index and far.peer_index == near.index


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise NoVerdictError(f"`{' '.join(command)}` was not done after {_TIMEOUT_S} s") from late
    if done.returncode != 0:
        raise NoVerdictError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
