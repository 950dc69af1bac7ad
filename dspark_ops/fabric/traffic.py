"""Running perftest over rails: servers on one node, clients on the other, all of them bounded by their own end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from dspark_ops.config.models import Role
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts.listeners import parse_listeners
from dspark_ops.facts.perftest import PerftestFacts, parse_perftest
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.ssh import SshRunner

Program = Literal["ib_write_bw", "ib_write_lat"]
_LISTEN_WAIT_S = 20.0
_KILL_AFTER_S = 2
# How long beyond its own traffic a run may take: opening devices, exchanging keys, and a login on a slow machine.
_SLACK_S = 30.0
_LATENCY_MESSAGES = 1000


@dataclass(frozen=True)
class RailEndpoint:
    """One end of a rail, ready for traffic: its device, the index of its RoCE v2 GID, its address."""

    hca: str
    gid_index: int
    address: IPv4Address


@dataclass(frozen=True)
class RailPath:
    """A rail whose two ends were found. cage, half: of the head's device."""

    name: str
    head: RailEndpoint
    worker: RailEndpoint
    cage: int | None
    half: str | None
    soft: bool

    def of(self, role: Role) -> RailEndpoint:
        return self.head if role == "head" else self.worker


@dataclass(frozen=True)
class Load:
    """How much traffic. seconds: on hardware; messages: on soft-RoCE, whose emulated CPU cannot keep a time."""

    seconds: int
    size_bytes: int
    queue_pairs: int
    messages: int = 300


@dataclass(frozen=True)
class TrafficResult:
    """What one rail's client said. gbps, typical_us: None when it gave no number; then trouble says why."""

    rail: str
    gbps: float | None
    typical_us: float | None
    trouble: str | None
    facts: PerftestFacts | None


def command(program: Program, rail: RailPath, server: Role, role: Role, port: int, load: Load) -> tuple[str, ...]:
    """The command of one end. Both ends get the same numbers; the client also gets the server's address."""
    end, limit_s = rail.of(role), int(limit_seconds(load))
    words = ["timeout", "-k", str(_KILL_AFTER_S), str(limit_s), program, "-d", end.hca, "-i", "1"]
    words += ["-x", str(end.gid_index), "-F", "-p", str(port)]
    if program == "ib_write_lat":
        words += ["-s", "2", "-n", str(min(load.messages, 100) if rail.soft else _LATENCY_MESSAGES)]
        words += ["-u", "20"] if rail.soft else []
    elif rail.soft:
        # Shallow queues and a long retry time: on an emulated CPU the default depth loses packets.
        words += ["--report_gbits", "-s", str(load.size_bytes), "-n", str(load.messages), "-t", "8", "-u", "20"]
    else:
        words += ["--report_gbits", "-s", str(load.size_bytes), "-q", str(load.queue_pairs), "-D", str(load.seconds)]
    return (*words, str(rail.of(server).address)) if role != server else tuple(words)


def limit_seconds(load: Load) -> float:
    """When `timeout` ends a program that has not ended by itself: a server whose client never came, for one."""
    return load.seconds + _SLACK_S + _LISTEN_WAIT_S


def run_traffic(
    program: Program,
    rails: Sequence[RailPath],
    runners: dict[Role, SshRunner],
    *,
    server: Role,
    ports: Sequence[int],
    load: Load,
) -> tuple[TrafficResult, ...]:
    """Send over all given rails at once, from the other node to `server`. A run that fails is a result too.

    Raises:
        NoVerdictError: a node was lost meanwhile.
    """
    client: Role = "worker" if server == "head" else "head"
    limit_s = limit_seconds(load)
    serving, sending = (
        [
            Command(f"{program}.{rail.name}", command(program, rail, server, role, port, load), limit_s + 5, root=True)
            for rail, port in zip(rails, ports, strict=True)
        ]
        for role in (server, client)
    )
    sent: NodeReading | None = None
    with ThreadPoolExecutor(max_workers=1) as pool:
        served = pool.submit(runners[server].read, serving, timeout_s=limit_s + 30)
        try:
            silent = _await_listening(runners[server], served, ports)
            if silent is None:
                sent = runners[client].read(sending, timeout_s=limit_s + 30)
            answered = served.result() if silent is None or served.done() else None
        except BaseException:
            # Interrupted: end the session, so that nobody waits here for servers that `timeout` will end there.
            runners[server].close()
            raise
        if silent is not None and not served.done():
            # Its servers end there by `timeout`; nobody waits for them here.
            runners[server].close()
    for reading in (answered, sent):
        if reading is not None and not reading.reachable:
            raise _lost(reading)
    results = []
    for rail, probe in zip(rails, serving, strict=True):
        theirs = answered.get(probe.id) if answered is not None else None
        ours = sent.get(probe.id) if sent is not None else None
        results.append(_result(rail.name, client, server, ours, theirs, silent))
    return tuple(results)


def _lost(reading: NodeReading) -> NoVerdictError:
    return NoVerdictError(
        f"{reading.node}: lost during the traffic: {reading.error or 'not reached'}", hint=reading.hint
    )


def _await_listening(runner: SshRunner, served: Future[NodeReading], ports: Sequence[int]) -> str | None:
    """None as soon as every port is listened on; else why not: a server that ended, or the time that is over."""
    deadline = time.monotonic() + _LISTEN_WAIT_S
    missing = set(ports)
    while time.monotonic() < deadline:
        if served.done():
            return "the server ended before its client came"
        reading = runner.read([Command("perf.ports", ("ss", "-H", "-tln"))])
        if not reading.reachable:
            raise _lost(reading)
        missing -= {item.port for item in parse_listeners(reading.get("perf.ports").text()) or ()}
        if not missing:
            return None
        time.sleep(0.1)
    return f"no server listened on port {', '.join(map(str, sorted(missing)))} within {_LISTEN_WAIT_S:g} s"


def _result(
    rail: str, client: Role, server: Role, ours: ProbeResult | None, theirs: ProbeResult | None, silent: str | None
) -> TrafficResult:
    facts = _parse(ours)
    gbps = facts.average_gbps if facts else None
    typical_us = facts.typical_us if facts else None
    # A zero is not a measurement: perftest prints it for a run that moved nothing.
    ended_well = ours is not None and ours.ok and bool(gbps or typical_us)
    if ended_well:
        return TrafficResult(rail, gbps, typical_us, None, facts)
    said = [
        f"{role}: {text}"
        for role, text in ((server, _complaint(theirs)), (client, _complaint(ours)))
        if text is not None
    ]
    return TrafficResult(rail, None, None, "; ".join(said) or silent or "no result was printed", facts)


def _parse(result: ProbeResult | None) -> PerftestFacts | None:
    return None if result is None else parse_perftest(f"{result.stdout or ''}\n{result.stderr or ''}")


def _complaint(result: ProbeResult | None) -> str | None:
    """Why one end gave nothing, in its own words."""
    if result is None or result.ok:
        return None
    facts = _parse(result)
    if facts is not None and facts.trouble is not None:
        return facts.trouble
    if result.error is not None:
        return result.error
    if result.rc in (124, 137):
        return "ended by the time limit"
    last = ((result.stderr or "").strip() or (result.stdout or "").strip()).splitlines()
    return f"exit code {result.rc}" + (f": {last[-1].strip()[:200]}" if last else "")
