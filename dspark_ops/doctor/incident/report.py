"""From a case to the document: the verdict, the remedy, the exit code, and the text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.doctor.engine import fill_command
from dspark_ops.doctor.incident.judge import judge, ordered
from dspark_ops.doctor.incident.model import Case, Cause, Clock, Event, IncidentReport, Source, Verdict
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.log_signatures import load_signatures
from dspark_ops.report.models import Remedy
from dspark_ops.report.text import shell_line

_EXITS: dict[Verdict, ExitCode] = {
    "cause": ExitCode.VERDICT_BAD,
    "not-known": ExitCode.NO_VERDICT,
    "nothing": ExitCode.OK,
    "indeterminate": ExitCode.NO_VERDICT,
}
#: Lines of the timeline, in the document and on the screen.
TIMELINE, SHOWN = 400, 40
_FOLLOWED, _WIDTH = 12, 116
#: What Docker says of the log of a container that is not there.
_NO_CONTAINER = "No such container"


def report_on(
    case: Case,
    loaded: LoadedSite | None,
    *,
    taken_at: datetime,
    since: datetime | None = None,
    replayed_from: str | None = None,
) -> IncidentReport:
    """Judge the case and tell of it. since: what happened earlier is left out."""
    if since is not None:
        begin = since.timestamp()
        case = case.model_copy(update={"events": tuple(e for e in case.events if e.at_s is None or e.at_s >= begin)})
    found = judge(case)
    unread = [
        source for source in case.sources if source.problem is not None and source.name in ("engine", "container")
    ]
    cut = [source for source in case.sources if source.cut is not None]
    first = found.causes[0] if found.causes else None
    cause, nearest = (first, None) if found.known else (None, first)
    verdict: Verdict = "cause" if cause else "not-known"
    if cause is None and (found.stopped or not found.symptoms):
        verdict = "indeterminate" if unread or cut else "nothing"
    sign = next(iter(found.symptoms), None) if verdict == "not-known" and nearest is None else None
    followed = [e for e in found.symptoms if cause is not None and e.signature != cause.signature]
    return IncidentReport(
        site=None if loaded is None else loaded.site.name,
        taken_at=taken_at,
        replayed_from=replayed_from,
        since=since,
        verdict=verdict,
        exit_code=int(_EXITS[verdict]),
        message=_message(verdict, cause, nearest, sign, stopped=found.stopped, unread=[*unread, *cut]),
        cause=None if cause is None else _with_remedy(cause, loaded),
        others=tuple(_with_remedy(other, loaded) for other in found.causes[1:]),
        nearest=None if nearest is None else _with_remedy(nearest, loaded),
        first_sign=sign,
        followed=tuple(_firsts(followed)[:_FOLLOWED]),
        earlier=found.earlier,
        clocks=case.clocks,
        sources=case.sources,
        timeline=tuple(ordered(case.events)[-TIMELINE:]),
    )


def _firsts(events: Sequence[Event]) -> list[Event]:
    """Of every kind of line and node the first one."""
    first: dict[tuple[str, Role], Event] = {}
    for event in events:
        first.setdefault((event.signature, event.node), event)
    return list(first.values())


def _message(
    verdict: Verdict,
    cause: Cause | None,
    nearest: Cause | None,
    sign: Event | None,
    *,
    stopped: bool,
    unread: Sequence[Source],
) -> str:
    if cause is not None:
        return f"first cause: {name_of(cause)} on the {' and the '.join(cause.nodes)}: {cause.means}"
    if verdict == "not-known":
        if nearest is not None:
            return f"the first cause is not known; nearest to it is {name_of(nearest)}: {nearest.means}"
        told = "" if sign is None else f"; the first of them, on the {sign.node}: {sign.means}"
        return f"the first cause is not known: only lines that follow from something else were found{told}"
    if stopped and verdict == "nothing":
        return "no incident: the pair was asked to stop"
    if verdict == "indeterminate":
        gaps = ", ".join(f"{source.name} log of the {source.node}" for source in unread)
        if stopped:
            return f"the pair was asked to stop; what else there was is not known, not everything could be read: {gaps}"
        lost = [source for source in unread if source.name == "engine" and _NO_CONTAINER in (source.problem or "")]
        if len(lost) == len(ROLES):
            return "no sign of a failure was seen, but no rank's container is there and its log went with it"
        return f"no sign of a failure was seen, and not everything could be read: {gaps}"
    return "no sign of a failure in either rank's log"


def name_of(cause: Cause) -> str:
    """The catalogue's id of a cause, or the known failure's, or the line's own."""
    return cause.check or next(iter(cause.known), cause.signature)


def _with_remedy(cause: Cause, loaded: LoadedSite | None) -> Cause:
    check = load_catalogue().get(cause.check) if cause.check is not None else None
    if check is None:
        return cause
    command = check.remedy.command
    if command is not None:
        site = "site.yml" if loaded is None else str(loaded.path)
        host = "NODE" if loaded is None else loaded.site.nodes.of(cause.nodes[0]).host
        config: Path | None = None if loaded is None else loaded.site.ssh.config
        command = fill_command(command, site=site, host=host, ssh_config=config)
    remedy = Remedy(text=check.remedy.text.strip(), command=command, remedy_class=check.remedy.remedy_class)
    return cause.model_copy(update={"remedy": remedy})


def render(report: IncidentReport, *, verbose: bool = False) -> str:
    """The report for people: the cause, what followed, how sure and why, what to do; then the timeline."""
    blocks = [_head(report), *(_also(cause) for cause in report.others), _limits(report)]
    # The doctor's own looks are logins too, so that they would push everything else off the screen.
    told = [event for event in report.timeline if verbose or event.signature != "login"]
    blocks += [_timeline(told, len(told) if verbose else SHOWN), report.message]
    return "\n\n".join(block for block in blocks if block)


def _head(report: IncidentReport) -> str:
    lines = []
    if report.replayed_from is not None:
        lines.append(f"replayed from {report.replayed_from}, nothing was contacted")
    cause = report.cause or report.nearest
    if cause is None:
        return "\n".join(lines)
    lines.append(f"first cause: {cause.means}" if report.cause else "first cause: not known")
    if report.cause is None:
        lines.append(f"  nearest to it: {cause.means}")
    known = f" [{', '.join(cause.known)}]" if cause.known else ""
    lines.append(f"  {' and '.join(cause.nodes)}, {_moment(cause.at_s)}, {name_of(cause)}{known}")
    lines.append(f"  > {_cut(_telling(cause.line, cause.signature))}")
    if report.followed:
        lines.append("what followed:")
        lines += [f"  {_after(event, cause):>9}  {event.node:<6} {event.means}" for event in report.followed]
    lines.append(
        f"how sure: {cause.confidence if report.cause else 'not enough to name it'}; {'; '.join(cause.because)}"
    )
    lines += _what_to_do(cause)
    if report.earlier:
        lines.append(f"{report.earlier} earlier failure{'s are' if report.earlier > 1 else ' is'} in the same logs")
    return "\n".join(lines)


def _what_to_do(cause: Cause) -> list[str]:
    if cause.remedy is None:
        return []
    lines = [f"what to do: {cause.remedy.text}"]
    if cause.remedy.command is not None:
        lines.append(f"  $ {shell_line(cause.remedy.command)}")
    return lines


def _also(cause: Cause) -> str:
    where = f"{' and '.join(cause.nodes)}, {_moment(cause.at_s)}, {name_of(cause)}"
    return "\n".join(
        [
            f"another cause, which does not follow from it: {cause.means}",
            f"  {where}",
            f"  > {_cut(_telling(cause.line, cause.signature))}",
        ]
    )


def _limits(report: IncidentReport) -> str:
    lines = []
    for source in report.sources:
        if source.problem is not None:
            lines.append(f"not read: {source.name} of the {source.node}: {_cut(source.problem)}")
        elif source.cut is not None:
            lines.append(f"not read to its end: {source.name} of the {source.node} ({source.cut})")
    lines.append(_clock_line(report.clocks))
    return "\n".join(lines)


def _clock_line(clocks: Sequence[Clock]) -> str:
    told: Mapping[str, Clock] = {clock.node: clock for clock in clocks}
    if any(clock.offset_s is None or clock.uncertainty_s is None for clock in clocks) or not clocks:
        return "clocks: not compared; times are each node's own"
    parts = [
        f"{node} {clock.offset_s or 0.0:+.3f} s (+/- {clock.uncertainty_s or 0.0:.3f})" for node, clock in told.items()
    ]
    return f"clocks against this machine's, taken into account: {', '.join(parts)}"


def _timeline(events: Sequence[Event], limit: int) -> str:
    rows = _rows(events)
    shown = rows[-limit:]
    if not shown:
        return ""
    marks = {"root": "!", "secondary": "~", "context": " "}
    first = f"the last {len(shown)} of {len(rows)} lines; " if len(shown) < len(rows) else ""
    lines = [f"timeline ({first}UTC; ! can be a cause, ~ follows from something)"]
    for event, times in shown:
        often = f" ({times} lines)" if times > 1 else ""
        lines.append(
            f"{marks[event.kind]} {_moment(event.at_s)} {event.node:<6} {event.source:<9} {event.means}{often}"
        )
    return "\n".join(lines)


def _rows(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """The events with how often each is said in a row."""
    rows: list[tuple[Event, int]] = []
    for event in events:
        if rows and (rows[-1][0].signature, rows[-1][0].node) == (event.signature, event.node):
            rows[-1] = (rows[-1][0], rows[-1][1] + 1)
        else:
            rows.append((event, 1))
    return rows


def _telling(line: str, signature: str) -> str:
    """The line from shortly before the words by which it is known, where they would be cut off."""
    at = line.find(load_signatures()[signature].words or "")
    return line if at < _WIDTH // 2 else "... " + line[at - 20 :]


def _moment(at_s: float | None) -> str:
    if at_s is None:
        return "time not told"
    try:
        return datetime.fromtimestamp(at_s, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "")
    except (OverflowError, OSError, ValueError):
        return "time not told"


def _after(event: Event, cause: Cause) -> str:
    if event.at_s is None or cause.at_s is None:
        return "?"
    return f"{event.at_s - cause.at_s:+.1f} s"


def _cut(line: str) -> str:
    printable = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return printable if len(printable) <= _WIDTH else printable[: _WIDTH - 4] + " ..."
