"""The API as the head itself sees it. A hint, never readiness: `/health` is 200 on a wedged engine."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

from dspark_ops.config.models import Profile, Site
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Http, NodeReading, Probe


class ModelEntry(Fact):
    """One entry of /v1/models."""

    id: str
    max_model_len: int | None = None


class ServiceFacts(Fact):
    """What the API answered. health_status: None when nothing answered, and health_error says why.

    canary: the content of the completion that proves readiness; None when it was not asked for or did not come.
    """

    asked: bool = False
    health_status: int | None = None
    health_error: str | None = None
    models: tuple[ModelEntry, ...] | None = None
    version: str | None = None
    canary_asked: bool = False
    canary: str | None = None
    canary_error: str | None = None


def probes(site: Site) -> tuple[Probe, ...]:
    """The requests to the API of this site, made on the head."""
    base = api_url(site)
    return (
        Http("service.health", f"{base}/health"),
        Http("service.models", f"{base}/v1/models"),
        Http("service.version", f"{base}/version"),
    )


def canary_probe(site: Site, profile: Profile, *, timeout_s: float = 30.0) -> Http:
    """The completion whose text is known: the only proof that both ranks compute."""
    canary = profile.canary
    body = {
        "model": site.model.served_name,
        "messages": [{"role": "user", "content": canary.prompt}],
        "max_tokens": canary.max_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"thinking": canary.thinking},
    }
    return Http("service.canary", f"{api_url(site)}/v1/chat/completions", body=body, timeout_s=timeout_s)


def api_url(site: Site) -> str:
    """The API of the head, asked from the head: its loopback unless it is bound to one address."""
    host = site.serve.api_host
    return f"http://{IPv4Address('127.0.0.1') if host.is_unspecified else host}:{site.serve.api_port}"


def parse_models(text: str | None) -> tuple[ModelEntry, ...] | None:
    """The models of /v1/models; None when the text is not that."""
    try:
        document = json.loads(text or "")
        entries = document["data"]
        return tuple(
            ModelEntry(
                id=str(e["id"]),
                max_model_len=e.get("max_model_len") if isinstance(e.get("max_model_len"), int) else None,
            )
            for e in entries
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def parse_version(text: str | None) -> str | None:
    """The version of /version."""
    try:
        version = json.loads(text or "")["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, str) else None


def parse_completion(text: str | None) -> str | None:
    """The content of a chat completion's first choice; None when there is none (all of it may be reasoning)."""
    try:
        content = json.loads(text or "")["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return content if isinstance(content, str) else None


def read_service(reading: NodeReading) -> ServiceFacts | None:
    """The API of a reading; None when the node was not reached, asked False where nothing was asked."""
    if not reading.reachable:
        return None
    health = reading.results.get("service.health")
    if health is None:
        return ServiceFacts()
    canary = reading.results.get("service.canary")
    said = None if canary is None else parse_completion(canary.text())
    failed = None
    if canary is not None and said is None:
        failed = canary.error or f"status {canary.rc}: {(canary.stdout or '')[:200]}"
    return ServiceFacts(
        asked=True,
        health_status=health.rc if health.error is None else None,
        health_error=health.error,
        models=parse_models(reading.get("service.models").text()),
        version=parse_version(reading.get("service.version").text()),
        canary_asked=canary is not None,
        canary=said,
        canary_error=failed,
    )
