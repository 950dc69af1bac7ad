"""Listening TCP ports and who holds them."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Command("listeners.tcp", ("ss", "-H", "-tlnp"), root=True),)

_USER = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=(\d{1,9}),fd=\d+\)')
WILDCARDS = frozenset({"0.0.0.0", "*", "::"})  # noqa: S104


class ListenerFacts(Fact):
    """One listening socket. address has no zone and no brackets. process, pid: None when they were not shown."""

    address: str
    port: int
    process: str | None = None
    pid: int | None = None

    @property
    def on_all(self) -> bool:
        """It accepts on every interface."""
        return self.address in WILDCARDS


def parse_listeners(text: str | None) -> tuple[ListenerFacts, ...] | None:
    """The sockets in `ss -tlnp`, with or without its header line."""
    if text is None:
        return None
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 5 or words[0] != "LISTEN":
            continue
        host, _, port = words[3].rpartition(":")
        if not port.isdecimal() or len(port) > 5 or not host:
            continue
        user = _USER.search(line)
        found.append(
            ListenerFacts(
                address=host.strip("[]").split("%")[0].strip("[]"),
                port=int(port),
                process=user[1] if user else None,
                pid=int(user[2]) if user else None,
            )
        )
    return tuple(found)


def read_listeners(reading: NodeReading) -> tuple[ListenerFacts, ...] | None:
    """The sockets of a reading."""
    return parse_listeners(reading.get("listeners.tcp").text())
