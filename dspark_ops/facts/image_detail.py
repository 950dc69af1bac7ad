"""The site's image as the node's Engine describes it: for which machine, by whom, and what it sets by itself."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from dspark_ops.config.models import Site
from dspark_ops.facts.model import Fact
from dspark_ops.facts.rank import LABEL, parse_env
from dspark_ops.transport.base import Command, NodeReading

_PROBE = "docker.image"


class ImageDetail(Fact):
    """One image. architecture: as Docker names it (arm64, amd64). env: secrets hidden; command: ENTRYPOINT and CMD."""

    id: str
    architecture: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()

    def label(self, name: str) -> str | None:
        """One of our labels by its short name (profile, vllm, lane, lock)."""
        return self.labels.get(LABEL + name) or None


def probe(site: Site) -> Command:
    """The description of the image that the site fixed."""
    return Command(_PROBE, ("docker", "image", "inspect", site.image.id), root=True)


def parse_image(text: str | None) -> ImageDetail | None:
    """`docker image inspect ID`; None when it is not that."""
    try:
        document = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    item = document[0] if isinstance(document, list) and document else None
    if not isinstance(item, dict) or not isinstance(item.get("Id"), str):
        return None
    config: dict[str, Any] = item["Config"] if isinstance(item.get("Config"), dict) else {}
    labels = config.get("Labels")
    architecture = item.get("Architecture")
    return ImageDetail(
        id=item["Id"],
        architecture=architecture if isinstance(architecture, str) and architecture else None,
        labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        env=parse_env(config.get("Env")),
        command=(*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))),
    )


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def read_image(reading: NodeReading) -> ImageDetail | None:
    """The image of a reading; None when it is not there or could not be read."""
    return parse_image(reading.get(_PROBE).text())
