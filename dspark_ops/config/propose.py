"""From what was seen on two nodes to the site that fits them. Pure, but for the cache that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dspark_ops.config.discover import ENGINE_LABEL, InitRequest, NodeSeen, given_image, supernets_of
from dspark_ops.config.load import load_profile
from dspark_ops.config.models import ROLES, ImageSite, Profile, RailSite, Role
from dspark_ops.errors import ConfigError, RefusedError
from dspark_ops.fabric.cabling import sightings
from dspark_ops.fabric.rails import pair_ports, plan_addresses
from dspark_ops.paths import cache_dir


class CachedImage(Protocol):
    """What is needed of a built engine image: the rehearsal's cache answers with one."""

    @property
    def reference(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def archive(self) -> Path: ...


ImageCache = Callable[[], CachedImage | None]


@dataclass(frozen=True)
class SiteDraft:
    """The proposed site and what it rests on. adopted: rails that keep the addresses they have."""

    request: InitRequest
    profile: Profile
    rails: tuple[RailSite, ...]
    adopted: tuple[str, ...]
    image: ImageSite
    nodes: Mapping[Role, NodeSeen]
    notes: tuple[str, ...]


def propose(request: InitRequest, nodes: Mapping[Role, NodeSeen], cache: ImageCache) -> SiteDraft:
    """The site that fits what was seen. cache: the rehearsal's built engine image, or None.

    Raises RefusedError where the fabric is ambiguous or both names are one machine, ConfigError without an image.
    """
    notes = list(_identity_notes(nodes))
    profile = load_profile(request.profile or ("rehearsal" if all(n.rehearsed for n in nodes.values()) else "current"))
    ports = {role: nodes[role].ports() for role in ROLES}
    pairing = pair_ports(ports["head"], ports["worker"], sightings(ports, nodes))
    used = [network for role in ROLES for network in nodes[role].used_networks()]
    plan = plan_addresses(pairing.pairs, used, supernets_of(request))
    image, image_note = _choose_image(request, profile, nodes, cache)
    notes += [*pairing.notes, *plan.notes, image_note]
    for role in ROLES:
        arch = nodes[role].system.arch
        if arch is not None and arch != profile.architecture:
            notes.append(f"{role}: is {arch}, and profile {profile.name} is made for {profile.architecture}")
        if nodes[role].sudo is False:
            notes.append(f"{role}: sudo asks for a password; init only reads, but bootstrap and deploy need it without")
    return SiteDraft(request, profile, plan.rails, plan.adopted, image, dict(nodes), tuple(notes))


def _identity_notes(nodes: Mapping[Role, NodeSeen]) -> Sequence[str]:
    head, worker = nodes["head"], nodes["worker"]
    shared = head.hardware_macs() & worker.hardware_macs()
    same_id = head.machine_id is not None and head.machine_id == worker.machine_id
    unsure = not head.hardware_macs() or not worker.hardware_macs()
    if shared or (same_id and unsure):
        proof = f"both have the port {sorted(shared)[0]}" if shared else "both have the same /etc/machine-id"
        raise RefusedError(
            f"{head.host} and {worker.host} are the same machine ({proof}), expected two",
            hint="check the two names in the SSH configuration or in DNS",
        )
    if same_id:
        text = (
            "both nodes have the same /etc/machine-id, as after cloning a disk, and DHCP may give them one address; "
            "run `sudo rm /etc/machine-id && sudo systemd-machine-id-setup` on one and reboot it"
        )
        return [text]
    return []


def _choose_image(
    request: InitRequest, profile: Profile, nodes: Mapping[Role, NodeSeen], cache: ImageCache
) -> tuple[ImageSite, str]:
    """The image and where it came from: given, built for the rehearsal, or already on both nodes."""
    given = given_image(request)
    if given is not None:
        return given, "image: as given on the command line"
    if not profile.gpu:
        cached = cache()
        if cached is not None:
            image = ImageSite(reference=cached.reference, id=cached.image_id, archive=cached.archive)
            return image, "image: the engine that was built for the rehearsal on this machine"
    common = _common_images(nodes)
    if len(common) == 1:
        return common[0], f"image: the only one labelled {ENGINE_LABEL} that both nodes hold"
    if common:
        listed = ", ".join(f"{image.reference} ({image.id[:19]}...)" for image in common)
        raise ConfigError(
            f"both nodes hold {len(common)} images labelled {ENGINE_LABEL}: {listed}",
            hint="choose one with --image-reference and --image-id",
        )
    hint = "pass --image-reference and --image-id (and --image-archive, a `docker save` file, if the nodes lack it)"
    if not profile.gpu:
        hint = f"build it with `dspark-ops lab up`, or {hint}"
    silent = [f"{role}'s Docker did not answer" for role in ROLES if nodes[role].engine_images is None]
    unknown = f" ({', '.join(silent)})" if silent else ""
    raise ConfigError(
        f"which image profile {profile.name} shall serve is not known: none was given, and no image labelled "
        f"{ENGINE_LABEL} was found on both nodes{unknown}",
        hint=hint,
    )


def _common_images(nodes: Mapping[Role, NodeSeen]) -> list[ImageSite]:
    theirs = {image.id for image in nodes["worker"].engine_images or ()}
    found = []
    for image in nodes["head"].engine_images or ():
        for reference in image.references:
            if image.id in theirs and not reference.endswith(":latest"):
                found.append(ImageSite(reference=reference, id=image.id))
                break
    return found


def rehearsal_image() -> CachedImage | None:
    """The rehearsal's image that was built on this machine, None when there is none. Never builds."""
    from dspark_ops.images.build import cached_image

    return cached_image(load_profile("rehearsal"), cache_dir() / "images")
