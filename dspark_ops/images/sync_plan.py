"""What a sync will move, name, keep and take away, and what forbids it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dspark_ops.config.models import ROLES, RailSite, Role, Site
from dspark_ops.errors import RefusedError
from dspark_ops.facts.links import LinkFacts
from dspark_ops.images.inspection import ImageFacts
from dspark_ops.images.layers import lacking
from dspark_ops.images.sync_reading import HeldImage, SyncNode

_BY_CONTENT = re.compile(r".+@sha256:[0-9a-f]{64}|.+:(?:[A-Za-z0-9_][A-Za-z0-9_.-]*-)?[0-9a-f]{12}")
_STORAGE_DRIVER = "overlay2"
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


def names_its_content(reference: str) -> bool:
    """Whether a name can only mean one image: a digest, or a tag that ends in the 12 digits of a content hash."""
    return _BY_CONTENT.fullmatch(reference) is not None


def repository_of(reference: str) -> str:
    """A name without its tag or digest."""
    bare = reference.partition("@")[0]
    place, slash, last = bare.rpartition("/")
    return place + slash + last.partition(":")[0]


@dataclass(frozen=True)
class SyncPlan:
    """The steps, before anything is done. image: as the head has it.

    bring: the worker lacks the image; layers: the diff_ids it must be given for it. name: it lacks only the name.
    leftover: nothing to bring, but an earlier run's spool is still there. previous and drop: ids on the worker.
    """

    image: ImageFacts
    reference: str
    bring: bool
    layers: tuple[str, ...]
    name: bool
    leftover: tuple[Role, ...]
    rail: RailSite
    previous: str | None
    drop: tuple[str, ...]
    spooled: bool

    @property
    def changes(self) -> bool:
        return self.bring or self.name or bool(self.leftover)

    @property
    def previous_name(self) -> str:
        return f"{repository_of(self.reference)}:previous"

    def render(self, site: Site) -> str:
        """The plan for people."""
        lines = [f"plan for site {site.name}: image {self.reference} ({self.image.id[:19]}) from head to worker"]
        if self.bring:
            ends = f"{self.rail.head.address.ip} -> {self.rail.worker.address.ip}"
            lines.append(
                f"  move  {len(self.layers)} of {len(self.image.layers)} layers over {self.rail.name} ({ends})"
                + ("; what an earlier run brought is kept" if self.spooled else "")
            )
            lines.append(f"  load  them into the Engine of the worker ({site.nodes.worker.host})")
            if self.previous is not None:
                lines.append(f"  keep  {self.previous[:19]} there as {self.previous_name}")
            lines += [f"  drop  {old[:19]} there, an older image of ours that nothing uses" for old in self.drop]
        elif self.name:
            lines.append(f"  name  the image on the worker ({site.nodes.worker.host})")
        lines += [f"  clean what an earlier run left in the spool of the {role}" for role in self.leftover]
        if not self.changes:
            lines.append("  nothing to change")
        return "\n".join(lines)


def plan_sync(site: Site, nodes: Mapping[Role, SyncNode]) -> SyncPlan:
    """Decide what to move, or refuse.

    Raises:
        RefusedError: the name can move or has moved, the head lacks the image, an Engine counts ids otherwise, or no
            rail is up; nothing was changed.
    """
    wanted, reference = site.image.id, site.image.reference
    head, worker = nodes["head"], nodes["worker"]
    _refuse_names(site, nodes)
    _refuse_engines(nodes)
    image = head.image(wanted)
    if image is None:
        raise RefusedError(
            f"the head ({head.host}) has no image {wanted} ({reference}) [image.absent]",
            hint="`dspark-ops image build PROFILE --on head` makes it there; `dspark-ops deploy` loads an archive",
        )
    bring = worker.image(wanted) is None
    name = not bring and "@" not in reference and worker.named(reference) is None
    previous, drop = _kept_and_dropped(site, image, worker) if bring else (None, ())
    return SyncPlan(
        image=image,
        reference=reference,
        bring=bring,
        layers=lacking(image.layers, (held.facts.layers for held in worker.images)) if bring else (),
        name=name,
        leftover=() if bring or name else tuple(role for role in ROLES if nodes[role].spooled),
        rail=_first_rail(site, nodes, needed=bring),
        previous=previous,
        drop=drop,
        spooled=wanted in worker.spooled,
    )


def _refuse_names(site: Site, nodes: Mapping[Role, SyncNode]) -> None:
    wanted, reference = site.image.id, site.image.reference
    if not names_its_content(reference):
        raise RefusedError(
            f"image.reference is {reference}: expected a digest, or a tag that ends in 12 digits of a content hash; "
            f"another tag can mean another image tomorrow [image.mutable_tag]",
            hint="take the name that `dspark-ops image build` gave it (`dspark-ops image list`)",
        )
    moved = [
        f"{role}: {reference} is {found} there and {wanted} in the site [image.moved_tag]"
        for role in ROLES
        if (found := nodes[role].named(reference)) not in (None, wanted)
    ]
    if moved:
        raise RefusedError(
            "\n".join(moved) + "\nnothing was changed on either node",
            hint="find out who moved the name, then set image.id and image.reference of the site to one image",
        )


def _refuse_engines(nodes: Mapping[Role, SyncNode]) -> None:
    other = [
        f"{role} ({nodes[role].host}): the Docker Engine uses the storage driver {nodes[role].storage_driver}, "
        f"expected {_STORAGE_DRIVER}: another one gives the same image another id [host.docker_down]"
        for role in ROLES
        if nodes[role].storage_driver != _STORAGE_DRIVER
    ]
    if other:
        raise RefusedError("\n".join(other), hint='set "storage-driver" in /etc/docker/daemon.json there')


def _first_rail(site: Site, nodes: Mapping[Role, SyncNode], *, needed: bool) -> RailSite:
    down = []
    for rail in site.fabric.rails:
        reason = next((why for role in ROLES if (why := _why_down(rail, nodes[role])) is not None), None)
        if reason is None:
            return rail
        down.append(reason)
    if needed:
        raise RefusedError(
            "no rail is up, and the image goes over none other:\n"
            + "\n".join(f"  - {reason}" for reason in down)
            + "\nnothing was changed [image.no_rail]",
            hint="`dspark-ops fabric verify` names what is wrong, `dspark-ops fabric apply` configures the rails",
        )
    return site.fabric.rails[0]


def _why_down(rail: RailSite, node: SyncNode) -> str | None:
    return why_down(rail, node.role, node.link(rail.of(node.role).netdev))


def why_down(rail: RailSite, role: Role, link: LinkFacts | None) -> str | None:
    """Why one end of a rail cannot carry a transfer, or None: it has a link and the site's address."""
    end = rail.of(role)
    if link is None or not link.admin_up or not link.carrier:
        return f"{rail.name}: {end.netdev} of the {role} has no link"
    if end.address not in link.ipv4:
        return f"{rail.name}: {end.netdev} of the {role} has no {end.address}"
    return None


def _kept_and_dropped(site: Site, wanted: ImageFacts, worker: SyncNode) -> tuple[str | None, tuple[str, ...]]:
    """The image to keep beside the new one: the rank's, else the one named last; and our older ones to take away.

    Only images with our label whose every name is in the same repository. An image of a lower stage is no release: it
    stays as long as an image on the same lock does.
    """
    repository = repository_of(site.image.reference)
    ours = [held for held in worker.images if _is_ours(held, repository) and held.facts.id != site.image.id]
    ours.sort(key=lambda held: held.tagged_at or _NEVER, reverse=True)
    releases = [held.facts for held in ours if held.facts.label("stage") == wanted.label("stage")]
    ids = [image.id for image in releases]
    previous = worker.rank_image if worker.rank_image in ids else next(iter(ids), None)
    locks = {image.label("lock") for image in (*releases, wanted) if image.id in (previous, wanted.id)}
    stages = [held.facts.id for held in ours if held.facts not in releases and held.facts.label("lock") not in locks]
    return previous, (*(identity for identity in ids if identity != previous), *stages)


def _is_ours(held: HeldImage, repository: str) -> bool:
    names = held.facts.references
    return held.facts.label("image") is not None and bool(names) and all(repository_of(n) == repository for n in names)
