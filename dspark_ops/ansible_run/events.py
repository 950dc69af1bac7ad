"""What ansible-playbook said, typed: one TaskEvent per JSON line of our callback, and the summary of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from dspark_ops.config.models import ROLES, Role
from dspark_ops.report.models import Change

EventKind = Literal["play", "task", "ok", "changed", "skipped", "failed", "unreachable", "end"]


@dataclass(frozen=True)
class TaskEvent:
    """One event. `play` and `task` name what begins; the others are results of a task on a node."""

    kind: EventKind
    play: str | None = None
    task: str | None = None
    role: str | None = None
    node: Role | None = None
    item: str | None = None
    message: str | None = None
    diff: str | None = None
    summary: dict[str, Any] | None = None
    ignored: bool = False
    elapsed_s: float | None = None


@dataclass(frozen=True)
class TaskFailure:
    """A task that failed on a node; node None when the run itself failed. `play` is the play it belongs to."""

    node: Role | None
    task: str
    message: str
    play: str | None = None
    role: str | None = None


@dataclass(frozen=True)
class PlayResult:
    """One run of a playbook. rc 0 done, 2 failed, 4 unreachable, 124 over time, as ansible-playbook counts.

    changed: results with a change per node (under check mode: that would change). failures are in order of time.
    """

    rc: int
    changed: dict[Role, int]
    changes: tuple[Change, ...]
    failures: tuple[TaskFailure, ...]
    unreachable: tuple[Role, ...]
    elapsed_s: float
    log: Path
    plays: tuple[tuple[str, float], ...] = ()

    @property
    def ok(self) -> bool:
        return self.rc == 0

    @property
    def total_changed(self) -> int:
        return sum(self.changed.values())


def parse_event(line: str) -> tuple[TaskEvent, float] | None:
    """One line of the event file with its time, or None for a line that is not whole (the writer was killed)."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("kind") not in get_args(EventKind):
        return None
    node = raw.get("node")
    event = TaskEvent(
        kind=raw["kind"],
        play=_text(raw.get("play")),
        task=_text(raw.get("task")),
        role=_text(raw.get("role")),
        node=node if node in ROLES else None,
        item=_text(raw.get("item")),
        message=_text(raw.get("message")),
        diff=_text(raw.get("diff")),
        summary=raw.get("summary") if isinstance(raw.get("summary"), dict) else None,
        ignored=bool(raw.get("ignored", False)),
        elapsed_s=_seconds(raw.get("elapsed_s")),
    )
    return event, _seconds(raw.get("time")) or 0.0


def _text(value: object) -> str | None:
    """A string as it is, anything else but None as its JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _seconds(value: object) -> float | None:
    """A finite number, None for anything else: a line that is odd must not end a run."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None


@dataclass
class EventTail:
    """Reads whole lines that were appended to a file since the last call."""

    path: Path
    _offset: int = 0
    _rest: bytes = b""

    def read(self) -> Iterator[tuple[TaskEvent, float]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as source:
            source.seek(self._offset)
            data = source.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            parsed = parse_event(line.decode("utf-8", "replace"))
            if parsed is not None:
                yield parsed


@dataclass
class Tally:
    """Adds events up to what a PlayResult tells."""

    changed: dict[Role, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    changes: list[Change] = field(default_factory=list)
    failures: list[TaskFailure] = field(default_factory=list)
    unreachable: list[Role] = field(default_factory=list)
    starts: list[tuple[str, float]] = field(default_factory=list)
    last_time: float = 0.0
    ended: bool = False

    def add(self, event: TaskEvent, at: float) -> None:
        self.last_time = max(self.last_time, at)
        if event.kind == "play" and event.play:
            self.starts.append((event.play, at))
        elif event.kind == "end":
            self.ended = True
        if event.node is None:
            return
        if event.kind == "changed":
            self.changed[event.node] += 1
            self.changes.append(_change(event, event.node))
        elif event.kind == "failed" and not event.ignored:
            self.failures.append(self._failure(event))
        elif event.kind == "unreachable":
            self.unreachable.append(event.node)
            self.failures.append(self._failure(event))

    def play_seconds(self) -> tuple[tuple[str, float], ...]:
        """Each play with the seconds until the next one began (or the last event came)."""
        times = [at for _, at in self.starts] + [self.last_time]
        return tuple((name, round(max(0.0, times[i + 1] - at), 2)) for i, (name, at) in enumerate(self.starts))

    def _failure(self, event: TaskEvent) -> TaskFailure:
        return TaskFailure(
            node=event.node,
            task=_title(event),
            message=event.message or "the task failed and gave no reason",
            play=self.starts[-1][0] if self.starts else None,
            role=event.role,
        )


def _title(event: TaskEvent) -> str:
    name = event.task or "a task without a name"
    return f"{name} ({event.item})" if event.item else name


def _change(event: TaskEvent, node: Role) -> Change:
    summary = event.summary or {}
    return Change(
        node=node,
        what=str(summary.get("what") or _title(event)),
        before=_text(summary.get("before")),
        after=_text(summary.get("after")),
        diff=event.diff,
    )


def tally(events: Iterable[tuple[TaskEvent, float]]) -> Tally:
    """The sum of a whole stream."""
    total = Tally()
    for event, at in events:
        total.add(event, at)
    return total
