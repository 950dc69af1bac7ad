"""The processes of the rank's container as the kernel lists them: what really runs, not what was asked for."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.releases.model import hide_argv
from dspark_ops.transport.base import NodeReading


class RankProcess(Fact):
    """One process. words: its command line, split at blanks as `ps` shows it, secrets hidden."""

    pid: int
    words: tuple[str, ...] = ()


def parse_processes(text: str | None) -> tuple[RankProcess, ...] | None:
    """`docker container top NAME -eo pid,pss,args`; None unless its header says that arguments follow."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    if not lines or lines[0].split()[:1] != ["PID"] or lines[0].split()[-1] not in ("COMMAND", "CMD", "ARGS"):
        return None
    found = []
    for line in lines[1:]:
        cells = line.split(None, 2)
        if len(cells) == 3 and cells[0].isascii() and cells[0].isdecimal() and len(cells[0]) < 11:
            found.append(RankProcess(pid=int(cells[0]), words=hide_argv(cells[2].split())))
    return tuple(found)


def read_processes(reading: NodeReading) -> tuple[RankProcess, ...] | None:
    """The processes of a reading; None when the container does not run or they could not be listed."""
    return parse_processes(reading.get("rank.memory").text())
