"""What the rank's container can do with RDMA, and what NCCL inside it said that it does."""

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
from dspark_ops.facts.nccl_log import NcclLogFacts, parse_nccl_log
from dspark_ops.facts.rank_rdma import RankRdma
from dspark_ops.facts.snapshot import NodeFacts

_WEIGHTS = "weights_loaded"


def _container(view: NodeView) -> RankRdma:
    """The configuration of this node's running rank, where its engine uses RDMA at all."""
    view.running_rank()
    if not view.profile.gpu:
        raise NotApplicableError("the engine of this profile uses no RDMA")
    return need(view.node.rank_rdma, "the configuration of the rank's container")


@node_rule("nccl.rdma_device")
def rdma_device(view: NodeView) -> Outcome:
    """The rank's container was given /dev/infiniband."""
    found = _container(view)
    if found.sees_rdma:
        return ok("privileged" if found.privileged else ", ".join(found.devices))
    shown = ", ".join(found.devices) or "none"
    return fail(f"the rank has no /dev/infiniband; its devices: {shown}", "/dev/infiniband among its devices")


@node_rule("nccl.memlock")
def memlock(view: NodeView) -> Outcome:
    """The rank may lock as much memory as RDMA registers."""
    found = _container(view)
    if found.locks_memory:
        return ok("no limit of locked memory holds it")
    shown = "the Engine's default" if found.memlock is None else f"{found.memlock} bytes"
    return fail(f"the rank's limit of locked memory is {shown}, and it has no IPC_LOCK", "memlock unlimited (-1)")


@node_rule("nccl.host_network")
def host_network(view: NodeView) -> Outcome:
    """The rank shares the host's network, where the rails and their GIDs are."""
    mode = need(view.running_rank().network_mode, "the network of the rank's container")
    return judge([] if mode == "host" else [f"the rank's network is {mode}"], "host", "network mode host")


def nccl_log(node: NodeFacts) -> NcclLogFacts:
    """What NCCL's lines in the rank's log say.

    Raises:
        FactMissingError: the log was not read, or not far enough.
    """
    log = need(node.engine_log, f"the log of the {node.role}'s rank")
    lines = [line.text for hit in log.hits for line in hit.lines]
    found = need(parse_nccl_log("\n".join(lines)), f"the log of the {node.role}'s rank")
    # NCCL speaks before the weights are there: what is cut behind that line hides none of its lines.
    if found.version is None and not found.devices and log.cut is not None and log.hit(_WEIGHTS) is None:
        raise FactMissingError(f"the log of the {node.role}'s rank could not be read as far as NCCL's lines")
    return found


def _version(node: NodeFacts) -> str:
    """The version of NCCL that the rank's log names.

    Raises:
        FactMissingError: the log was not read, or not far enough.
        NotApplicableError: no line of it names one.
    """
    version = nccl_log(node).version
    if version is None:
        raise NotApplicableError(f"no line in the log of the {node.role}'s rank names NCCL's version")
    return version


@node_rule("nccl.version_floor")
def version_floor(view: NodeView) -> Outcome:
    """NCCL is not older than the one in which a deadlock of its proxy on this CPU is gone."""
    view.running_rank()
    floor = tuple(int(view.limits[part]) for part in ("major", "minor", "patch"))
    version = _version(view.node)
    if tuple(map(int, version.split("."))) < floor:
        return fail(f"NCCL {version}", f"at least {'.'.join(map(str, floor))}")
    return ok(f"NCCL {version}")


@pair_rule("nccl.version_parity")
def version_parity(view: PairView) -> Outcome:
    """Both ranks run the same NCCL."""
    versions = []
    for node in view.facts.nodes:
        rank = rank_of(node, view.site)
        if rank is None or not rank.running:
            raise NotApplicableError(f"no rank of this site runs on the {node.role}")
        versions.append(_version(node))
    head, worker = versions
    if head == worker:
        return ok(f"NCCL {head} on both")
    return fail(f"NCCL {head} on the head, {worker} on the worker", "the same NCCL on both")


@node_rule("nccl.log_devices")
def log_devices(view: NodeView) -> Outcome:
    """NCCL said that it uses exactly the RDMA devices of the rails, and met the other rank over the first one."""
    view.running_rank()
    log = nccl_log(view.node)
    if not log.devices:
        raise NotApplicableError("NCCL's log does not list its devices: that takes NCCL_DEBUG=INFO")
    ends = [rail.of(view.role) for rail in view.site.fabric.rails]
    wanted, given = {end.hca for end in ends if end.hca}, set(log.hcas)
    problems = []
    if wanted - given:
        problems.append(f"NCCL does not use {', '.join(sorted(wanted - given))}")
    if given - wanted:
        problems.append(f"NCCL also uses {', '.join(sorted(given - wanted))}")
    if log.oob is not None and log.oob != ends[0].netdev:
        problems.append(f"the ranks met over {log.oob}, not over {ends[0].netdev}")
    return judge(problems, ", ".join(log.hcas), f"{', '.join(sorted(wanted))}; bootstrap over {ends[0].netdev}")
