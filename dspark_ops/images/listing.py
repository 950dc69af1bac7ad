"""`image list`: the builds on this machine and our images on the nodes. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.facts.rank import LABEL, RANK_CONTAINER
from dspark_ops.images.builds import BuiltImage, finished_builds
from dspark_ops.images.inspection import ImageFacts, parse_image_inspect
from dspark_ops.images.produce import image_cache
from dspark_ops.transport.base import Command, NodeReading
from dspark_ops.transport.ssh import SshRunner, open_runner, read_nodes

_OURS = f"label={LABEL}image=engine"


@dataclass(frozen=True)
class Listed:
    """One of our images on a node. wanted: the site means it; running: the rank there was started from it."""

    id: str
    reference: str | None
    stages: str | None
    vllm: str | None
    lock: str | None
    size_bytes: int
    wanted: bool
    running: bool


@dataclass(frozen=True)
class Listing:
    """builds: newest first. nodes: None for a node whose images could not be read."""

    builds: tuple[BuiltImage, ...]
    nodes: Mapping[Role, tuple[Listed, ...] | None] = field(default_factory=dict)


def list_builds() -> Listing:
    """What this machine's cache holds."""
    return Listing(finished_builds(image_cache()))


def list_site(loaded: LoadedSite) -> Listing:
    """This machine's builds and, per node, every image with our label: first their ids, then what they are."""
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        return Listing(finished_builds(image_cache()), _on_nodes(loaded, runners))
    finally:
        for runner in runners.values():
            runner.close()


def _on_nodes(loaded: LoadedSite, runners: Mapping[Role, SshRunner]) -> dict[Role, tuple[Listed, ...] | None]:
    ids = ("docker", "image", "ls", "--no-trunc", "--filter", _OURS, "--format", "{{.ID}}")
    rank = ("docker", "container", "inspect", "--format", "{{.Image}}", RANK_CONTAINER)
    first = read_nodes(
        runners,
        dict.fromkeys(runners, (Command("ids", ids, root=True), Command("rank", rank, root=True))),
    )
    wanted: dict[Role, tuple[str, ...]] = {}
    for role, reading in first.items():
        if reading.reachable and reading.get("ids").ok:
            wanted[role] = tuple(dict.fromkeys((reading.get("ids").stdout or "").split()))
    second = read_nodes(
        {role: runners[role] for role in wanted},
        {role: [_inspect(image) for image in images] for role, images in wanted.items()},
    )
    return {
        role: _listed(loaded, first[role], second[role], wanted[role]) if role in wanted else None for role in runners
    }


def _inspect(image: str) -> Command:
    return Command(image, ("docker", "image", "inspect", image), root=True)


def _listed(loaded: LoadedSite, first: NodeReading, second: NodeReading, ids: tuple[str, ...]) -> tuple[Listed, ...]:
    running = (first.get("rank").stdout or "").strip() if first.get("rank").ok else None
    images: list[ImageFacts] = []
    for image_id in ids:
        result = second.get(image_id)
        if result.ok:
            images.append(parse_image_inspect(result.stdout or ""))
    return tuple(
        Listed(
            id=image.id,
            reference=image.references[0] if image.references else None,
            stages=image.label("stages"),
            vllm=image.label("vllm"),
            lock=image.label("lock"),
            size_bytes=image.size_bytes,
            wanted=image.id == loaded.site.image.id,
            running=image.id == running,
        )
        for image in images
    )
