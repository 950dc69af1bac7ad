"""One container as `docker container inspect` shows it, as far as its comings and goings are concerned."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, ProbeResult


class ContainerFacts(Fact):
    """A container. restart_policy: no, always, unless-stopped, on-failure. started_at: as Docker writes it."""

    id: str
    name: str
    image: str | None = None
    image_id: str | None = None
    state: str | None = None
    started_at: str | None = None
    restart_policy: str | None = None
    restart_retries: int | None = None
    auto_remove: bool | None = None
    labels: dict[str, str] = Field(default_factory=dict)


def inspect_probe(identity: str) -> Command:
    """The inspection of one container. The id of the probe is the container's."""
    return Command(identity, ("docker", "container", "inspect", identity), root=True, timeout_s=20.0)


def parse_container(text: str | None) -> ContainerFacts | None:
    """The first container of the document; None when there is none. What it was told in its environment is not kept."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    item = document[0] if isinstance(document, list) and document else None
    if not isinstance(item, dict):
        return None
    identity, name = _text(item.get("Id")), _text(item.get("Name"))
    if identity is None or name is None:
        return None
    state, config = _part(item, "State"), _part(item, "Config")
    host = _part(item, "HostConfig")
    policy, rm = _part(host, "RestartPolicy"), host.get("AutoRemove")
    retries, labels = policy.get("MaximumRetryCount"), config.get("Labels")
    return ContainerFacts(
        id=identity,
        name=name.removeprefix("/"),
        image=_text(config.get("Image")),
        image_id=_text(item.get("Image")),
        state=_text(state.get("Status")),
        started_at=_text(state.get("StartedAt")),
        restart_policy=_text(policy.get("Name")) or ("no" if policy else None),
        restart_retries=retries if isinstance(retries, int) and not isinstance(retries, bool) else None,
        auto_remove=rm if isinstance(rm, bool) else None,
        labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
    )


def is_gone(result: ProbeResult) -> bool:
    """The Engine said that there is no such container."""
    return result.rc == 1 and "no such container" in (result.stderr or "").lower()


def _part(item: dict[str, Any], key: str) -> dict[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
