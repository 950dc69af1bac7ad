"""The supervisor's status document as metrics. What it does not say makes no sample."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dspark_ops.observe.exporter.catalogue import DETECT_BOUNDS, RECOVER_BOUNDS, STATES
from dspark_ops.observe.exporter.families import Families, Histogram
from dspark_ops.observe.exporter.http_get import Get, get
from dspark_ops.observe.exporter.polling import SourceError

SCHEMA = "dspark-ops/supervise/v1"
_KEPT = 4096
# The states in which a canary is sent: before and after them its last verdict is of an engine that is no more.
_ASKED = ("serving", "suspect", "cooling", "failed")
# From a canary to the next, and its own time limit, as long as a site file may have them.
_CANARY_OLD_S = 1200.0


@dataclass(frozen=True)
class Incident:
    """One time the pair stopped serving. recover_s: None until it serves again."""

    id: str
    detect_s: float | None = None
    recover_s: float | None = None


@dataclass(frozen=True)
class Status:
    """What the exporter takes from the document. Moments are seconds since 1970, lengths of time seconds.

    at: when the supervisor decided last. canary_ok: None before the first one. restarts: by cause.
    """

    state: str
    since: float | None = None
    at: float | None = None
    epoch: str | None = None
    release: str | None = None
    held: bool | None = None
    hold_left_s: float | None = None
    latched: bool | None = None
    may_serve: bool | None = None
    state_saved: bool | None = None
    canary_ok: bool | None = None
    alerts: int | None = None
    pages: int | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    incident: Incident | None = None


def parse_status(text: str) -> Status:
    """The document of GET /status.

    Raises:
        SourceError: it is not JSON, another schema, or names no state.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise SourceError("the supervisor's status is not JSON") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        seen = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise SourceError(f"the supervisor's status is {seen!r}, expected {SCHEMA!r}")
    state = _text(document.get("state"))
    if state is None:
        raise SourceError("the supervisor's status names no state")
    hold, alerts = document.get("hold"), document.get("alerts")
    restarts = document.get("restarts")
    pages = [isinstance(alert, dict) and alert.get("page") is True for alert in alerts or ()]
    return Status(
        state=state,
        since=_number(document.get("since")),
        at=_number(document.get("at")),
        epoch=_text(document.get("epoch")),
        release=_text(document.get("release")),
        held=hold is not None if "hold" in document else None,
        hold_left_s=_number(hold.get("left_s")) if isinstance(hold, dict) else None,
        latched=document["latched"] is not None if "latched" in document else None,
        may_serve=_bool(document.get("may_serve")),
        state_saved=_bool(document.get("state_saved")),
        canary_ok=_canary(document.get("canary"), _number(document.get("monotonic_s"))) if state in _ASKED else None,
        alerts=len(pages) if isinstance(alerts, list) else None,
        pages=sum(pages) if isinstance(alerts, list) else None,
        restarts=_counts(restarts) if isinstance(restarts, dict) else {},
        incident=_incident(document.get("incident")),
    )


def _canary(value: object, now_s: float | None) -> bool | None:
    """Whether the last canary was right. None: none was sent lately, or it was turned away for load.

    One that could not be judged (a wrong key, an answer without text) was not right. now_s: of the canary's own clock.
    """
    if not isinstance(value, dict):
        return None
    verdict, ended_s = _text(value.get("verdict")), _number(value.get("ended_s"))
    if now_s is None or ended_s is None or now_s - ended_s > _CANARY_OLD_S:
        return None
    return None if verdict in (None, "busy") else verdict == "correct"


def _incident(value: object) -> Incident | None:
    if not isinstance(value, dict) or _text(value.get("id")) is None:
        return None
    return Incident(
        id=str(value["id"]),
        detect_s=_number(value.get("detect_s")),
        recover_s=_number(value.get("recover_s")),
    )


def _counts(value: Mapping[str, object]) -> dict[str, int]:
    return {key: n for key, n in value.items() if isinstance(n, int) and not isinstance(n, bool) and n >= 0}


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


class Supervisor:
    """Asks the status port again and again, and counts what it sees happen: each incident once."""

    def __init__(self, url: str, fetch: Get = get, wall: Callable[[], float] = time.time) -> None:
        self._url = url
        self._fetch = fetch
        self._wall = wall
        # What had ended before the first look is not counted: (incident, what of it was seen).
        self._seen: set[tuple[str, str]] | None = None
        self._detect: deque[float] = deque(maxlen=_KEPT)
        self._recover: deque[float] = deque(maxlen=_KEPT)

    def read(self, into: Families) -> None:
        """One look.

        Raises:
            SourceError: nobody answers, or not the supervisor.
        """
        status = parse_status(self._fetch(f"{self._url}/status"))
        for state in sorted({*STATES, status.state}):
            into.add("dspark_supervisor_state", float(state == status.state), state=state)
        if status.epoch is not None:
            into.add("dspark_supervisor_epoch_info", 1, epoch=status.epoch, release=status.release or "")
        # Rounded: it is worked out anew for every look, and a jitter would be a change.
        since = None if status.since is None else round(status.since)
        into.add("dspark_supervisor_state_since_timestamp_seconds", since)
        age = None if status.at is None else max(0.0, self._wall() - status.at)
        into.add("dspark_supervisor_step_age_seconds", age)
        into.add("dspark_supervisor_state_saved", _flag(status.state_saved))
        into.add("dspark_supervisor_held", _flag(status.held))
        into.add("dspark_supervisor_hold_left_seconds", status.hold_left_s)
        into.add("dspark_supervisor_latched", _flag(status.latched))
        into.add("dspark_supervisor_may_serve", _flag(status.may_serve))
        into.add("dspark_canary_ok", _flag(status.canary_ok))
        if status.alerts is not None and status.pages is not None:
            into.add("dspark_supervisor_alerts", status.alerts - status.pages, page="no")
            into.add("dspark_supervisor_alerts", status.pages, page="yes")
        for cause, count in status.restarts.items():
            into.add("dspark_supervisor_restarts_total", count, cause=cause)
        self._count(status.incident)
        if status.incident is not None:
            into.add("dspark_supervisor_last_detect_seconds", status.incident.detect_s)
            into.add("dspark_supervisor_last_recover_seconds", status.incident.recover_s)
        into.add_histogram("dspark_supervisor_detect_seconds", Histogram.of(DETECT_BOUNDS, self._detect))
        into.add_histogram("dspark_supervisor_recover_seconds", Histogram.of(RECOVER_BOUNDS, self._recover))

    def _count(self, incident: Incident | None) -> None:
        now = set()
        if incident is not None:
            times = {"detect": incident.detect_s, "recover": incident.recover_s}
            now = {(incident.id, what) for what, length in times.items() if length is not None}
        before, self._seen = self._seen, now
        if before is None or incident is None:
            return
        new = {what for _, what in now - before}
        if "detect" in new and incident.detect_s is not None:
            self._detect.append(incident.detect_s)
        if "recover" in new and incident.recover_s is not None:
            self._recover.append(incident.recover_s)


def _flag(value: bool | None) -> float | None:
    return None if value is None else float(value)
