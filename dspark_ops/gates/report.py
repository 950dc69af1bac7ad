"""A gate's run as the document of every verb, and its progress as a bar with the time left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dspark_ops.gates.outcome import BurstResult, GateVerdict, Judged, PartResult, RunResult
from dspark_ops.report.models import Finding, Measurement, Phase, Report, Status, Verdict, now
from dspark_ops.weights.meter import duration

# The report names so many bad answers; all of them are in the run's folder.
_NAMED = 20
_TOLD = 3
_BAR = 24
_EVERY_S = 15.0

_VERDICTS: dict[GateVerdict, Verdict] = {"pass": "ready", "review": "ready", "fail": "failed", "void": "indeterminate"}
_STATUSES: dict[GateVerdict, Status] = {"pass": "ok", "review": "warn", "fail": "fail", "void": "unknown"}


def report_of(
    result: RunResult,
    bursts: list[BurstResult],
    *,
    level: str,
    target: str,
    folder: str,
    started_at: datetime,
) -> Report:
    """The document of `gate LEVEL`. target: the site or the address that was asked."""
    return Report(
        verb=f"gate {level}",
        site=target,
        started_at=started_at,
        finished_at=now(),
        verdict=_VERDICTS[result.verdict],
        exit_code=int(result.exit_code),
        phases=tuple(
            Phase(name=part.name, status="done" if part.done else "failed", elapsed_s=part.elapsed_s, detail=part.why)
            for part in result.parts
        ),
        findings=(
            _verdict_finding(result, level, folder),
            *(_part_finding(part, folder) for part in result.parts),
            *_doubts(result),
            *_engine(result),
            *_answers(result.bad, "fail", folder),
            *_answers(result.reviews, "warn", folder),
        ),
        measurements=_measurements(result, bursts),
        message=result.message,
        next_step=result.next_step,
    )


def _verdict_finding(result: RunResult, level: str, folder: str) -> Finding:
    return Finding(
        id="gate.verdict",
        node="pair",
        status=_STATUSES[result.verdict],
        title=f"{level} gate: {result.verdict}",
        observed=result.message,
        expected="no bad answer, shown from cold requests" if result.verdict in ("fail", "void") else None,
        evidence=folder,
    )


def _part_finding(part: PartResult, folder: str) -> Finding:
    if not part.asked and part.done:
        return Finding(
            id=f"gate.{part.name}", node="pair", status="skip", title=part.title, observed=part.why or "nothing asked"
        )
    status: Status = "fail" if part.bad else "unknown" if not part.done else "warn" if part.reviews else "ok"
    observed = f"{part.bad} of {part.asked} requests bad, {part.reviews} to look at"
    if part.why:
        observed = f"{observed}; {part.why}"
    return Finding(
        id=f"gate.{part.name}",
        node="pair",
        status=status,
        title=part.title,
        observed=observed,
        expected="none bad",
        caused_by=None if status in ("ok", "warn") else "gate.verdict",
        evidence=folder,
    )


def _doubts(result: RunResult) -> list[Finding]:
    return [
        Finding(
            id=f"gate.proof.{doubt.code}",
            node="pair",
            status="unknown",
            title="the proof that it was cold, concurrent and alone",
            observed=doubt.observed,
            expected=doubt.expected,
            caused_by="gate.verdict",
        )
        for doubt in {doubt.code: doubt for doubt in reversed(result.doubts)}.values()
    ]


def _engine(result: RunResult) -> list[Finding]:
    """The engine's own count of corrupt answers, where it keeps one."""
    if not result.engine:
        return []
    return [
        Finding(
            id="gate.engine",
            node="pair",
            status="fail",
            title="what the engine counts as corrupt",
            observed="; ".join(dict.fromkeys(reason.observed for reason in result.engine)),
            expected=result.engine[0].expected,
            caused_by="gate.verdict" if result.verdict == "fail" else None,
        )
    ]


def _answers(judged: tuple[Judged, ...], status: Status, folder: str) -> list[Finding]:
    found = [
        Finding(
            id=f"gate.answer.{one.name.replace('/', '.')}",
            node="pair",
            status=status,
            title=f"{one.kind} answer {one.name}",
            observed="; ".join(f"{reason.code}: {reason.observed}" for reason in one.reasons) or "no reason kept",
            expected="; ".join(reason.expected for reason in one.reasons) or None,
            severity="advised" if status == "warn" else "required",
            # The first few are told in full, the others by name.
            caused_by="gate.verdict" if status == "fail" and place >= _TOLD else None,
            evidence=folder,
        )
        for place, one in enumerate(judged[:_NAMED])
    ]
    if len(judged) > _NAMED:
        found.append(
            Finding(
                id="gate.answer.more",
                node="pair",
                status=status,
                title="more answers like these",
                observed=f"{len(judged) - _NAMED} more are in the run's folder",
                caused_by="gate.verdict" if status == "fail" else None,
                evidence=folder,
            )
        )
    return found


def _measurements(result: RunResult, bursts: list[BurstResult]) -> tuple[Measurement, ...]:
    found: list[Measurement] = []

    def measured(subject: str, what: str, value: float | None, unit: str, note: str | None = None) -> None:
        shown = None if value is None else round(value, 4)
        found.append(Measurement(node="pair", subject=subject, what=what, value=shown, unit=unit, note=note))

    if result.bound is not None:
        bound = result.bound
        note = "upper: one-sided 95 % by Clopper and Pearson"
        if bound.bursts != bound.requests:
            measured("bursts", "bad", bound.bad_bursts, "", note)
            measured("bursts", "of", bound.bursts, "")
            measured("bursts", "upper", 100 * bound.bursts_upper, "%")
        measured("requests", "bad", bound.bad_requests, "", note)
        measured("requests", "of", bound.requests, "")
        measured("requests", "upper", 100 * bound.requests_upper, "%")
    first = [one.ttft_s for burst in bursts for one in burst.judged if one.ttft_s is not None]
    if first:
        measured("cold requests", "TTFT median", statistics.median(first), "s")
        measured("cold requests", "TTFT most", max(first), "s")
    return tuple(found)


def bar_line(done: int, total: int, text: str, elapsed_s: float) -> str:
    """One line: the bar, how many, the time left by the pace so far, what is done."""
    share = min(1.0, done / total) if total else 0.0
    filled = round(share * _BAR)
    left = f"{duration(elapsed_s / done * (total - done))} left" if 0 < done < total else ""
    parts = (f"[{'#' * filled}{'.' * (_BAR - filled)}]", f"{done} of {total}", left, text)
    return "  ".join(part for part in parts if part)


@dataclass
class Bar:
    """Draws the line again in place on a terminal, and says it now and then elsewhere. write: takes text as it is."""

    write: Callable[[str], None]
    in_place: bool
    clock: Callable[[], float] = time.monotonic
    _began: float | None = None
    _said: float = field(default=float("-inf"))
    _total: int = 0
    _done: int = 0

    def say(self, done: int, total: int, text: str) -> None:
        """The state now. A new count (done falls back) has a pace of its own."""
        moment = self.clock()
        if self._began is None or done < self._done:
            self._began = moment
        self._done, self._total = done, total
        line = bar_line(done, total, text, moment - self._began)
        if self.in_place:
            self.write(f"\r\x1b[2K{line[:160]}")
        elif moment - self._said >= _EVERY_S or done >= total:
            self._said = moment
            self.write(line + "\n")

    def end(self) -> None:
        """Leave the line."""
        if self.in_place and self._began is not None:
            self.write("\r\x1b[2K")
