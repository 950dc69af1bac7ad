"""What the status page shows, out of a status document and two scrapes. Pure; None is what could not be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from prometheus_client.parser import text_string_to_metric_families

from dspark_ops.config.models import ROLES, Role

Mark = Literal["ok", "warn", "fail", "unknown"]
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]

_MARKS: dict[str, Mark] = {
    "serving": "ok",
    "starting": "warn",
    "gate": "warn",
    "suspect": "warn",
    "draining": "warn",
    "stopping": "warn",
    "cooling": "warn",
    "failed": "fail",
}
_ACTIVE = 4
_RECENT = 8


@dataclass(frozen=True)
class FiringAlert:
    """One alert of Prometheus that fires."""

    name: str
    severity: str
    summary: str


@dataclass(frozen=True)
class PageInput:
    """What was read. status: the supervisor's document; scrapes: each node's; alerts: of Prometheus.

    A None has its reason in problems, by "supervisor", "head", "worker" or "alerts".
    """

    site: str
    made_at: datetime
    status: Mapping[str, Any] | None
    scrapes: Mapping[Role, str | None]
    alerts: tuple[FiringAlert, ...] | None
    problems: Mapping[str, str]


@dataclass(frozen=True)
class RailView:
    """One rail of one node. share: of the last interval, 0 to 1."""

    name: str
    hca: str
    mark: Mark
    words: str
    mtu: int | None
    gid_index: int | None
    gbps: float | None
    share: float | None


@dataclass(frozen=True)
class NodeView:
    """One node. problem: why it could not be asked. gpu_asked: it has one by its profile. down: sources not read."""

    role: Role
    problem: str | None = None
    rails: tuple[RailView, ...] = ()
    memory_available_gib: float | None = None
    memory_margin_gib: float | None = None
    gpu_asked: bool = True
    gpu_power_w: float | None = None
    gpu_load: float | None = None
    gpu_celsius: float | None = None
    foreign_holders: int | None = None
    xids: tuple[str, ...] | None = None
    down: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineView:
    """The engine over the last interval. drafts: it may draft tokens, as far as is known; positions: first to last."""

    acceptance: float | None
    drafts: bool
    positions: tuple[float, ...]
    steps_per_s: float | None
    tokens_per_step: float | None
    pool_tokens: int | None
    window: int | None
    wanted_window: int | None


@dataclass(frozen=True)
class AlertView:
    """One alert of the supervisor or of Prometheus."""

    mark: Mark
    source: str
    text: str


@dataclass(frozen=True)
class PageView:
    """The whole page. facts: name and value, those that are known."""

    site: str
    made_at: str
    state: str
    mark: Mark
    reason: str
    facts: tuple[tuple[str, str], ...]
    alerts: tuple[AlertView, ...]
    alerts_problem: str | None
    nodes: tuple[NodeView, ...]
    engine: EngineView | None
    spend: tuple[tuple[str, float | None, float | None], ...]
    decisions: tuple[tuple[str, str, str], ...]


def page_view(found: PageInput) -> PageView:
    """Everything that the template shows, decided."""
    scrapes = {role: parse_samples(found.scrapes.get(role)) for role in ROLES}
    status = found.status or {}
    state = _text(status.get("state"))
    mark: Mark = "unknown" if state is None else _MARKS.get(state, "unknown")
    alerts = _alerts(status, found.alerts)
    if mark == "ok" and (status.get("hold") or alerts):
        mark = "warn"
    reason = _text(status.get("reason")) or found.problems.get("supervisor") or "the supervisor says nothing"
    head = scrapes["head"]
    return PageView(
        site=found.site,
        made_at=_moment(found.made_at.timestamp()),
        state=state or "not known",
        mark=mark,
        reason=reason,
        facts=_facts(status, found.made_at.timestamp()),
        alerts=alerts,
        alerts_problem=found.problems.get("alerts") if found.alerts is None else None,
        nodes=tuple(_node(role, scrapes[role], found.problems.get(role)) for role in ROLES),
        engine=None if head is None else _engine(head),
        spend=() if head is None else _spend(head),
        decisions=_decisions(status.get("decisions")),
    )


def parse_samples(text: str | None) -> Samples | None:
    """A scrape's samples by name; None for one that is not the text format, or has nothing of ours."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    found.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return found if any(name.startswith("dspark_source_") for name in found) else None


def _facts(status: Mapping[str, Any], now: float) -> tuple[tuple[str, str], ...]:
    since, hold, incident = _number(status.get("since")), _part(status.get("hold")), _part(status.get("incident"))
    held = None
    if hold:
        left = _number(hold.get("left_s"))
        held = f"{_text(hold.get('reason')) or 'no reason given'} ({_text(hold.get('owner')) or 'unknown'})"
        held += "" if left is None else f", ends in {_length(left)}"
    detect, recover = _number(incident.get("detect_s")), _number(incident.get("recover_s"))
    told = [
        ("since", None if since is None else f"{_moment(since)}, {_length(max(0.0, now - since))}"),
        ("epoch", _text(status.get("epoch"))),
        ("release", _text(status.get("release"))),
        ("held", held),
        ("latched", _text(status.get("latched"))),
        ("waits for", "; ".join(str(item) for item in _list(status.get("waits_for"))) or None),
        ("last incident", _text(incident.get("reason"))),
        ("detected after", None if detect is None else _length(detect)),
        ("serving again after", None if recover is None else _length(recover)),
    ]
    return tuple((name, value) for name, value in told if value is not None)


def _alerts(status: Mapping[str, Any], told: Sequence[FiringAlert] | None) -> tuple[AlertView, ...]:
    found = [
        AlertView("fail" if item.get("page") is True else "warn", "supervisor", _text(item.get("text")) or "no text")
        for item in map(_part, _list(status.get("alerts")))
        if item
    ]
    for alert in told or ():
        if alert.severity != "none":  # the heartbeat fires always
            mark: Mark = "fail" if alert.severity == "critical" else "warn"
            found.append(AlertView(mark, alert.name, alert.summary))
    return tuple(sorted(found, key=lambda alert: alert.mark != "fail"))


def _node(role: Role, samples: Samples | None, problem: str | None) -> NodeView:
    if samples is None:
        return NodeView(role, problem=problem or "what answered is not the exporter")
    holders = _where(samples, "dspark_gpu_holders", "owner", "foreign")
    xids = samples.get("dspark_xid_total")
    return NodeView(
        role,
        rails=tuple(_rail(samples, labels) for labels, _ in samples.get("dspark_rail_present", ())),
        memory_available_gib=_gib(_one(samples, "dspark_memory_available_bytes")),
        memory_margin_gib=_gib(_one(samples, "dspark_memory_floor_margin_bytes")),
        gpu_asked=_where(samples, "dspark_source_up", "source", "gpu") is not None,
        gpu_power_w=_one(samples, "dspark_gpu_power_watts"),
        gpu_load=_one(samples, "dspark_gpu_utilization_ratio"),
        gpu_celsius=_one(samples, "dspark_gpu_temperature_celsius"),
        foreign_holders=None if holders is None else int(holders),
        xids=None if xids is None else tuple(labels["xid"] for labels, value in xids if value),
        down=tuple(labels.get("source", "") for labels, value in samples.get("dspark_source_up", ()) if not value),
    )


def _rail(samples: Samples, labels: Mapping[str, str]) -> RailView:
    rail = labels.get("rail", "")

    def value(name: str) -> float | None:
        return _where(samples, f"dspark_rail_{name}", "rail", rail)

    mark, words = judge_rail(value("present"), value("carrier"), value("port_state_id"))
    mtu, wanted, index, speed = (
        value(name) for name in ("mtu_bytes", "wanted_mtu_bytes", "gid_index", "speed_bits_per_second")
    )
    if mark == "ok" and mtu is not None and wanted is not None and mtu != wanted:
        mark, words = "warn", f"MTU is not {wanted:.0f}"
    return RailView(
        name=rail,
        hca=labels.get("hca", ""),
        mark=mark,
        words=words,
        mtu=None if mtu is None else int(mtu),
        gid_index=None if index is None else int(index),
        gbps=None if speed is None else speed / 1e9,
        share=value("share_ratio"),
    )


def judge_rail(present: float | None, carrier: float | None, port: float | None) -> tuple[Mark, str]:
    """A mark and words for a rail. A port that does not say its state is not active."""
    if present is None:
        return "unknown", "not known"
    if not present:
        return "fail", "no such device"
    if carrier is None:
        return "fail", "the device is down"
    if not carrier:
        return "fail", "no carrier"
    if port is None:
        return "unknown", "carrier; no RDMA port"
    return ("ok", "active") if port == _ACTIVE else ("fail", "carrier, but the RDMA port is not active")


def _engine(samples: Samples) -> EngineView:
    places = sorted(
        (int(labels["position"]), value)
        for labels, value in samples.get("dspark_acceptance_position_ratio", ())
        if labels.get("position", "").isdecimal()
    )
    pool, window, wanted = (
        _one(samples, name) for name in ("dspark_kv_pool_tokens", "dspark_model_max_len", "dspark_model_wanted_max_len")
    )
    return EngineView(
        acceptance=_one(samples, "dspark_acceptance_ratio"),
        # One that answers and counts no drafts makes none; after a first reading alone nothing is known of it.
        drafts=_one(samples, "dspark_engine_interval_seconds") is None
        or _one(samples, "dspark_acceptance_drafts") is not None,
        positions=tuple(value for _, value in places),
        steps_per_s=_one(samples, "dspark_steps_per_second"),
        tokens_per_step=_one(samples, "dspark_tokens_per_step"),
        pool_tokens=None if pool is None else int(pool),
        window=None if window is None else int(window),
        wanted_window=None if wanted is None else int(wanted),
    )


def _spend(samples: Samples) -> tuple[tuple[str, float | None, float | None], ...]:
    return tuple(
        (
            labels.get("window", ""),
            spent,
            _where(samples, "dspark_gateway_budget_usd", "window", labels.get("window", "")),
        )
        for labels, spent in samples.get("dspark_gateway_spend_usd", ())
    )


def _decisions(value: object) -> tuple[tuple[str, str, str], ...]:
    """The last changes of state, newest first: when, from and to, why."""
    found = []
    for item in map(_part, _list(value)[-_RECENT:][::-1]):
        at = _number(_part(item.get("at")).get("wall_s"))
        way = f"{_text(item.get('source')) or '?'} to {_text(item.get('target')) or '?'}"
        found.append(("" if at is None else _moment(at), way, _text(item.get("reason")) or ""))
    return tuple(found)


def _one(samples: Samples, name: str) -> float | None:
    return next((value for _, value in samples.get(name, ())), None)


def _where(samples: Samples, name: str, label: str, wanted: str) -> float | None:
    return next((value for labels, value in samples.get(name, ()) if labels.get(label) == wanted), None)


def _gib(value: float | None) -> float | None:
    return None if value is None else value / (1 << 30)


def _part(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "at a time that is none"


def _length(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
