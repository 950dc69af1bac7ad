"""The NCCL settings of the running ranks beyond the rails: what turns RDMA off, what pins a choice, what differs."""

from __future__ import annotations

from collections.abc import Mapping

from dspark_ops.doctor.outcome import (
    NodeView,
    NotApplicableError,
    Outcome,
    PairView,
    fail,
    judge,
    need,
    ok,
    rank_of,
    warn,
)
from dspark_ops.doctor.registry import node_rule, pair_rule

_PREFIXES = ("NCCL_", "GLOO_", "TP_SOCKET", "UCX_")
# What names something of one node, which may be called otherwise on the other.
_PER_NODE = frozenset(
    {"NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"}
    | {"UCX_NET_DEVICES", "NCCL_DEBUG", "NCCL_DEBUG_FILE", "NCCL_DEBUG_SUBSYS", "NCCL_HOSTID"}
)
_GPU_DIRECT = ("NCCL_NET_GDR_LEVEL", "NCCL_NET_GDR_READ", "NCCL_NET_GDR_C2C", "NCCL_DMABUF_ENABLE")
_PINNED = (
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS", "NCCL_MAX_CTAS"),
    *("NCCL_NTHREADS", "NCCL_BUFFSIZE", "NCCL_TOPO_FILE", "NCCL_GRAPH_FILE", "NCCL_TUNER_PLUGIN", "NCCL_NET_PLUGIN"),
)
_MPI = ("UCX_NET_DEVICES", "OMPI_MCA_btl_tcp_if_include")
_QUIET = ("VERSION", "WARN", "")
_FOUR_RAILS = 4


@node_rule("nccl.net")
def net(view: NodeView) -> Outcome:
    """NCCL_NET is IB, so that NCCL fails where it would otherwise go over sockets without a word."""
    value = view.running_rank().env.get("NCCL_NET")
    if not value:
        shown = "is not defined" if value is None else "is defined and empty"
        return warn(f"NCCL_NET {shown} in the running rank: without RDMA it goes over sockets", "NCCL_NET=IB")
    return judge([] if value == "IB" else [f"NCCL_NET={value} in the running rank"], "IB", "NCCL_NET=IB")


@node_rule("nccl.ib_enabled")
def ib_enabled(view: NodeView) -> Outcome:
    """NCCL_IB_DISABLE does not turn RDMA off."""
    return _off(view, "NCCL_IB_DISABLE", "NCCL_IB_DISABLE not defined, or 0")


@node_rule("nccl.mnnvl")
def mnnvl(view: NodeView) -> Outcome:
    """NCCL_MNNVL_ENABLE does not ask for a fabric of NVLink between the boxes, which a pair of Sparks has not."""
    return _off(view, "NCCL_MNNVL_ENABLE", "NCCL_MNNVL_ENABLE not defined, or 0")


def _off(view: NodeView, name: str, expected: str) -> Outcome:
    value = view.running_rank().env.get(name)
    if not value or value == "0":
        return ok(f"{name} is {'not defined' if value is None else value or 'empty'}")
    return fail(f"{name}={value} in the running rank", expected)


@node_rule("nccl.gid_family")
def gid_family(view: NodeView) -> Outcome:
    """NCCL looks for RoCE v2 GIDs of IPv4 addresses, which are the only ones that the rails have."""
    env = view.running_rank().env
    wanted = {"NCCL_IB_ADDR_FAMILY": "AF_INET", "NCCL_IB_ROCE_VERSION_NUM": "2"}
    wrong = [f"{name}={env[name]}" for name, value in wanted.items() if env.get(name) and env[name] != value]
    expected = ", ".join(f"{name}={value}" for name, value in wanted.items())
    return judge([f"{text} in the running rank" for text in wrong], "IPv4 and RoCE v2", f"{expected}, or not defined")


@node_rule("nccl.cross_nic")
def cross_nic(view: NodeView) -> Outcome:
    """With four rails NCCL does not pair a device with one of another rail, which it cannot reach."""
    if len(view.site.fabric.rails) < _FOUR_RAILS:
        raise NotApplicableError("fewer than four rails")
    value = view.running_rank().env.get("NCCL_CROSS_NIC")
    bad = [f"NCCL_CROSS_NIC={value} in the running rank, and no rail reaches another"] if value == "1" else []
    return judge(bad, f"NCCL_CROSS_NIC is {value or 'not defined'}", "NCCL_CROSS_NIC=0")


@node_rule("nccl.gpu_direct")
def gpu_direct(view: NodeView) -> Outcome:
    """No variable asks for GPUDirect RDMA, which a GB10 has not."""
    env = view.running_rank().env
    found = [f"{name}={env[name]}" for name in _GPU_DIRECT if env.get(name) and env[name] not in ("0", "LOC")]
    return judge(found, "none is defined", "no variable of GPUDirect RDMA")


@node_rule("nccl.pinned_choices")
def pinned_choices(view: NodeView) -> Outcome:
    """Nothing pins what NCCL would choose by itself from the topology."""
    env = view.running_rank().env
    found = [f"{name}={env[name] or '(empty)'}" for name in _PINNED if env.get(name, "none") != "none"]
    return judge(found, "nothing is pinned", "algorithm, protocol, channels and plugins left to NCCL")


@node_rule("nccl.debug_level")
def debug_level(view: NodeView) -> Outcome:
    """The log level is that of a service, not of a proof run."""
    value = view.running_rank().env.get("NCCL_DEBUG")
    if (value or "").upper() in _QUIET:
        return ok(f"NCCL_DEBUG is {value or 'not defined'}")
    return fail(f"NCCL_DEBUG={value} in the running rank", "NCCL_DEBUG not defined, VERSION or WARN")


@node_rule("nccl.retries")
def retries(view: NodeView) -> Outcome:
    """The RDMA timeout and the retries are not below NCCL's own."""
    env = view.running_rank().env
    floors = {"NCCL_IB_TIMEOUT": view.limits["timeout"], "NCCL_IB_RETRY_CNT": view.limits["retries"]}
    low = [
        f"{name}={env[name]}, and NCCL's own is {floor:g}"
        for name, floor in floors.items()
        if env.get(name, "").strip().isdecimal() and int(env[name]) < floor
    ]
    return judge(low, "not below NCCL's own", ", ".join(f"{name} at least {floor:g}" for name, floor in floors.items()))


@node_rule("nccl.mpi_devices")
def mpi_devices(view: NodeView) -> Outcome:
    """The variables of UCX and Open MPI, where there are any, name a rail of this node."""
    env = view.running_rank().env
    ends = [rail.of(view.role) for rail in view.site.fabric.rails]
    known = {end.netdev for end in ends} | {end.hca for end in ends if end.hca}
    found = [
        f"{name}={env[name]}"
        for name in _MPI
        if env.get(name) and not {word.split(":")[0] for word in env[name].split(",")} <= known
    ]
    return judge(found, "none names another device", f"only {', '.join(sorted(known))}")


@node_rule("nccl.socket_exact")
def socket_exact(view: NodeView) -> Outcome:
    """NCCL_SOCKET_IFNAME takes one device: without "=" it is a prefix, and can take another one first."""
    value = view.running_rank().env.get("NCCL_SOCKET_IFNAME")
    if not value or value.startswith(("=", "^")):
        raise NotApplicableError("NCCL_SOCKET_IFNAME is exact, excludes, or is not defined")
    links = [link.name for link in need(view.node.links, "the network devices")]
    taken = [name for name in links if any(name.startswith(word) for word in value.split(",") if word)]
    if len(taken) > 1:
        return fail(f"NCCL_SOCKET_IFNAME={value} takes {', '.join(taken)}", f"NCCL_SOCKET_IFNAME=={value}")
    return ok(f"{value} takes {', '.join(taken) or 'nothing'}")


@pair_rule("nccl.env_parity")
def env_parity(view: PairView) -> Outcome:
    """Both running ranks were given the same settings, but for the names of their own devices."""
    given = {}
    for node in view.facts.nodes:
        rank = rank_of(node, view.site)
        if rank is None or not rank.running:
            raise NotApplicableError(f"no rank of this site runs on the {node.role}")
        given[node.role] = _shared(rank.env)
    head, worker = given["head"], given["worker"]
    told = [
        f"{name} is {_shown(head.get(name))} on the head and {_shown(worker.get(name))} on the worker"
        for name in sorted(head.keys() | worker.keys())
        if head.get(name) != worker.get(name)
    ]
    return judge(told, f"{len(head)} variables agree", "the same variables of NCCL, Gloo and UCX in both ranks")


def _shared(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_PREFIXES) and name not in _PER_NODE}


def _shown(value: str | None) -> str:
    return "not defined" if value is None else value or "(empty)"
