"""The supervisor on the head, as its unit, its configuration and its status port tell; None is what was not read."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from pydantic import Field

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, Http, NodeReading, Probe

UNIT_FILE: Final = "/etc/systemd/system/dspark-supervisor.service"
CONFIG: Final = "/etc/dspark/supervise.json"
STATE: Final = "/var/lib/dspark/supervise/state.json"
STATUS_URL: Final = "http://127.0.0.1:8017/status"
SCHEMA: Final = "dspark-ops/supervise/v1"

PROBES: tuple[Probe, ...] = (
    Files("supervise.files", (UNIT_FILE, CONFIG), max_bytes=1 << 20, root=True),
    Files("supervise.ran", (STATE,), max_bytes=64, root=True),
    Http("supervise.status", STATUS_URL, timeout_s=3.0),
)


class HoldFacts(Fact):
    """The hold. owner: who took it. left_s: seconds until it ends by itself; None when it does not say."""

    reason: str
    owner: str
    left_s: float | None = None
    drain: bool = False


class SupervisorFacts(Fact):
    """What the head tells of it.

    installed: whether its unit is there; None when that could not be read. answers: whether its status port gave our
    document; problem: why not. ran: whether it has ever run; not after an installation that was cut off before that.
    step_age_s: seconds since its loop last went round; None when it has not yet, so that
    the rest is from before its start. site, state, since_s (seconds in it), reason, epoch, release, wanted: its
    own words.
    config: its configuration as text, which may hold the environment of the ranks: never shown, never kept.
    """

    installed: bool | None = None
    answers: bool = False
    ran: bool | None = None
    problem: str | None = None
    site: str | None = None
    step_age_s: float | None = None
    state: str | None = None
    since_s: float | None = None
    reason: str | None = None
    epoch: str | None = None
    release: str | None = None
    wanted: str | None = None
    latched: str | None = None
    waits_for: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    hold: HoldFacts | None = None
    config: str | None = Field(default=None, repr=False, exclude=True)


ABSENT: Final = SupervisorFacts(installed=False)


def read_supervisor(reading: NodeReading) -> SupervisorFacts:
    """The supervisor of the head's reading."""
    files = reading.get("supervise.files")
    if files.error is not None or files.files is None:
        why = files.error or "its unit could not be looked for"
        return SupervisorFacts(problem=why)
    if UNIT_FILE not in files.files:
        return ABSENT
    config = files.files.get(CONFIG)
    status = reading.get("supervise.status")
    document = _document(status.text())
    kept = reading.get("supervise.ran").files
    ran = None if kept is None else STATE in kept
    if document is None:
        said = status.error or (f"HTTP {status.rc}" if not status.ok else "an answer that is not its status")
        return SupervisorFacts(installed=True, ran=ran, problem=f"{STATUS_URL} on the head: {said}", config=config)
    return SupervisorFacts(
        installed=True,
        answers=True,
        ran=ran,
        config=config,
        site=_text(document.get("site")),
        step_age_s=_number(document.get("step_age_s")),
        state=_text(document.get("state")),
        since_s=_number(document.get("since_s")),
        reason=_text(document.get("reason")),
        epoch=_text(document.get("epoch")),
        release=_text(document.get("release")),
        wanted=_text(document.get("wanted")),
        latched=_text(document.get("latched")),
        waits_for=_texts(document.get("waits_for")),
        alerts=_texts(document.get("alerts")),
        hold=_hold(document.get("hold")),
    )


def _document(text: str | None) -> dict[str, Any] | None:
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("schema") == SCHEMA else None


def _hold(value: object) -> HoldFacts | None:
    if not isinstance(value, dict):
        return None
    return HoldFacts(
        reason=str(value.get("reason") or "no reason given"),
        owner=str(value.get("owner") or "unknown"),
        left_s=_number(value.get("left_s")),
        drain=value.get("drain") is True,
    )


def _texts(value: object) -> tuple[str, ...]:
    """The texts of a list, each by itself or as an alert has it."""
    found = []
    for item in value if isinstance(value, list) else []:
        text = item.get("text") if isinstance(item, dict) else item
        if isinstance(text, str):
            found.append(text)
    return tuple(found)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
