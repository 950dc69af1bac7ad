"""What a sync needs to know of both nodes: their Engines, images, links and what an earlier run left. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.errors import NoVerdictError
from dspark_ops.facts import docker_engine, links, rank
from dspark_ops.facts.links import LinkFacts
from dspark_ops.images.inspection import ImageFacts, parse_image_inspect
from dspark_ops.report.models import NodeReport
from dspark_ops.transport.base import Command, NodeReading, Probe
from dspark_ops.transport.ssh import SshRunner, read_nodes

#: Where layers are kept on their way, on both nodes.
SPOOL = "/var/cache/dspark-ops/image-sync"

_PROBES: tuple[Probe, ...] = (
    *docker_engine.PROBES,
    *rank.PROBES[:1],
    *links.PROBES,
    Command("sync.spool", ("ls", "-1", SPOOL), root=True),
)


@dataclass(frozen=True)
class HeldImage:
    """One image of an Engine. tagged_at: when it was last given a name there, None if never."""

    facts: ImageFacts
    tagged_at: datetime | None


@dataclass(frozen=True)
class SyncNode:
    """One node as a sync sees it. rank_image: of our container there, running or not; spooled: its kept image ids."""

    role: Role
    host: str
    storage_driver: str | None
    images: tuple[HeldImage, ...]
    links: tuple[LinkFacts, ...]
    rank_image: str | None
    spooled: tuple[str, ...]

    def image(self, identity: str) -> ImageFacts | None:
        """An image by id, or None."""
        return next((held.facts for held in self.images if held.facts.id == identity), None)

    def named(self, reference: str) -> str | None:
        """The id that a name has here, or None."""
        return next((held.facts.id for held in self.images if reference in held.facts.references), None)

    def link(self, netdev: str) -> LinkFacts | None:
        """A network device, or None."""
        return next((link for link in self.links if link.name == netdev), None)


def read_sync(site: Site, runners: Mapping[Role, SshRunner]) -> tuple[dict[Role, SyncNode], tuple[NodeReport, ...]]:
    """Both nodes, in two round trips: what is there, then what each image consists of.

    Raises:
        NoVerdictError: a node, its Engine or its links could not be read.
    """
    first = read_nodes(runners, dict.fromkeys(ROLES, _PROBES))
    reports = tuple(_report(site, role, first[role]) for role in ROLES)
    failures = [failure for role in ROLES if (failure := _why_not(site, role, first[role])) is not None]
    if failures:
        raise NoVerdictError(
            "\n".join(text for text, _ in failures) + "\nnothing was changed on either node",
            hint="; ".join(dict.fromkeys(hint for _, hint in failures)),
        )
    second = read_nodes(runners, {role: _inspections(first[role]) for role in ROLES})
    return {role: _node(site, role, first[role], second[role]) for role in ROLES}, reports


def _report(site: Site, role: Role, reading: NodeReading) -> NodeReport:
    return NodeReport(
        role=role,
        host=site.nodes.of(role).host,
        reachable=reading.reachable,
        error=reading.error,
        round_trip_s=round(reading.elapsed_s, 3),
    )


def _why_not(site: Site, role: Role, reading: NodeReading) -> tuple[str, str] | None:
    where = f"{role} ({site.nodes.of(role).host})"
    if not reading.reachable:
        return f"{role}: {reading.error}", reading.hint or "look at the node"
    if reading.sudo is False:
        return f"{where}: {reading.user} may not use sudo without a password", "allow it in /etc/sudoers.d there"
    engine = docker_engine.read_engine(reading)
    if engine is None or not engine.answers:
        why = (engine.error if engine else None) or "no answer"
        return f"{where}: the Docker Engine does not answer: {why}", "`dspark-ops bootstrap` starts it"
    if docker_engine.read_images(reading) is None or not rank.rank_known(reading):
        return f"{where}: its images and containers cannot be read", "`dspark-ops doctor`"
    if links.read_links(reading) is None:
        return f"{where}: its links cannot be read", "`dspark-ops doctor`"
    return None


def _inspections(reading: NodeReading) -> tuple[Command, ...]:
    found = docker_engine.read_images(reading) or ()
    return tuple(Command(image.id, ("docker", "image", "inspect", image.id), root=True) for image in found)


def _node(site: Site, role: Role, first: NodeReading, second: NodeReading) -> SyncNode:
    engine, ours = docker_engine.read_engine(first), rank.read_rank(first)
    spooled = (first.get("sync.spool").text() or "").split()
    return SyncNode(
        role=role,
        host=site.nodes.of(role).host,
        storage_driver=engine.storage_driver if engine else None,
        images=tuple(_held(role, image.id, second) for image in docker_engine.read_images(first) or ()),
        links=links.read_links(first) or (),
        rank_image=ours.image_id if ours else None,
        spooled=tuple(f"sha256:{name}" for name in spooled if len(name) == 64),
    )


def _held(role: Role, identity: str, reading: NodeReading) -> HeldImage:
    text = reading.get(identity).text()
    if text is None:
        raise NoVerdictError(f"{role}: the image {identity} cannot be read", hint="run again")
    return HeldImage(parse_image_inspect(text), tagged_at(text))


def tagged_at(text: str) -> datetime | None:
    """`Metadata.LastTagTime` of `docker image inspect`: the year 1 stands for never."""
    try:
        [document] = json.loads(text)
        when = datetime.fromisoformat(document["Metadata"]["LastTagTime"])
    except (ValueError, LookupError, TypeError):
        return None
    return when if when.year > 1 else None
