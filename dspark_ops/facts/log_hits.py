"""Which known lines the rank's own log holds: how often, and when."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from dspark_ops.facts.log_signatures import marks
from dspark_ops.facts.model import Fact
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.transport.base import LogScan, NodeReading, Probe

ENGINE = "log.engine"
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d{0,6}(Z|[+-]\d\d:?\d\d)$")
# Of a node whose clock was not set yet, as the journal writes them: fewer digits, and always six behind the point.
_SECONDS = re.compile(r"(?:\d{9,11}(?:\.\d{1,9})?|\d{1,8}\.\d{6})$")


class LogLine(Fact):
    """One line as it was written, without its time stamp. at_s: by the node's clock, None when the stamp is no time."""

    at_s: float | None = None
    text: str


class LogHit(Fact):
    """A known line. signature: its id in checks/log_signatures.yml. lines: the first and the last ones, in order.

    resumes_at: the place in `lines` before which lines were left out; None where all are there.
    """

    signature: str
    count: int
    lines: tuple[LogLine, ...]
    resumes_at: int | None = None

    @property
    def last(self) -> LogLine:
        return self.lines[-1]


class LogFacts(Fact):
    """One log. cut: why it was not read to its end, then what was not seen may be there all the same; else None.

    from_s and until_s: the times of its first and last line. reached_s: how far it was read without a gap.
    """

    hits: tuple[LogHit, ...] = ()
    bytes_read: int = 0
    cut: str | None = None
    from_s: float | None = None
    until_s: float | None = None
    reached_s: float | None = None

    def hit(self, signature: str) -> LogHit | None:
        """The hit of a signature, or None when no line was seen."""
        return next((hit for hit in self.hits if hit.signature == signature), None)


def probes(container: str = RANK_CONTAINER) -> tuple[Probe, ...]:
    """The rank's log, bounded in time and size; of another container where a pair was set up by somebody else."""
    return (
        LogScan(
            ENGINE,
            ("docker", "logs", "--timestamps", container),
            marks("engine", "nccl"),
            tail_argv=("docker", "logs", "--timestamps", "--tail", "5000", container),
            root=True,
        ),
    )


def parse_scan(text: str | None) -> LogFacts | None:
    """The answer of a log scan; None when it is not one."""
    try:
        document = json.loads(text or "")
        found = document["marks"]
        hits = [_hit(str(name), seen) for name, seen in found.items()]
        size, cut = document["bytes"], document["cut"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(size, int):
        return None
    return LogFacts(
        hits=tuple(hit for hit in hits if hit is not None),
        bytes_read=size,
        cut=None if cut is None else str(cut),
        from_s=_time_of(document.get("from")),
        until_s=_time_of(document.get("until")),
        reached_s=_time_of(document.get("reached")),
    )


def _hit(name: str, seen: dict[str, Any]) -> LogHit | None:
    first, last = ([split_line(line) for line in seen[part] if isinstance(line, str)] for part in ("first", "last"))
    lines = (*first, *last)
    count = seen["count"]
    if not lines or not isinstance(count, int) or isinstance(count, bool):
        return None
    return LogHit(signature=name, count=count, lines=lines, resumes_at=len(first) if count > len(lines) else None)


def _time_of(line: object) -> float | None:
    return split_line(line).at_s if isinstance(line, str) else None


def split_line(line: str) -> LogLine:
    """The time and the text of a line of `docker logs --timestamps` or `journalctl -o short-unix`."""
    stamp, _, rest = line.rstrip("\r\n").partition(" ")
    at_s = parse_stamp(stamp)
    return LogLine(at_s=at_s, text=line.strip() if at_s is None else rest.strip())


def parse_stamp(stamp: str | None) -> float | None:
    """Unix seconds of `2026-11-23T17:21:24.058000000Z`, the same with a zone as `+01:00` or `+0100`, or of
    `1795479355.123456`; None for anything else."""
    if stamp is None:
        return None
    if _SECONDS.match(stamp):
        return float(stamp)
    told = _STAMP.match(stamp)
    if told is None:
        return None
    try:
        zone = "+0000" if told[3] == "Z" else told[3]
        moment = datetime.strptime(told[1] + zone, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None
    return moment.timestamp() + float(told[2] or 0)


def read_engine_log(reading: NodeReading) -> LogFacts | None:
    """The rank's log of a reading; None when there is no such container or the log could not be read."""
    return parse_scan(reading.get(ENGINE).text())
