"""The do-not-fragment ping of each rail: the active proof that 9000 bytes pass."""

from __future__ import annotations

import re

from dspark_ops.config.models import Role, Site
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

_PING = ("ping", "-n", "-M", "do", "-c", "2", "-i", "0.2", "-W", "1")
_HEADERS = 28  # IPv4 20 + ICMP 8
_COUNTS = re.compile(r"(\d{1,9}) packets transmitted, (\d{1,9}) received")
_RTT = re.compile(r"rtt min/avg/max/mdev = (\d{1,7}\.\d{1,6})/(\d{1,7}\.\d{1,6})/")
_LOCAL = re.compile(r"message too long, mtu[=:]? ?(\d{1,6})")


class JumboFacts(Fact):
    """One ping over one rail. local_mtu: what the own kernel said when the packet did not even leave.

    rtt_min_ms, rtt_avg_ms: of the answers; None without one. The first answer also waits for the neighbour's address.
    """

    rail: str
    sent: int | None = None
    received: int | None = None
    local_mtu: int | None = None
    rtt_min_ms: float | None = None
    rtt_avg_ms: float | None = None


def probes(site: Site, role: Role) -> tuple[Probe, ...]:
    """One ping a rail, of the site's MTU, bound to the rail's own device, to the other end."""
    peer: Role = "worker" if role == "head" else "head"
    size = str(site.fabric.mtu - _HEADERS)
    return tuple(
        Command(
            f"jumbo.{rail.name}",
            (*_PING, "-s", size, "-I", rail.of(role).netdev, str(rail.of(peer).address.ip)),
            timeout_s=6.0,
        )
        for rail in site.fabric.rails
    )


def parse_ping(rail: str, stdout: str | None, stderr: str | None = None) -> JumboFacts:
    """The counts of a `ping`; None where it printed none."""
    text = f"{stdout or ''}\n{stderr or ''}"
    counts, local, rtt = _COUNTS.search(text), _LOCAL.search(text), _RTT.search(text)
    return JumboFacts(
        rail=rail,
        sent=int(counts[1]) if counts else None,
        received=int(counts[2]) if counts else None,
        local_mtu=int(local[1]) if local else None,
        rtt_min_ms=float(rtt[1]) if rtt else None,
        rtt_avg_ms=float(rtt[2]) if rtt else None,
    )


def read_jumbo(reading: NodeReading) -> tuple[JumboFacts, ...] | None:
    """The pings of a reading; None when none was asked for."""
    found = tuple(
        parse_ping(name.removeprefix("jumbo."), result.stdout, result.stderr)
        for name, result in reading.results.items()
        if name.startswith("jumbo.")
    )
    return found or None
