"""The serving image: there, under its name, and the same bytes on both ranks."""

from __future__ import annotations

from dspark_ops.doctor.outcome import (
    FactMissingError,
    NodeView,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    judge,
    need,
    ok,
    rank_of,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.image_detail import ImageDetail

_DOCKER_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}
#: What is another value on the other node, or has to be absent.
_PER_NODE = ("VLLM_HOST_IP", "NCCL_IB_GID_INDEX", "NCCL_IB_HCA", "MASTER_ADDR", "NODE_RANK", "RANK", "LOCAL_RANK")


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
    if wanted in held:
        return ok(f"{reference} is {short(wanted)}")
    return fail(f"{reference} points at {', '.join(map(short, held))}", f"{short(wanted)}, as image.id says")


@pair_rule("image.digest_parity")
def image_digest_parity(view: PairView) -> Outcome:
    """Both rank containers were made from the same image id, and it is the site's."""
    found = {node.role: rank_of(node, view.site) for node in view.facts.nodes}
    used = {role: need(rank.image_id, f"the {role}'s image id") for role, rank in found.items() if rank is not None}
    if not used:
        raise NotApplicableError("nothing is deployed")
    wanted = view.site.image.id
    shown = ", ".join(f"{role} {short(image)}" for role, image in used.items())
    if min(used.values()) != max(used.values()):
        return fail(f"the ranks have different images: {shown}", f"{short(wanted)} on both")
    if wanted not in used.values():
        return fail(f"the deployed image is not the site's: {shown}", f"{short(wanted)} on both")
    return ok(f"{short(wanted)} on both")


def described(view: NodeView) -> ImageDetail:
    """The site's image as this node describes it.

    Raises:
        FactMissingError: it could not be read.
        NotApplicableError: it is not here, which image.present tells.
    """
    if all(image.id != view.site.image.id for image in need(view.node.images, "the images")):
        raise NotApplicableError("the site's image is not on this node")
    return need(view.node.image, "the description of the image")


@node_rule("image.architecture")
def image_architecture(view: NodeView) -> Outcome:
    """The image is built for this machine: another one fails at its first program, or crawls under emulation."""
    built = need(described(view).architecture, "the image's architecture")
    system = need(view.node.system, "the node's architecture")
    machine = need(system.arch, "the node's architecture")
    wanted = _DOCKER_NAMES.get(machine, machine)
    return ok(built) if built == wanted else fail(f"the image is for {built}", f"{wanted}, as this node ({machine})")


@node_rule("image.profile_label")
def image_profile_label(view: NodeView) -> Outcome:
    """The image has the vLLM release, its build and the changes that the site's profile is made for."""
    image, profile = described(view), view.profile
    wanted = {
        "vllm": profile.vllm,
        "release": profile.image.release.distribution,
        "lane": profile.image.lane,
    }
    found = {name: told for name in wanted if (told := image.label(name)) is not None}
    if not found:
        raise NotApplicableError("the image has no label of ours")
    problems = [f"{name} is {told}, expected {wanted[name]}" for name, told in found.items() if told != wanted[name]]
    return judge(problems, ", ".join(f"{n} {t}" for n, t in found.items()), f"what profile {profile.name} is made for")


@node_rule("image.baked_rank")
def image_baked_rank(view: NodeView) -> Outcome:
    """Nothing that differs between the nodes is baked into the image."""
    image = described(view)
    problems = [f"{name}={image.env[name]} is baked in" for name in _PER_NODE if name in image.env]
    problems += [f"{word} is baked in" for word in image.command if word.startswith(("--node-rank", "--master-addr"))]
    return judge(problems, "nothing of a node is baked in", "addresses and ranks rendered for each node")


@node_rule("image.engine_release")
def image_engine_release(view: NodeView) -> Outcome:
    """The release has this model, its drafting and kernels for GB10."""
    if not view.profile.gpu or view.profile.image.lane != "current":
        raise NotApplicableError(f"profile {view.profile.name} does not rest on this release's own kernels")
    version = described(view).label("vllm")
    if version is None:
        raise NotApplicableError("the image has no label of ours that names its vLLM")
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    if not (major.isdecimal() and minor.isdecimal()):
        raise FactMissingError(f"the vLLM release {version!r} of the image could not be read")
    floor, broken = view.limits["min_minor"], view.limits["broken_minor"]
    expected = f"vLLM 0.{floor:g} or later, and not 0.{broken:g}"
    if int(major) == 0 and (int(minor) < floor or int(minor) == broken):
        return fail(f"vLLM {version}", expected)
    return ok(f"vLLM {version}")
