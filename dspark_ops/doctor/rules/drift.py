"""Desired, configured, effective: what the site renders to, what a container was given, what its process runs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dspark_ops.deploy.spec import cache_volume, render_pair
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
    warn,
)
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.doctor.rules.ranks import both_ranks
from dspark_ops.facts.rank import HIDDEN, RankFacts
from dspark_ops.releases.effective import own_argv
from dspark_ops.releases.model import hide_argv

_GIB = 1 << 30
_CODE = ("/site-packages", "/dist-packages")
#: Judged by service.env_host_ip, and by the checks of NCCL, by what each of them means.
_OWN_CHECKS = ("VLLM_HOST_IP",)
_OF_NCCL = ("NCCL_", "GLOO_", "TP_", "UCX_")


@node_rule("config.container_as_rendered")
def container_as_rendered(view: NodeView) -> Outcome:
    """A container that calls itself the site's release has that release's arguments and variables."""
    rank, spec = view.rank(), render_pair(view.site, view.profile)[view.role]
    if rank.label("release") != spec.release:
        raise NotApplicableError("another release is deployed, which service.release_current tells")
    args = need(rank.args or None, "the arguments of the rank")
    problems = _words(spec.command, args)
    problems += [
        f"{name} is {_shown(rank.env, name)}, expected {value!r}"
        for name, value in sorted(spec.env.items())
        if name not in _OWN_CHECKS and not name.startswith(_OF_NCCL) and rank.env.get(name) not in (value, HIDDEN)
    ]
    return judge(problems, f"as release {spec.release} renders", "exactly what the site file renders to")


def _ours(view: NodeView) -> RankFacts:
    """This node's rank, made by this tool: only then its mounts follow from the site.

    Raises:
        FactMissingError, NotApplicableError: as rank; somebody else made it.
    """
    rank = view.rank()
    if rank.label("spec") is None:
        raise NotApplicableError("the container was not made by dspark-ops")
    return rank


def _words(wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    """What one list has and the other has not; the order alone when nothing else differs."""
    missing = [word for word in wanted if word not in found]
    added = [word for word in found if word not in wanted]
    told = [f"without {word}" for word in hide_argv(missing)] + [f"with {word}" for word in hide_argv(added)]
    return told or ([] if list(wanted) == list(found) else ["the arguments are in another order or given twice"])


def _shown(env: Mapping[str, str], name: str) -> str:
    return repr(env[name]) if name in env else "not set"


@node_rule("config.process_as_container")
def process_as_container(view: NodeView) -> Outcome:
    """The first process of the container runs with the arguments that the container was given."""
    rank = view.running_rank()
    args = need(rank.args or None, "the arguments of the rank")
    processes = need(view.node.rank_processes, "the processes of the rank's container")
    pid = need(rank.main_pid, "the number of the first process")
    main = next((process for process in processes if process.pid == pid), None)
    words = need(None if main is None else main.words, f"the command line of process {pid}")
    if " ".join(words).startswith("VLLM::"):
        raise FactMissingError("the first process has renamed itself")
    # A process list splits at blanks, so that a word with one is two.
    asked = " ".join(" ".join(hide_argv(args)).split())
    found = " ".join(own_argv(args, words))
    if asked == found:
        return ok("the process was given what the container was")
    differing = _words(asked.split(), found.split())
    return fail("; ".join(differing)[:400], "the arguments of the container, word for word")


@pair_rule("config.environment_parity")
def environment_parity(view: PairView) -> Outcome:
    """Both ranks have the same variables, those apart that are rendered for each node."""
    head, worker = both_ranks(view)
    first, second = (spec.env for spec in render_pair(view.site, view.profile).values())
    own = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    problems = [
        f"{name}: head {_shown(head.env, name)}, worker {_shown(worker.env, name)}"
        for name in sorted(head.env.keys() | worker.env.keys())
        if name not in own and not name.startswith(_OF_NCCL) and head.env.get(name) != worker.env.get(name)
    ]
    return judge(problems, f"{len(head.env)} variables agree", "the same variables, those of the node apart")


@node_rule("config.shared_memory")
def shared_memory(view: NodeView) -> Outcome:
    """The rank has the shared memory that the site gives it, and never less than a start takes."""
    rank = view.rank()
    if rank.ipc_mode == "host":
        raise NotApplicableError("the rank shares the node's own memory for messages (ipc host)")
    size = need(rank.shm_size_bytes, "the size of the rank's shared memory") / _GIB
    floor, wanted = view.limits["min_gib"], float(view.site.serve.shm_size_gib)
    expected = f"{wanted:g} GiB (serve.shm_size_gib), at least {floor:g}"
    if size < floor:
        return fail(f"{size:g} GiB of shared memory", expected)
    if size < wanted:
        return warn(f"{size:g} GiB of shared memory", expected)
    return ok(f"{size:g} GiB of shared memory")


@node_rule("weights.mount")
def weights_mount(view: NodeView) -> Outcome:
    """The rank reads the site's weights, from the directory that is checked here, and cannot write into them."""
    rank, spec = _ours(view), render_pair(view.site, view.profile)[view.role]
    wanted = next(iter(spec.mounts), None)
    if wanted is None:
        raise NotApplicableError("the weights are in the image")
    source, target = str(wanted["source"]), str(wanted["target"])
    mounts = need(rank.mounts, "the mounts of the rank")
    found = next((mount for mount in mounts if mount.target == target), None)
    expected = f"{source} at {target}, read-only"
    if found is None:
        return fail(f"nothing is mounted at {target}", expected)
    if found.source != source:
        return fail(f"{found.source} is mounted at {target}", expected)
    if not need(found.read_only, "whether the weights are mounted read-only"):
        return warn(f"{source} is mounted writable", expected)
    return ok(expected)


@node_rule("image.made_by_id")
def image_made_by_id(view: NodeView) -> Outcome:
    """The rank was made from an id or a digest: a name may have moved since, and moves before the next start."""
    words = need(view.rank().made_from, "the image by which the rank was made")
    if words.startswith("sha256:") or "@sha256:" in words:
        return ok("made from an id")
    return fail(f"made from the name {words}", "an image id, or a name with its digest")


@node_rule("image.no_source_mounts")
def image_no_source_mounts(view: NodeView) -> Outcome:
    """No file of the node lies over the image's code."""
    rank = view.rank()
    mounts = need(rank.mounts, "the mounts of the rank")
    problems = [
        f"{mount.source} lies over {mount.target}"
        for mount in mounts
        if mount.target.endswith(".py") or any(place in mount.target for place in _CODE)
    ]
    return judge(problems, "the code is the image's own", "no mount over the engine's code")


@node_rule("image.cache_per_image")
def image_cache_per_image(view: NodeView) -> Outcome:
    """Compiled kernels are kept on the node, and only for the image that compiled them."""
    rank, spec = _ours(view), render_pair(view.site, view.profile)[view.role]
    volume = next(iter(spec.volumes), None)
    if volume is None:
        raise NotApplicableError(f"profile {view.profile.name} keeps no compile caches")
    mounts = need(rank.mounts, "the mounts of the rank")
    target, wanted = volume["target"], cache_volume(need(rank.image_id, "the image of the rank"))
    expected = f"the volume {wanted} at {target}"
    found = next((mount for mount in mounts if mount.target == target), None)
    if found is None:
        return warn("no cache is kept: every start compiles again", expected)
    if found.kind != "volume" or found.source != wanted:
        return fail(f"the {found.kind} {found.source} is at {target}", expected)
    return ok(expected)
