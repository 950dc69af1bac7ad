"""What the monitoring on the head says of itself: targets that answer, alerts that fire. It only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspark_ops.config.models import Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.transport.base import Http, NodeReading
from dspark_ops.transport.ssh import read_pair

SCHEMA = "dspark-ops/monitor-status/v1"
# Alerts that are no sign of trouble: the heartbeat, and somebody's own hold.
_QUIET = ("none", "info")


@dataclass(frozen=True)
class TargetState:
    """One target. health: up, down, or unknown before its first scrape."""

    job: str
    role: str
    address: str
    health: str
    error: str


@dataclass(frozen=True)
class AlertState:
    """One alert. state: pending or firing."""

    name: str
    severity: str
    state: str
    summary: str
    runbook: str


@dataclass(frozen=True)
class StackState:
    """All of it. heartbeat: whether the Watchdog fires; without it no rule is evaluated."""

    targets: tuple[TargetState, ...]
    alerts: tuple[AlertState, ...]
    heartbeat: bool
    alertmanager: bool

    @property
    def asked(self) -> bool:
        """Whether every target was; a Prometheus that has just started has not yet."""
        return all(target.health != "unknown" for target in self.targets)

    @property
    def exit_code(self) -> ExitCode:
        """Bad when a target is down, an alert that matters fires, or alerts reach nobody.

        Else no verdict as long as not every target was asked.
        """
        firing = [alert for alert in self.alerts if alert.state == "firing" and alert.severity not in _QUIET]
        down = [target for target in self.targets if target.health not in ("up", "unknown")]
        deaf = not self.alertmanager or not self.targets or (self.asked and not self.heartbeat)
        if firing or down or deaf:
            return ExitCode.VERDICT_BAD
        return ExitCode.OK if self.asked else ExitCode.NO_VERDICT

    def document(self, site: str) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": SCHEMA,
            "site": site,
            "exit_code": int(self.exit_code),
            "heartbeat": self.heartbeat,
            "alertmanager": self.alertmanager,
            "targets": [vars(target) for target in self.targets],
            "alerts": [vars(alert) for alert in self.alerts],
        }

    def text(self) -> str:
        """For people; what is wrong stands last."""
        lines = [f"{t.health:<8} {t.job:<18} {t.role:<7} {t.address}" for t in self.targets if t.health == "up"]
        lines += [
            f"{t.health:<8} {t.job:<18} {t.role:<7} {t.address}  {t.error}" for t in self.targets if t.health != "up"
        ]
        if not self.alertmanager:
            lines.append("Alertmanager does not answer: nobody is told of an alert")
        if not self.asked:
            lines.append("not every target was asked yet: Prometheus started a moment ago; ask again")
        elif not self.heartbeat:
            lines.append("the Watchdog does not fire: no rule is evaluated")
        lines += [f"{a.state:<8} {a.severity:<9} {a.name}: {a.summary}  [{a.runbook}]" for a in self.alerts]
        return "\n".join(lines or ["no target is known"])


def read_stack(site: Site) -> StackState:
    """Ask Prometheus and Alertmanager on the head.

    Raises:
        NoVerdictError: the head or Prometheus cannot be asked, or does not answer as one.
    """
    wanted = site.monitoring
    base = f"http://127.0.0.1:{wanted.prometheus_port}"
    probes = (
        Http("monitoring.targets", f"{base}/api/v1/targets?state=active", max_bytes=1 << 20),
        Http("monitoring.alerts", f"{base}/api/v1/alerts", max_bytes=1 << 20),
        Http("monitoring.alertmanager", f"http://127.0.0.1:{wanted.alertmanager_port}/-/ready"),
    )
    return parse_stack(read_pair(site, {"head": probes, "worker": ()})["head"])


def parse_stack(reading: NodeReading) -> StackState:
    """The state out of the head's answers; see `read_stack` for what it raises."""
    if not reading.reachable:
        raise NoVerdictError(f"head: {reading.error}", hint=reading.hint or "look at the node")
    targets = _data(reading, "monitoring.targets")
    alerts = _data(reading, "monitoring.alerts")
    try:
        found = tuple(_target(target) for target in targets["activeTargets"])
        told = tuple(_alert(alert) for alert in alerts["alerts"])
    except (KeyError, TypeError, AttributeError) as error:
        raise NoVerdictError(
            f"head: what answers on Prometheus' port is none: {error!r} in its answer",
            hint="`dspark-ops monitor install` puts it right",
        ) from error
    return StackState(
        targets=tuple(sorted(found, key=lambda target: (target.job, target.role))),
        alerts=tuple(sorted((a for a in told if a.name != "Watchdog"), key=lambda a: (a.state != "pending", a.name))),
        heartbeat=any(alert.name == "Watchdog" and alert.state == "firing" for alert in told),
        alertmanager=reading.get("monitoring.alertmanager").rc == 200,
    )


def _data(reading: NodeReading, probe: str) -> Mapping[str, Any]:
    answer = reading.get(probe)
    if answer.rc != 200 or answer.stdout is None:
        said = answer.error or f"HTTP {answer.rc}"
        raise NoVerdictError(
            f"head: Prometheus does not answer: {said}", hint="`dspark-ops monitor install`, or its unit's journal"
        )
    try:
        document = json.loads(answer.stdout)
    except (ValueError, RecursionError):
        document = None
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        raise NoVerdictError(
            "head: what answers on Prometheus' port is none", hint="`dspark-ops monitor install` puts it right"
        )
    return data


def _target(target: Mapping[str, Any]) -> TargetState:
    labels = target["labels"]
    return TargetState(
        job=str(labels["job"]),
        role=str(labels.get("role", "")),
        address=str(labels["instance"]),
        health=str(target["health"]),
        error=str(target.get("lastError", "")),
    )


def _alert(alert: Mapping[str, Any]) -> AlertState:
    labels, notes = alert["labels"], alert["annotations"]
    return AlertState(
        name=str(labels["alertname"]),
        severity=str(labels.get("severity", "")),
        state=str(alert["state"]),
        summary=str(notes.get("summary", "")),
        runbook=str(notes.get("runbook_url", "")),
    )
