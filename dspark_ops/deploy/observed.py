"""What a deploy needs to know of the pair, read in one round trip per node: ranks, image, memory, disk, rails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dspark_ops.config.models import Canary, Role, Site
from dspark_ops.deploy.spec import CONTAINER, LABEL
from dspark_ops.transport.base import Command, Files, Filesystem, Http, NodeReading, Probe

_KIB_PER_GIB = 1 << 20
CANARY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RankState:
    """The rank's container on one node, as `docker container inspect` has it.

    exit_code is None while it runs; started_at None if it never ran. spec, epoch, release and site come from its
    labels and are None on a container that is not ours.
    """

    running: bool
    status: str
    exit_code: int | None
    oom_killed: bool
    started_at: datetime | None
    container_id: str
    image_id: str
    labels: dict[str, str]

    def label(self, name: str) -> str | None:
        return self.labels.get(f"{LABEL}.{name}")


@dataclass(frozen=True)
class Observed:
    """One node. None where it could not be told; `problems` says why."""

    role: Role
    reachable: bool
    error: str | None
    hint: str | None
    sudo: bool | None
    docker: bool | None
    rank: RankState | None
    image_present: bool | None
    disk_free_gib: float | None
    memory_available_gib: float | None
    addresses: dict[str, frozenset[str]]
    mtu: dict[str, int]
    listening: frozenset[int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CanaryAnswer:
    """What the completion endpoint said. correct is the verdict; text what came, error why nothing came."""

    correct: bool
    text: str | None
    error: str | None


def rank_probe() -> Command:
    return Command("rank", ("docker", "container", "inspect", CONTAINER), root=True)


def observe_probes() -> Sequence[Probe]:
    """The probes of one node; the same on both."""
    return (
        rank_probe(),
        Command("image", ("docker", "image", "ls", "--no-trunc", "--quiet"), root=True),
        Command("docker", ("docker", "version", "--format", "{{.Server.Version}}"), root=True),
        Command("addresses", ("ip", "-j", "address", "show")),
        Command("listening", ("ss", "-H", "-tln")),
        Files("meminfo", ("/proc/meminfo",)),
        Filesystem("disk", "/var/lib/docker"),
    )


def canary_probe(site: Site, canary: Canary, timeout_s: float = CANARY_TIMEOUT_S) -> Http:
    """The completion that proves readiness, asked on the head itself."""
    host = "127.0.0.1" if str(site.serve.api_host) == "0.0.0.0" else str(site.serve.api_host)  # noqa: S104
    body: dict[str, Any] = {
        "model": site.model.served_name,
        "messages": [{"role": "user", "content": canary.prompt}],
        "max_tokens": canary.max_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"thinking": canary.thinking},
    }
    return Http("canary", f"http://{host}:{site.serve.api_port}/v1/chat/completions", body=body, timeout_s=timeout_s)


def parse_canary(reading: NodeReading, canary: Canary) -> CanaryAnswer:
    """Judge the completion: correct only if the expected text is in the answer's content."""
    result = reading.get("canary")
    if result.error is not None or result.stdout is None:
        return CanaryAnswer(False, None, result.error or "no answer")
    if not result.ok:
        return CanaryAnswer(False, None, f"HTTP {result.rc}: {result.stdout[:200]}")
    try:
        content = json.loads(result.stdout)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return CanaryAnswer(False, None, f"an answer that is no chat completion: {result.stdout[:200]}")
    text = content if isinstance(content, str) else None
    if text is not None and canary.expect in text:
        return CanaryAnswer(True, text, None)
    return CanaryAnswer(False, text, f"expected {canary.expect!r} in the answer, got {text!r}")


def parse_observed(role: Role, reading: NodeReading, site: Site) -> Observed:
    """Type one node's reading."""
    problems: list[str] = []
    docker = reading.get("docker")
    docker_up = reading.reachable and docker.ok and bool((docker.stdout or "").strip())
    if reading.reachable and not docker_up:
        problems.append(docker.error or (docker.stderr or "docker gives no version").strip().splitlines()[-1])
    addresses, mtu = _parse_addresses(reading.get("addresses").text())
    return Observed(
        role=role,
        reachable=reading.reachable,
        error=reading.error,
        hint=reading.hint,
        sudo=reading.sudo,
        docker=docker_up if reading.reachable else None,
        rank=parse_rank(reading.get("rank").text()),
        image_present=_parse_image(reading.get("image").text(), site.image.id),
        disk_free_gib=_free_gib(reading),
        memory_available_gib=_available_gib(reading),
        addresses=addresses,
        mtu=mtu,
        listening=_parse_listening(reading.get("listening").text()),
        problems=tuple(problems),
    )


def parse_rank(text: str | None) -> RankState | None:
    """Type the answer of `rank_probe`; None when there is no such container or the answer is no inspection."""
    if text is None:
        return None
    try:
        (entry,) = json.loads(text)
        state, labels = entry["State"], entry["Config"]["Labels"] or {}
        running = bool(state["Running"])
        return RankState(
            running=running,
            status=str(state["Status"]),
            exit_code=None if running or state["Status"] == "created" else int(state["ExitCode"]),
            oom_killed=bool(state.get("OOMKilled")),
            started_at=_parse_time(state.get("StartedAt")),
            container_id=str(entry["Id"]),
            image_id=str(entry["Image"]),
            labels={str(k): str(v) for k, v in labels.items()},
        )
    except (ValueError, LookupError, TypeError):
        return None


def _parse_time(value: object) -> datetime | None:
    if not isinstance(value, str) or value.startswith("0001-"):
        return None
    head, _, fraction = value.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{head}.{(fraction or '0')[:6].ljust(6, '0')}+00:00")
    except ValueError:
        return None


def _parse_image(text: str | None, image_id: str) -> bool | None:
    return None if text is None else image_id in text.split()


def _parse_addresses(text: str | None) -> tuple[dict[str, frozenset[str]], dict[str, int]]:
    if text is None:
        return {}, {}
    try:
        links = json.loads(text)
        addresses = {
            link["ifname"]: frozenset(
                f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", []) if a.get("family") == "inet"
            )
            for link in links
        }
        return addresses, {link["ifname"]: int(link["mtu"]) for link in links}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}, {}


def _parse_listening(text: str | None) -> frozenset[int]:
    ports = set()
    for line in (text or "").splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[3].rpartition(":")[2].isdigit():
            ports.add(int(fields[3].rpartition(":")[2]))
    return frozenset(ports)


def _free_gib(reading: NodeReading) -> float | None:
    numbers = reading.get("disk").numbers
    return None if numbers is None else numbers["free_bytes"] / (1 << 30)


def _available_gib(reading: NodeReading) -> float | None:
    for line in ((reading.get("meminfo").files or {}).get("/proc/meminfo", "")).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split()[:1] and rest.split()[0].isdigit():
            return int(rest.split()[0]) / _KIB_PER_GIB
    return None
