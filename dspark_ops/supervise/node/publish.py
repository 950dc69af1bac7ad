"""The status document: what the loop last saw and decided, for people, HAProxy, the exporter and the control host."""

from __future__ import annotations

import os
from typing import Any

from dspark_ops.supervise.core.model import Memory, NodeSight, Observation, Settings, to_document
from dspark_ops.supervise.node.config import Config

SCHEMA = "dspark-ops/supervise/v1"


def status_document(
    config: Config,
    settings: Settings,
    memory: Memory,
    observation: Observation,
    *,
    route: int,
    problems: tuple[str, ...],
    running_since: float,
) -> dict[str, Any]:
    """Pure. Moments are Unix seconds, lengths of time end in `_s`; what is not known is null."""
    hold, incident, now = memory.hold, memory.incident, observation.monotonic_s
    recovered = incident is not None and incident.recovered is not None
    return {
        "schema": SCHEMA,
        "site": config.site,
        "wanted": config.wanted,
        "release": config.release,
        "state": memory.state,
        "since": observation.wall_s - max(0.0, now - memory.since.monotonic_s),
        "since_s": round(max(0.0, now - memory.since.monotonic_s), 1),
        "reason": memory.reason,
        "epoch": memory.epoch,
        "number": memory.number,
        "held": hold is not None,
        "hold": None
        if hold is None
        else {
            "reason": hold.reason,
            "owner": hold.owner,
            "since": hold.since.wall_s,
            "expires": observation.wall_s + hold.since.monotonic_s + hold.for_s - now,
            "left_s": round(max(0.0, hold.since.monotonic_s + hold.for_s - now), 1),
            "drain": hold.drain,
        },
        "latched": memory.latched,
        "harm": memory.harm,
        "route": route,
        "may_serve": route == 200,
        "witnesses": [to_document(witness) for witness in memory.witnesses],
        "waits_for": list(memory.waits_for),
        "alerts": [to_document(alert) for alert in memory.alerts],
        "incident": None
        if incident is None
        else {**to_document(incident), "detect_s": incident.detect_s, "recover_s": incident.recover_s},
        "last_recovery": {
            "id": incident.id,
            "epoch": memory.epoch,
            "detect_s": incident.detect_s,
            "recover_s": incident.recover_s,
        }
        if incident is not None and recovered
        else None,
        "restarts": {starts.cause: starts.count for starts in memory.restarts},
        "attempts": [to_document(attempt) for attempt in memory.attempts],
        "budget": settings.budget,
        "decisions": [to_document(decision) for decision in memory.decisions],
        "nodes": {role: _node(observation.node(role)) for role in ("head", "worker")},
        "engine": to_document(observation.engine),
        "canary": to_document(observation.canary),
        "gate": to_document(observation.gate),
        "evidence": to_document(observation.evidence),
        "state_saved": observation.state_saved,
        "problems": list(problems),
        "at": observation.wall_s,
        "monotonic_s": now,
        "boot_id": observation.boot_id,
        "pid": os.getpid(),
        "running_since": running_since,
    }


def _node(node: NodeSight) -> dict[str, Any]:
    return {**to_document(node), "reachable": node.reachable}
