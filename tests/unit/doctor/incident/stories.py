"""Incidents as two nodes would answer: lines by the name of their signature, at seconds of one true time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.incident.gather import case_of
from dspark_ops.doctor.incident.model import Case, IncidentReport, SourceName
from dspark_ops.doctor.incident.report import report_on
from dspark_ops.facts.log_signatures import Where, marks
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.collector import Scan

LOGS = Path(__file__).parents[3] / "fixtures/logs"
#: True time zero of every story.
ZERO = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
LINES: dict[str, str] = {
    entry["signature"]: entry["line"]
    for entry in json.loads((LOGS / "known-lines.json").read_text(encoding="utf-8"))["lines"]
}
_WHERE: dict[SourceName, tuple[Where, ...]] = {
    "engine": ("engine", "nccl"),
    "kernel": ("kernel",),
    "journal": ("journal",),
}


@dataclass
class Told:
    """One node. Lines: (seconds, signature or text). clock_s: how far its clock is ahead. cut_at_s: read up to there.

    unread: logs that could not be read. end: (seconds, exit code, OOMKilled, ended in order) of the container.
    """

    engine: Sequence[tuple[float, str]] = ()
    kernel: Sequence[tuple[float, str]] = ()
    journal: Sequence[tuple[float, str]] = ()
    began_s: float = -60.0
    end: tuple[float, int, bool, bool] | None = None
    clock_s: float = 0.0
    uncertainty_s: float | None = 0.01
    image: str = "sha256:" + "a" * 64
    unread: Sequence[str] = ()
    cut_at_s: Mapping[str, float] = field(default_factory=dict)
    reachable: bool = True


def stamp(at_s: float, docker: bool) -> str:
    """The time stamp of a line, as Docker or the journal writes it."""
    moment = ZERO.timestamp() + at_s
    if not docker:
        return f"{moment:.6f}"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def log_text(lines: Sequence[tuple[float, str]], clock_s: float, *, docker: bool) -> str:
    """A log with these lines, in order, by a clock that is so far ahead."""
    return "".join(
        f"{stamp(at + clock_s, docker)} {LINES.get(text, text)}\n"
        for at, text in sorted(lines, key=lambda line: line[0])
    )


def scan_result(name: str, text: bytes, where: tuple[Where, ...], cut: str | None = None, reached: str = "") -> Any:
    """What the program on the node answers for a log."""
    scan = Scan([list(mark) for mark in marks(*where)], 40)
    scan.take(text, "", float("inf"))
    document = {"marks": scan.found, "bytes": len(text), "cut": cut, "from": scan.first, "until": scan.last}
    return ProbeResult(id=name, rc=0, stdout=json.dumps({**document, "reached": reached or scan.last}))


def reading(role: Role, told: Told) -> NodeReading:
    """What one node answers."""
    if not told.reachable:
        return NodeReading(node=role, reachable=False, error=f"{role}: no answer within 10 s")
    results: dict[str, ProbeResult] = {}
    for name, where in _WHERE.items():
        identity = f"incident.{name}"
        if name in told.unread:
            results[identity] = ProbeResult(id=identity, error="no answer")
            continue
        docker = name == "engine"
        text = log_text(getattr(told, name), told.clock_s, docker=docker).encode()
        at = told.cut_at_s.get(name)
        reached = "" if at is None else stamp(at + told.clock_s, docker)
        results[identity] = scan_result(identity, text, where, None if at is None else "time", reached)
    results["rank.inspect"] = ProbeResult(id="rank.inspect", rc=0, stdout=json.dumps([container(told)]))
    orderly = told.end is not None and told.end[3]
    log = "[shutdown] API server: shutdown triggered" if orderly else "INFO nothing"
    results["rank.tail"] = ProbeResult(id="rank.tail", rc=0, stdout=log)
    return NodeReading(
        node=role,
        reachable=True,
        clock_s=ZERO.timestamp() + 4000 + told.clock_s,
        clock_offset_s=None if told.uncertainty_s is None else told.clock_s,
        clock_uncertainty_s=told.uncertainty_s,
        results=results,
    )


def container(told: Told) -> dict[str, Any]:
    """`docker container inspect` of the rank."""
    state: dict[str, Any] = {"Status": "running", "StartedAt": stamp(told.began_s + told.clock_s, True)}
    if told.end is not None:
        at, code, oom, _ = told.end
        state = {
            **state,
            "Status": "exited",
            "ExitCode": code,
            "OOMKilled": oom,
            "FinishedAt": stamp(at + told.clock_s, True),
        }
    return {"Id": "c" * 64, "State": state, "Image": told.image, "Config": {"Labels": {}}, "HostConfig": {}}


def case(head: Told, worker: Told) -> Case:
    """The case of both."""
    told = {"head": head, "worker": worker}
    return case_of({role: reading(role, told[role]) for role in ROLES})


def tell(head: Told, worker: Told, *, since: datetime | None = None) -> IncidentReport:
    """What is said of it."""
    return report_on(case(head, worker), None, taken_at=ZERO, since=since)
