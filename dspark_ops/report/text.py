"""A report for people: one line per result, failures and their remedy repeated last, marks that need no colour."""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, TextIO

from dspark_ops.report.models import Change, Finding, Fix, Measurement, Phase, Report, Status, counts
from dspark_ops.report.roots import group_roots

MARKS: dict[Status, str] = {"ok": "[ok]", "warn": "[warn]", "fail": "[fail]", "skip": "[skip]", "unknown": "[ ? ]"}
_COLOURS: dict[Status, str] = {"ok": "32", "warn": "33", "fail": "31", "skip": "2", "unknown": "35"}
_MARK_WIDTH = 6
_WRAP = 116
_NAMES = 30
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PHASE_MARKS = {"done": "[ok]", "failed": "[fail]", "skipped": "[skip]"}


def wants_colour(stream: TextIO | None = None) -> bool:
    """True on a terminal that was not told otherwise (`NO_COLOR`, `TERM=dumb`)."""
    out = sys.stdout if stream is None else stream
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """The whole report as text, safe for a terminal. verbose: also what is ok, with what was seen."""
    report = _printable(report)
    blocks = [
        _nodes(report),
        "\n".join(phase_line(phase) for phase in report.phases),
        "\n".join(_change_lines(report.changes)),
        "\n".join(_measurement_lines(report.measurements)),
        "\n".join(_finding_lines(report.findings, colour=colour, verbose=verbose)),
        "\n".join(_repeat_lines(report.findings, colour=colour, verbose=verbose)),
        "\n".join(_fix_lines(report.fixes)),
        "\n".join(f"left behind: {item}" for item in report.left),
        _closing(report),
    ]
    return "\n\n".join(block for block in blocks if block)


def _printable(report: Report) -> Report:
    """The report without control characters but tab and line feed: a terminal acts on them."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _CONTROL.sub("\ufffd", value)
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, (list, tuple)) else value

    return Report.model_validate(clean(report.model_dump(by_alias=True)))


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
    """One line a check, by domain; a check that has the same to say of both nodes has one line for both."""
    width = max((len(f.id) for f in findings), default=0)
    lines: list[tuple[str, str]] = []
    for finding in _by_domain(findings):
        imitated = " (look-alike)" if finding.look_alike else ""
        ignored = " (ignored)" if finding.ignored else ""
        # What is not well is told in full below the table, unless nobody wants to hear of it.
        told = verbose or finding.status == "skip" or (finding.ignored and finding.status != "ok")
        text = f"{finding.title}: {finding.observed}" if told else finding.title
        before = f"{mark(finding.status, colour=colour)} "
        after = f" {finding.id:<{width}}  {text}{ignored}{imitated}"
        if finding.node == "worker" and lines and lines[-1] == (f"{before}{'head':<6}", after):
            lines[-1] = (f"{before}{'both':<6}", after)
        else:
            lines.append((f"{before}{finding.node:<6}", after))
    return [before + after for before, after in lines]


def _by_domain(findings: tuple[Finding, ...]) -> list[Finding]:
    """The findings with those of a domain together; else in their order."""
    domains = list(dict.fromkeys(f.id.split(".", 1)[0] for f in findings))
    return sorted(findings, key=lambda f: domains.index(f.id.split(".", 1)[0]))


def _repeat_lines(findings: tuple[Finding, ...], *, colour: bool, verbose: bool) -> list[str]:
    """What needs a person, the worst root cause first, each with the command to run; what follows from it, named.

    What many things follow from names them only with verbose; their lines are in the table in any case.
    """
    lines: list[str] = []
    for root in group_roots(findings):
        ignored = " (ignored)" if root.ignored else ""
        lines.append(f"{mark(root.status, colour=colour)} {root.id}: {root.title}{ignored}")
        lines += [f"       {f.node}: {f.observed}" + (f" [{f.evidence}]" if f.evidence else "") for f in root.findings]
        lines += [f"       expected: {text}" for text in root.expected]
        lines += [f"       remedy: {text}" for text in dict.fromkeys(r.text for r in root.remedies)]
        lines += [
            f"       $ {shell_line(command)}" for command in dict.fromkeys(r.command for r in root.remedies) if command
        ]
        followers = root.follower_line(names=None if verbose else _NAMES)
        if followers is not None:
            lines += textwrap.wrap(
                followers,
                _WRAP,
                initial_indent=" " * 7,
                subsequent_indent=" " * 9,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def _fix_lines(fixes: tuple[Fix, ...]) -> list[str]:
    """One line a finding that a fix was about: what became of it, by which action, or why nothing did."""
    width = max((len(f.id) for f in fixes), default=0)
    lines = []
    for fix in fixes:
        told = ": ".join(part for part in (f"by {fix.action}" if fix.action else None, fix.reason) if part)
        lines.append(f"{fix.outcome:<9} {fix.node:<6} {fix.id:<{width}}  {told}".rstrip())
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
