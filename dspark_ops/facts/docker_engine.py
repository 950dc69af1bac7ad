"""The Docker Engine of a node: whether it answers, how it stores, which images and containers it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, Files, NodeReading, Probe

#: An Engine that is busy answers these within 4 s. One that does not hangs, and nothing else waits for it then.
ENGINE_TIMEOUT_S = 5.0
PROBES: tuple[Probe, ...] = (
    Command("docker.info", ("docker", "info", "--format", "{{json .}}"), root=True, timeout_s=ENGINE_TIMEOUT_S),
    Command(
        "docker.ps",
        ("docker", "ps", "-a", "--no-trunc", "--format", "{{json .}}"),
        root=True,
        timeout_s=ENGINE_TIMEOUT_S,
    ),
    Command("docker.images", ("docker", "image", "ls", "--no-trunc", "--format", "{{json .}}"), root=True),
    Files("docker.cdi", ("/etc/cdi/*.yaml", "/etc/cdi/*.json", "/var/run/cdi/*.yaml"), max_bytes=64),
)


class EngineFacts(Fact):
    """The Engine. answers: False when the client ran and the server did not answer; error says why.

    cdi_specs: the device descriptions that exist, the other way to give a container the GPU; None when not read.
    """

    answers: bool | None = None
    error: str | None = None
    version: str | None = None
    storage_driver: str | None = None
    root_dir: str | None = None
    cgroup_driver: str | None = None
    runtimes: tuple[str, ...] = ()
    cdi_specs: tuple[str, ...] | None = None


class ContainerRow(Fact):
    """One row of `docker ps -a`."""

    id: str
    name: str
    image: str | None = None
    state: str | None = None
    status: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class ImageFacts(Fact):
    """One local image id and the names that point at it; no name is an untagged image."""

    id: str
    references: tuple[str, ...] = ()


def parse_info(text: str | None, error: str | None = None) -> EngineFacts | None:
    """`docker info` as JSON. error: what the client said when it failed; None with no text is unknown."""
    if text is None:
        return None if error is None else EngineFacts(answers=False, error=error)
    document = next(_objects(text), None)
    if document is None:
        return None
    problems = document.get("ServerErrors")
    if isinstance(problems, list) and problems:
        return EngineFacts(answers=False, error="; ".join(str(p) for p in problems))
    version = _text(document.get("ServerVersion"))
    if version is None:
        return None
    runtimes = document.get("Runtimes")
    return EngineFacts(
        answers=True,
        version=version,
        storage_driver=_text(document.get("Driver")),
        root_dir=_text(document.get("DockerRootDir")),
        cgroup_driver=_text(document.get("CgroupDriver")),
        runtimes=tuple(sorted(map(str, runtimes))) if isinstance(runtimes, dict) else (),
    )


def parse_ps(text: str | None) -> tuple[ContainerRow, ...] | None:
    """The containers in `docker ps -a --format '{{json .}}'`: one JSON object a line."""
    if text is None:
        return None
    rows = []
    for item in _objects(text):
        identity, name = _text(item.get("ID")), _text(item.get("Names"))
        if identity is None or name is None:
            continue
        rows.append(
            ContainerRow(
                id=identity,
                name=name,
                image=_text(item.get("Image")),
                state=_text(item.get("State")),
                status=_text(item.get("Status")),
                labels=parse_labels(_text(item.get("Labels")) or ""),
            )
        )
    return tuple(rows)


def parse_labels(text: str) -> dict[str, str]:
    """`a=b,c=d` as `docker ps` prints it. A value may hold a comma: a piece without `=` belongs to the one before."""
    labels: dict[str, str] = {}
    last: str | None = None
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if equals and key:
            labels[key] = value
            last = key
        elif last is not None:
            labels[last] += "," + piece
    return labels


def parse_images(text: str | None) -> tuple[ImageFacts, ...] | None:
    """The images in `docker image ls --no-trunc --format '{{json .}}'`, one entry an id, in its order."""
    if text is None:
        return None
    names: dict[str, list[str]] = {}
    for item in _objects(text):
        identity = _text(item.get("ID"))
        if identity is None:
            continue
        references = names.setdefault(identity, [])
        repository, tag = _text(item.get("Repository")), _text(item.get("Tag"))
        if repository and tag and "<none>" not in (repository, tag):
            references.append(f"{repository}:{tag}")
    return tuple(ImageFacts(id=identity, references=tuple(found)) for identity, found in names.items())


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def read_engine(reading: NodeReading) -> EngineFacts | None:
    """The Engine of a reading. No docker program at all is an Engine that does not answer."""
    result = reading.get("docker.info")
    if result.error is not None:
        return parse_info(None, result.error) if reading.reachable and result.error != "not read" else None
    if result.rc != 0 and not (result.stdout or "").strip().startswith("{"):
        return parse_info(None, (result.stderr or "").strip() or f"docker info ended with {result.rc}")
    engine = parse_info(result.stdout)
    specs = reading.get("docker.cdi").files
    if engine is None or specs is None:
        return engine
    return engine.model_copy(update={"cdi_specs": tuple(sorted(specs))})


def read_containers(reading: NodeReading) -> tuple[ContainerRow, ...] | None:
    """All containers of a reading, running or not."""
    return parse_ps(reading.get("docker.ps").text())


def read_images(reading: NodeReading) -> tuple[ImageFacts, ...] | None:
    """All images of a reading."""
    return parse_images(reading.get("docker.images").text())
