"""Which vLLM server a node runs, in a container or outside of one, from its processes and its containers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dspark_ops.config.models import Role
from dspark_ops.doctor.foreign.command_line import ServerLine, read_argv, read_shell_text
from dspark_ops.doctor.foreign.model import FoundNode, FoundServer, Keeper
from dspark_ops.facts import docker_engine, processes
from dspark_ops.facts.docker_engine import ContainerRow
from dspark_ops.facts.processes import ProcessFacts
from dspark_ops.facts.rank import LABEL
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Command(
        "find.ps",
        ("docker", "ps", "-a", "--no-trunc", "--format", "{{json .}}"),
        root=True,
        timeout_s=docker_engine.ENGINE_TIMEOUT_S,
    ),
    *processes.PROBES,
)
_DOCKER = re.compile(r"(?:^|/)(?:docker[-/])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_PODMAN = re.compile(r"(?:^|/)libpod-(?:conmon-)?([0-9a-f]{64})")
_UNIT = re.compile(r"/([A-Za-z0-9:_.\\@-]+\.service)(?:/|$)")
_MANAGER = re.compile(r"user@\d+\.service|docker\.service|containerd\.service|ssh(?:d|@.*)?\.service")
_PROJECT = "com.docker.compose.project"


@dataclass(frozen=True)
class _Container:
    row: ContainerRow
    command: str


def find(role: Role, host: str, reading: NodeReading) -> FoundNode:
    """The server of one node. Of several the one that is a rank of a pair; none of them where that does not decide."""
    if not reading.reachable:
        return FoundNode(role=role, host=host, reachable=False, readable=False)
    table = processes.read_processes(reading)
    containers = _containers(reading.get("find.ps").text())
    if table is None and containers is None:
        return FoundNode(role=role, host=host, reachable=True, readable=False)
    users = processes.parse_users((reading.get("proc.users").files or {}).get("/etc/passwd"))
    found = list(_running(table or (), containers or {}, users))
    taken = {server.container for server in found}
    named = [
        server
        for item in (containers or {}).values()
        if item.row.id not in taken and (server := _by_command(item)) is not None
    ]
    alive = found + [server for server in named if server.running]
    chosen = _rank_of_pair(alive or named[:1])
    return FoundNode(
        role=role,
        host=host,
        reachable=True,
        server=chosen,
        others=tuple(server for server in alive if server is not chosen),
        ray=any(p.name.startswith(("raylet", "ray::")) for p in table or ()),
    )


def _rank_of_pair(servers: list[FoundServer]) -> FoundServer | None:
    """The only one, or the only one that was told of a second machine."""
    if len(servers) == 1:
        return servers[0]
    paired = [server for server in servers if server.nodes > 1]
    return paired[0] if len(paired) == 1 else None


def _running(
    table: tuple[ProcessFacts, ...], containers: Mapping[str, _Container], users: Mapping[int, str]
) -> Iterator[FoundServer]:
    by_pid = {process.pid: process for process in table}
    lines = {process.pid: line for process in table if (line := read_argv(process.argv)) is not None}
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.ppid, []).append(process.pid)
    for pid, line in lines.items():
        process = by_pid[pid]
        if process.ppid in lines:
            continue  # a child that has not taken a name of its own yet
        identity, podman = _container_of(process)
        item = None if podman else containers.get(identity or "")
        inside = [p.pid for p in table if identity is not None and _container_of(p)[0] == identity]
        keeper, place = _keeper(process, by_pid, item, podman=podman)
        yield _server(
            line,
            running=True,
            pid=pid,
            pids=tuple(sorted({*inside, *_below(pid, children)})),
            user=users.get(process.uid) if process.uid is not None else None,
            container=item.row.id if item else None,
            container_name=item.row.name if item else None,
            image=item.row.image if item else None,
            site=item.row.labels.get(LABEL + "site") if item else None,
            keeper=keeper,
            place=place,
        )


def _below(pid: int, children: Mapping[int, list[int]]) -> set[int]:
    found, waiting = set[int](), [pid]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += children.get(one, ())
    return found


def _container_of(process: ProcessFacts) -> tuple[str | None, bool]:
    """The id of the container that a process is in, and whether Podman keeps it."""
    for path in process.cgroups:
        docker, podman = _DOCKER.search(path), _PODMAN.search(path)
        if docker or podman:
            return (docker or podman)[1], docker is None  # type: ignore[index]
    return None, False


def _keeper(
    process: ProcessFacts, by_pid: Mapping[int, ProcessFacts], item: _Container | None, *, podman: bool
) -> tuple[Keeper, str | None]:
    if item is not None:
        project = item.row.labels.get(_PROJECT)
        return ("compose", project) if project else ("docker", item.row.name)
    if podman:
        return "podman", None
    above, seen = by_pid.get(process.ppid), set[int]()
    while above is not None and above.pid not in seen:
        seen.add(above.pid)
        name = (above.argv[0] if above.argv else above.name).rsplit("/", 1)[-1]
        if name.lower() == "screen":
            return "screen", None
        if name.startswith("tmux"):
            return "tmux", None
        above = by_pid.get(above.ppid)
    units = [unit for path in process.cgroups for unit in _UNIT.findall(path) if not _MANAGER.fullmatch(unit)]
    return ("systemd", units[-1]) if units else ("process", None)


def _by_command(item: _Container) -> FoundServer | None:
    """A container whose own command is a server: one that has ended, or whose process has given itself a title."""
    line = read_shell_text(item.command)
    if line is None:
        return None
    project = item.row.labels.get(_PROJECT)
    return _server(
        line,
        running=item.row.state == "running",
        container=item.row.id,
        container_name=item.row.name,
        image=item.row.image,
        site=item.row.labels.get(LABEL + "site"),
        keeper="compose" if project else "docker",
        place=project or item.row.name,
    )


def _unfolded(command: str) -> str:
    """A command as Docker quotes it, with its line ends as a shell takes them: a script of several lines has some."""

    def plain(match: re.Match[str]) -> str:
        return {"\\\\\\n": " ", "\\n": " ; ", "\\t": " ", "\\r": " "}.get(match[0], match[0])

    return re.sub(r"\\\\\\n|\\.", plain, command)


def _server(line: ServerLine, *, running: bool, **known: object) -> FoundServer:
    return FoundServer.model_validate(
        {
            "argv": line.argv,
            "running": running,
            "node_rank": line.node_rank,
            "nodes": line.nodes,
            "headless": line.headless,
            **known,
        }
    )


def _containers(text: str | None) -> dict[str, _Container] | None:
    """The containers by id, in the Engine's order, which is the newest first."""
    rows = docker_engine.parse_ps(text)
    if rows is None:
        return None
    commands: dict[str, str] = {}
    for line in (text or "").splitlines():
        try:
            document = json.loads(line)
            commands[str(document["ID"])] = _unfolded(str(document.get("Command") or "").strip('"'))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return {row.id: _Container(row, commands.get(row.id, "")) for row in rows}
