"""Keeps the phases of a running verb, says each as it runs, and makes the verb's one document at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Change, Finding, NodeReport, Phase, Report, Verdict, now
from dspark_ops.report.store import last_phase_seconds

Progress = Callable[[str], None]


@dataclass
class PhaseNote:
    """What a phase says of itself when it ends; set `skipped` for one that had nothing to do."""

    detail: str | None = None
    skipped: bool = False


@dataclass
class Recorder:
    """Collects what a verb does. `phase` times a step; `report` closes the record."""

    verb: str
    site: str
    progress: Progress
    nodes: tuple[NodeReport, ...] = ()
    phases: list[Phase] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    started_at: datetime = field(default_factory=now)
    _last: dict[str, float] | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[PhaseNote]:
        """Time one step and say so; a step that raises is recorded as failed."""
        last = self._last_s(name)
        self.progress(f"{name} ..." + ("" if last is None else f" (last time {last:.1f} s)"))
        note, began = PhaseNote(), time.monotonic()
        status: Literal["done", "failed", "skipped"] = "failed"
        try:
            yield note
            status = "skipped" if note.skipped else "done"
        finally:
            elapsed = round(time.monotonic() - began, 2)
            self.phases.append(Phase(name=name, status=status, elapsed_s=elapsed, detail=note.detail, last_s=last))
            self.progress(f"{name}: {status} after {elapsed:.1f} s" + (f": {note.detail}" if note.detail else ""))

    def report(
        self, verdict: Verdict, code: ExitCode, message: str, *, next_step: str | None = None, left: Sequence[str] = ()
    ) -> Report:
        """The document of all that was recorded."""
        return Report(
            verb=self.verb,
            site=self.site,
            started_at=self.started_at,
            finished_at=now(),
            verdict=verdict,
            exit_code=int(code),
            nodes=self.nodes,
            phases=tuple(self.phases),
            changes=tuple(self.changes),
            findings=tuple(self.findings),
            message=message,
            next_step=next_step,
            left=(*self.left, *left),
        )

    def _last_s(self, name: str) -> float | None:
        if self._last is None:
            self._last = last_phase_seconds(self.verb)
        return self._last.get(name)
