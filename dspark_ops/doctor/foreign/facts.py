"""The facts of a pair that another recipe set up: the found servers stand where the ranks of dspark-ops would."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Profile, Role, Site
from dspark_ops.doctor.foreign.command_line import read_argv
from dspark_ops.doctor.foreign.model import FoundNode, FoundPair, FoundServer
from dspark_ops.doctor.foreign.provisional import line_of
from dspark_ops.facts.rank import LABEL, RANK_CONTAINER, RankFacts, parse_env
from dspark_ops.facts.snapshot import NodeFacts, PairFacts, pair_from, probes_for
from dspark_ops.releases.effective import parse_environ, split_nul
from dspark_ops.transport.base import Command, Files, LogScan, NodeReading, Probe

PROCESS = "found.process"
# A login, a session, a terminal, and what recipes tell each node for their own shell to read.
_OF_A_SHELL = re.compile(
    r"(?:HOME|HOSTNAME|USER|LOGNAME|SHELL|MAIL|PWD|OLDPWD|SHLVL|_|TERM\w*|STY|WINDOW|TMUX\w*|LANG|LC_\w+|LS_\w+|LESS\w*"
    r"|XDG_\w+|DBUS_\w+|SSH_\w+|SUDO_\w+|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_\w+|NODE_RANK|HEADLESS|RANK|ROLE)$"
)
# Only of use to find the servers; the argument lists of everybody else are nobody's business afterwards.
_OF_THE_SEARCH = ("proc.", "init.", "find.")


def probes_after(
    site: Site, role: Role, server: FoundServer | None, *, active: Profile | None = None
) -> tuple[Probe, ...]:
    """What the doctor asks, of the found container instead of ours, and the found process as it was started."""
    asked: list[Probe] = []
    for probe in probes_for(site, role, active_profile=active):
        if isinstance(probe, Command | LogScan) and _names_rank(probe):
            if server is None or server.container is not None:
                asked.append(_of(probe, server.container if server and server.container else RANK_CONTAINER))
        else:
            asked.append(probe)
    if server is not None and server.pid is not None:
        paths = (f"/proc/{server.pid}/cmdline", f"/proc/{server.pid}/environ")
        asked.append(Files(PROCESS, paths, max_bytes=1 << 18, root=True))
    return tuple(asked)


def merge(first: NodeReading, second: NodeReading | None) -> NodeReading:
    """One reading of both round trips, without what served the search alone."""
    kept = {name: result for name, result in first.results.items() if not name.startswith(_OF_THE_SEARCH)}
    if second is None:
        return first.model_copy(update={"results": kept})
    if not second.reachable:
        return second
    return second.model_copy(
        update={"results": {**kept, **second.results}, "elapsed_s": first.elapsed_s + second.elapsed_s}
    )


def facts_from(pair: FoundPair, loaded: LoadedSite, readings: Mapping[Role, NodeReading]) -> PairFacts:
    """The facts of both nodes, with the found servers as the ranks."""
    read = pair_from(loaded.site, readings)
    nodes: dict[str, Any] = {
        role: _with_rank(read.of(role), pair.of(role), readings[role], loaded.site.name) for role in ROLES
    }
    return read.model_copy(update=nodes)


def with_image(loaded: LoadedSite, facts: PairFacts) -> LoadedSite:
    """The site with the image that the head's container runs, or the worker's: by id, as it was seen."""
    ids = [node.rank.image_id for node in facts.nodes if node.rank is not None and node.rank.image_id]
    if not ids or ids[0] == loaded.site.image.id:
        return loaded
    image = loaded.site.image.model_copy(update={"id": ids[0]})
    return dataclasses.replace(loaded, site=loaded.site.model_copy(update={"image": image}))


def _names_rank(probe: Command | LogScan) -> bool:
    words = (*probe.argv, *(probe.tail_argv if isinstance(probe, LogScan) else ()))
    return RANK_CONTAINER in words


def _of(probe: Command | LogScan, container: str) -> Probe:
    def renamed(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(container if word == RANK_CONTAINER else word for word in words)

    if isinstance(probe, LogScan):
        return dataclasses.replace(probe, argv=renamed(probe.argv), tail_argv=renamed(probe.tail_argv))
    return dataclasses.replace(probe, argv=renamed(probe.argv))


def _with_rank(node: NodeFacts, found: FoundNode, reading: NodeReading, site: str) -> NodeFacts:
    """The node with the found server as its rank; no server is no rank, and not known to be none is not known."""
    server = found.server
    if not reading.reachable or not found.readable or (server is None and found.others):
        return node.model_copy(update={"rank": None, "rank_known": False})
    if server is None:
        return node.model_copy(update={"rank": None, "rank_known": True})
    files = reading.get(PROCESS).files or {}
    argv = split_nul(files.get(f"/proc/{server.pid}/cmdline", ""))
    environ = files.get(f"/proc/{server.pid}/environ")
    lent = {f"{LABEL}site": site, f"{LABEL}role": found.role, f"{LABEL}release": "found", f"{LABEL}epoch": "found"}
    line = read_argv(argv) or line_of(server)
    told = server.argv if line is None else line.canonical()
    if server.container is None:
        if environ is None:
            return node.model_copy(update={"rank": None, "rank_known": False})
        rank = RankFacts(id=f"process {server.pid}", state="running", args=told, env=_env(environ), labels=lent)
    elif node.rank is None:
        return node.model_copy(update={"rank": None, "rank_known": False})
    else:
        known = {"labels": {**node.rank.labels, **lent}}
        running = {"args": told} | ({"env": _env(environ)} if environ is not None else {})
        rank = node.rank.model_copy(update=known | (running if server.running else {"args": told}))
    pids = server.pids or rank.pids
    return node.model_copy(update={"rank": rank.model_copy(update={"pids": pids}), "rank_known": True})


def _env(environ: str) -> dict[str, str]:
    """The variables that an engine or its libraries read, secrets hidden: not those of the shell that started it."""
    return parse_env(
        [f"{name}={value}" for name, value in parse_environ(environ).items() if not _OF_A_SHELL.match(name)]
    )
