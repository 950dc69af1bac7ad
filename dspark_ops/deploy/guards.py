"""What forbids a deploy before anything is changed: foreign containers, disk, ports, rails. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.fabric.gid_pin import pin_problems
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.facts.snapshot import NodeFacts, PairFacts

_GIB = 1 << 30
DOCKER_ROOT = "/var/lib/docker"


@dataclass(frozen=True)
class Refusal:
    """One reason to refuse, under the id of the doctor's check of the same thing."""

    check: str
    observed: str
    remedy: str


def foreign_containers(site: Site, pair: PairFacts) -> list[Refusal]:
    """A container of our name that is not this site's: it is never stopped."""
    out = []
    for role in ROLES:
        rank = pair.of(role).rank
        if rank is not None and rank.label("site") != site.name:
            owner = rank.label("site")
            whose = f"belongs to site {owner!r}" if owner else "carries no label of ours"
            out.append(
                Refusal(
                    "tenant.foreign_name",
                    f"{role}: a container named {RANK_CONTAINER} {whose}",
                    "rename or remove it there; only our own containers are ever stopped",
                )
            )
    return out


def image_guards(site: Site, roles: Iterable[Role], pair: PairFacts) -> list[Refusal]:
    """The image must be loadable: an archive, and room for it on every node that lacks it."""
    roles, archive = tuple(roles), site.image.archive
    if not roles:
        return []
    if archive is None:
        where = " and ".join(roles)
        text = f"image {site.image.id[:19]} is absent on {where} and the site names no archive"
        return [Refusal("image.present", text, "set image.archive, or load the image there")]
    if not archive.is_file():
        return [
            Refusal("image.present", f"the image archive {archive} does not exist", "build it, or mend image.archive")
        ]
    # The unpacked layers take the archive's size; docker load keeps a temporary copy of it meanwhile.
    need_gib = 2 * archive.stat().st_size / _GIB + site.guards.disk_floor_gib
    out = []
    for role in roles:
        free_gib = next((d.free_gib for d in pair.of(role).disks or () if d.path == DOCKER_ROOT), None)
        if free_gib is None:
            out.append(Refusal("host.disk_free", f"{role}: free disk space cannot be read", "`dspark-ops doctor`"))
        elif free_gib < need_gib:
            out.append(
                Refusal(
                    "host.disk_free",
                    f"{role}: {free_gib:.1f} GiB free for Docker; loading the image needs {need_gib:.1f} GiB, floor "
                    "included",
                    f"free space on {site.nodes.of(role).host}, or lower guards.disk_floor_gib",
                )
            )
    return out


def moved_tags(site: Site, pair: PairFacts) -> list[Refusal]:
    """The site's name of the image must not mean another image on either node: somebody counts on that one."""
    wanted, reference = site.image.id, site.image.reference
    return [
        Refusal(
            "image.moved_tag",
            f"{role}: {reference} is {image.id} there and {wanted} in the site",
            "find out who moved the name, then set image.id and image.reference of the site to one image",
        )
        for role in ROLES
        for image in pair.of(role).images or ()
        if reference in image.references and image.id != wanted
    ]


def start_guards(site: Site, pair: PairFacts) -> list[Refusal]:
    """Rails as planned, ports free; on both nodes, before either is touched. Memory is `deploy/clearing`."""
    out: list[Refusal] = []
    for role in ROLES:
        out += _rails(site, pair.of(role))
    return out + _ports(site, pair.head) + _gid_pin(site, pair)


def _gid_pin(site: Site, pair: PairFacts) -> list[Refusal]:
    """A pinned index that one device does not have hangs the pair after the model is loaded."""
    if site.fabric.gid_index is None:
        return []
    wrong, unread = pin_problems(site, site.fabric.gid_index, pair)
    told = [*wrong, *(f"{what} could not be read" for what in unread)]
    remedy = "remove fabric.gid_index: unset, NCCL finds the right entry of each device"
    return [Refusal("fabric.gid_index_valid", text, remedy) for text in told]


def _ports(site: Site, head: NodeFacts) -> list[Refusal]:
    own: set[int] = set()
    if head.rank is not None and head.rank.running:
        words = [word.partition("=") for word in head.rank.args]
        own = {int(value) for name, _, value in words if name in ("--port", "--master-port") and value.isdecimal()}
    if head.listeners is None:
        return [Refusal("tenant.port", "head: the listening ports cannot be read", "`dspark-ops doctor`")]
    taken = {listener.port: listener.process for listener in head.listeners}
    # What the running rank of ours listens on is free once it is gone.
    wanted = {site.serve.api_port, site.serve.master_port} - own
    return [
        Refusal(
            "tenant.port",
            f"head: port {port} is taken by {taken[port] or 'an unknown process'}",
            "stop its owner, or choose another port in the site",
        )
        for port in sorted(wanted & taken.keys())
    ]


def _rails(site: Site, node: NodeFacts) -> list[Refusal]:
    out = []
    for rail in site.fabric.rails:
        end, link = rail.of(node.role), node.link(rail.of(node.role).netdev)
        if link is None or end.address not in link.ipv4:
            text = f"{node.role}: {end.netdev} has no {end.address}"
            out.append(Refusal("fabric.address_planned", text, "`dspark-ops bootstrap`"))
        elif link.mtu != site.fabric.mtu:
            text = f"{node.role}: {end.netdev} has MTU {link.mtu}, the site wants {site.fabric.mtu}"
            out.append(Refusal("fabric.mtu", text, "`dspark-ops bootstrap`"))
    return out
