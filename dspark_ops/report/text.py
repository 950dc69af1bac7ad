"""A report for people: one line per result, failures and their remedy repeated last, marks that need no colour."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from typing import TextIO

from dspark_ops.report.models import Change, Finding, Measurement, Phase, Report, Status, counts

MARKS: dict[Status, str] = {"ok": "[ok]", "warn": "[warn]", "fail": "[fail]", "skip": "[skip]", "unknown": "[ ? ]"}
_COLOURS: dict[Status, str] = {"ok": "32", "warn": "33", "fail": "31", "skip": "2", "unknown": "35"}
_MARK_WIDTH = 6
_PHASE_MARKS = {"done": "[ok]", "failed": "[fail]", "skipped": "[skip]"}


def wants_colour(stream: TextIO | None = None) -> bool:
    """True on a terminal that was not told otherwise (`NO_COLOR`, `TERM=dumb`)."""
    out = sys.stdout if stream is None else stream
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """The whole report as text. verbose: also what is ok, with what was seen."""
    blocks = [
        _nodes(report),
        "\n".join(phase_line(phase) for phase in report.phases),
        "\n".join(_change_lines(report.changes)),
        "\n".join(_measurement_lines(report.measurements)),
        "\n".join(_finding_lines(report.findings, colour=colour, verbose=verbose)),
        "\n".join(_repeat_lines(report.findings, colour=colour)),
        "\n".join(f"left behind: {item}" for item in report.left),
        _closing(report),
    ]
    return "\n\n".join(block for block in blocks if block)


def mark(status: Status, *, colour: bool) -> str:
    """The mark of a status, padded to one width, coloured only where asked."""
    text = MARKS[status].ljust(_MARK_WIDTH)
    return f"\x1b[{_COLOURS[status]}m{text}\x1b[0m" if colour else text


def phase_line(phase: Phase) -> str:
    """One phase: mark, name, seconds now and the last time, detail."""
    last = "" if phase.last_s is None else f" (last time {phase.last_s:.1f} s)"
    detail = f"  {phase.detail}" if phase.detail else ""
    return f"{_PHASE_MARKS[phase.status].ljust(_MARK_WIDTH)} {phase.name:<24} {phase.elapsed_s:7.1f} s{last}{detail}"


def shell_line(command: Iterable[str]) -> str:
    """A command as it can be pasted into a shell."""
    return shlex.join(command)


def _nodes(report: Report) -> str:
    lines = []
    for node in report.nodes:
        if node.reachable:
            took = "" if node.round_trip_s is None else f" in {node.round_trip_s:.2f} s"
            lines.append(f"{node.role:<6} {node.host}: read{took}")
        else:
            lines.append(f"{node.role:<6} {node.host}: not reached: {node.error or 'no reason given'}")
    return "\n".join(lines)


def _change_lines(changes: Iterable[Change]) -> list[str]:
    lines = []
    for change in changes:
        told = change.before is not None or change.after is not None
        values = f": {change.before or 'absent'} -> {change.after or 'absent'}" if told else ""
        lines.append(f"{change.node:<6} {change.what}{values}")
        if change.diff:
            lines += ["    " + line for line in change.diff.rstrip("\n").split("\n")]
    return lines


def _measurement_lines(measured: tuple[Measurement, ...]) -> list[str]:
    """A table: one row a node and subject, one column a quantity with its unit; a gap is a number nobody took."""
    columns = list(dict.fromkeys((m.what, m.unit) for m in measured))
    rows = list(dict.fromkeys((m.node, m.subject) for m in measured))
    cells = {(m.node, m.subject, m.what, m.unit): "?" if m.value is None else f"{m.value:.4g}" for m in measured}
    if not rows:
        return []
    heads = [f"{what} {unit}" for what, unit in columns]
    table = [["", "", *heads], *([*row, *(cells.get((*row, *column), "") for column in columns)] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(table[0]))]
    left = 2
    lines = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
    notes = dict.fromkeys(m.note for m in measured if m.note)
    return [line.rstrip() for line in lines] + [f"  {note}" for note in notes]


def _finding_lines(findings: tuple[Finding, ...], *, colour: bool, verbose: bool) -> list[str]:
    width = max((len(f.id) for f in findings), default=0)
    lines = []
    for finding in findings:
        imitated = " (look-alike)" if finding.look_alike else ""
        # What is not well is told in full below the table.
        told = verbose or finding.status == "skip"
        text = f"{finding.title}: {finding.observed}" if told else finding.title
        lines.append(f"{mark(finding.status, colour=colour)} {finding.node:<6} {finding.id:<{width}}  {text}{imitated}")
    return lines


def _repeat_lines(findings: tuple[Finding, ...], *, colour: bool) -> list[str]:
    """What needs a person, root causes first, each with the command to run; what only follows from them, named."""
    needing = [f for status in ("fail", "unknown", "warn") for f in findings if f.status == status]
    roots: dict[tuple[str, Status], list[Finding]] = {}
    for finding in needing:
        if finding.caused_by is None:
            roots.setdefault((finding.id, finding.status), []).append(finding)
    lines: list[str] = []
    for (identity, status), group in roots.items():
        lines.append(f"{mark(status, colour=colour)} {identity}: {group[0].title}")
        lines += [f"       {f.node}: {f.observed}" + (f" [{f.evidence}]" if f.evidence else "") for f in group]
        lines += [f"       expected: {text}" for text in dict.fromkeys(f.expected for f in group) if text]
        remedies = [f.remedy for f in group if f.remedy is not None]
        lines += [f"       remedy: {text}" for text in dict.fromkeys(r.text for r in remedies)]
        lines += [
            f"       $ {shell_line(command)}" for command in dict.fromkeys(r.command for r in remedies) if command
        ]
    followers = [f for f in needing if f.caused_by is not None]
    for cause in dict.fromkeys(f.caused_by for f in followers):
        names = list(dict.fromkeys(f.id for f in followers if f.caused_by == cause))
        lines.append(f"       {len(names)} more follow from {cause}: {', '.join(names)}")
    return lines


def _closing(report: Report) -> str:
    totals = counts(report.findings)
    lines = []
    if report.findings:
        lines.append(", ".join(f"{number} {status}" for status, number in totals.items() if number))
    lines.append(f"{report.verdict}: {report.message}")
    if report.next_step:
        lines.append(f"next: {report.next_step}")
    return "\n".join(lines)
