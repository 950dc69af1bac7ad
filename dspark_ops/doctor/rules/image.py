"""The serving image: there, under its name, and the same bytes on both ranks."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, need, ok, rank_of
from dspark_ops.doctor.registry import node_rule, pair_rule


def short(image_id: str) -> str:
    """An image id that a person can compare: the first twelve digits."""
    return image_id.removeprefix("sha256:")[:12]


@node_rule("image.present")
def image_present(view: NodeView) -> Outcome:
    """The site's image id is in the node's store."""
    wanted = view.site.image.id
    if any(image.id == wanted for image in need(view.node.images, "the images")):
        return ok(f"{short(wanted)} is here")
    held = [short(i.id) for i in view.node.images or () if view.site.image.reference in i.references]
    shown = f"; {view.site.image.reference} is {held[0]} here" if held else ""
    return fail(f"the image {short(wanted)} is not on this node{shown}", f"{short(wanted)} in the node's store")


@node_rule("image.reference")
def image_reference(view: NodeView) -> Outcome:
    """The image's name still points at the id that the site fixed."""
    images = need(view.node.images, "the images")
    reference, wanted = view.site.image.reference, view.site.image.id
    held = [image.id for image in images if reference in image.references]
    if not held:
        raise NotApplicableError(f"no image is named {reference} here")
    if held[0] == wanted:
        return ok(f"{reference} is {short(wanted)}")
    return fail(f"{reference} points at {short(held[0])}", f"{short(wanted)}, as image.id says")


@pair_rule("image.digest_parity")
def image_digest_parity(view: PairView) -> Outcome:
    """Both rank containers were made from the same image id, and it is the site's."""
    found = {node.role: rank_of(node, view.site) for node in view.facts.nodes}
    used = {role: need(rank.image_id, f"the {role}'s image id") for role, rank in found.items() if rank is not None}
    if not used:
        raise NotApplicableError("nothing is deployed")
    wanted = view.site.image.id
    shown = ", ".join(f"{role} {short(image)}" for role, image in used.items())
    if len(set(used.values())) > 1:
        return fail(f"the ranks have different images: {shown}", f"{short(wanted)} on both")
    if set(used.values()) != {wanted}:
        return fail(f"the deployed image is not the site's: {shown}", f"{short(wanted)} on both")
    return ok(f"{short(wanted)} on both")
