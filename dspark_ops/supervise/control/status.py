"""What the supervisor says of itself, for `supervise status` and as one line of `status`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.load import LoadedSite
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.supervisor import SupervisorFacts
from dspark_ops.supervise.control.document import kept_site, read_told, refuse_another
from dspark_ops.supervise.control.reading import look_at_supervisor, require_reached, status_document

#: Its loop goes round once a second; systemd ends it after a minute without.
STALE_S = 60.0


class SupervisorStatus(BaseModel):
    """The supervisor of a site. keeps: what it was told to keep. document: its own words, whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/supervise-status/v1"] = Field(default="dspark-ops/supervise-status/v1", alias="schema")
    site: str
    supervisor: SupervisorFacts
    keeps: str | None
    document: dict[str, Any] | None
    exit_code: int


def supervisor_status(loaded: LoadedSite) -> SupervisorStatus:
    """Read the head once.

    Raises:
        NoVerdictError: the head cannot be reached, or there is no supervisor.
        RefusedError: it keeps another site.
    """
    reading, seen = look_at_supervisor(loaded)
    require_reached(reading, seen)
    refuse_another(loaded.site.name, kept_site(seen))
    told = read_told(seen.config)
    return SupervisorStatus(
        site=loaded.site.name,
        supervisor=seen,
        keeps=told.adopted.words() if told is not None else None,
        document=status_document(reading) if seen.answers else None,
        exit_code=int(verdict(seen, told.adopted.wanted if told is not None else None)),
    )


def verdict(seen: SupervisorFacts, wanted: str | None) -> ExitCode:
    """0: it serves, or nothing is wanted. 3: it cannot be asked, or what it says is not of now."""
    if not seen.answers or seen.state is None or _stale(seen):
        return ExitCode.NO_VERDICT
    if seen.state == "serving" or (wanted == "stopped" and seen.latched is None):
        return ExitCode.OK
    return ExitCode.VERDICT_BAD


def _stale(seen: SupervisorFacts) -> bool:
    return seen.step_age_s is None or seen.step_age_s > STALE_S


def lines_of(seen: SupervisorFacts, site: str) -> list[str]:
    """For people who ask about a site: its state and why, who holds it, what a person should know."""
    if seen.installed is None:
        return [f"supervisor: unknown: {seen.problem}"]
    if not seen.installed:
        return []
    if not seen.answers:
        return [
            f"supervisor: installed, and it does not answer: {seen.problem}",
            "  nobody may keep the pair now; next: dspark-ops supervise resume",
        ]
    keeps = kept_site(seen)
    if keeps is not None and keeps != site:
        return [f"supervisor: the one on the head keeps another site, {keeps!r}; next: use that site's file"]
    for_s = "" if seen.since_s is None else f" for {_span(seen.since_s)}"
    epoch = "" if seen.epoch is None else f", epoch {seen.epoch[:12]}"
    lines = [f"supervisor: {seen.state}{for_s}{epoch}" + (f": {seen.reason}" if seen.reason else "")]
    if _stale(seen):
        age = "has not looked at the pair yet" if seen.step_age_s is None else f"looked {_span(seen.step_age_s)} ago"
        lines.append(f"  it {age}: this is what it knew before")
    lines += [f"  waits until {text}" for text in seen.waits_for]
    if seen.latched is not None:
        lines.append(f"  it gave up: {seen.latched}; next: dspark-ops supervise resume")
    if seen.hold is not None:
        left = "" if seen.hold.left_s is None else f", for {_span(seen.hold.left_s)} more"
        lines.append(f"  held by {seen.hold.owner}: {seen.hold.reason}{left}")
    return [*lines, *(f"  alert: {text}" for text in seen.alerts)]


def render(status: SupervisorStatus) -> str:
    """The text for people."""
    lines = [f"site {status.site}", *lines_of(status.supervisor, status.site)]
    if status.keeps is not None:
        lines.append(f"  keeps {status.keeps}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
