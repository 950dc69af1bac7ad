"""What the running rank was given for NCCL: read back from its environment, not from the site."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, PairView, fail, judge, need, ok, warn
from dspark_ops.doctor.registry import node_rule, pair_rule
from dspark_ops.facts.gids import roce_v2_indexes

GID_INDEX = "NCCL_IB_GID_INDEX"
SOCKET_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


@node_rule("nccl.gid_index_unset")
def gid_index_unset(view: NodeView) -> Outcome:
    """NCCL_IB_GID_INDEX is not defined in the rank; or it is what the site pins, and valid on every RDMA device."""
    env = view.running_rank().env
    pinned = view.site.fabric.gid_index
    value = env.get(GID_INDEX)
    if value is None and pinned is None:
        return ok(f"{GID_INDEX} is not defined")
    if value is not None and not value.strip():
        return fail(f"{GID_INDEX} is defined and empty, which is not unset", f"{GID_INDEX} not defined at all")
    if pinned is None:
        return fail(f"{GID_INDEX}={value} in the running rank", "not defined: the site pins no index")
    if value != str(pinned):
        shown = "is not defined" if value is None else f"={value}"
        return fail(f"{GID_INDEX} {shown} in the running rank", f"{pinned}, as fabric.gid_index pins")
    return judge(
        _pinned_problems(view, pinned), f"index {pinned} is valid on every rail", "a valid index on every rail"
    )


def _pinned_problems(view: NodeView, pinned: int) -> list[str]:
    need(view.node.rdma, "/sys/class/infiniband")
    problems = []
    for rail in view.site.fabric.rails:
        end = rail.of(view.role)
        hca = need(view.node.hca_of(end.netdev), f"the RDMA device of {end.netdev}")
        indexes = roce_v2_indexes(hca.gids, end.netdev, end.address.ip)
        if pinned not in indexes:
            there = ", ".join(map(str, indexes)) or "nowhere"
            problems.append(f"{hca.name} has the RoCE v2 GID of {end.address.ip} at {there}, not at {pinned}")
    return problems


@node_rule("nccl.hca_set")
def hca_set(view: NodeView) -> Outcome:
    """NCCL_IB_HCA names exactly the RDMA devices of this node's rails."""
    env = view.running_rank().env
    wanted = [rail.of(view.role).hca for rail in view.site.fabric.rails]
    if not all(wanted):
        raise NotApplicableError("the site names no RDMA device for some rail")
    names = sorted(name for name in wanted if name)
    value = env.get("NCCL_IB_HCA")
    expected = f"exactly {', '.join(names)}"
    if not value:
        shown = "is not defined" if value is None else "is defined and empty"
        return fail(f"NCCL_IB_HCA {shown} in the running rank: NCCL takes every device it finds", expected)
    if value.startswith("^"):
        return fail(f"NCCL_IB_HCA={value} excludes devices instead of naming them", expected)
    exact = value.startswith("=")
    given = [part.split(":")[0] for part in value.removeprefix("=").split(",") if part]
    if not exact:
        # Without "=" each entry is a prefix: rocep1s0f0 would also take rocep1s0f01.
        known = [h.name for h in need(view.node.rdma, "/sys/class/infiniband")]
        given = [name for name in known if any(name.startswith(prefix) for prefix in given)]
    missing, extra = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    problems = [f"NCCL_IB_HCA={value} leaves out {', '.join(missing)}"] if missing else []
    problems += [f"NCCL_IB_HCA={value} adds {', '.join(extra)}"] if extra else []
    return judge(problems, value, expected)


@node_rule("nccl.socket_ifnames")
def socket_ifnames(view: NodeView) -> Outcome:
    """All three socket variables of the rank name the first rail's device on this node."""
    env = view.running_rank().env
    wanted = view.site.fabric.rails[0].of(view.role).netdev
    problems = []
    for name in SOCKET_VARIABLES:
        value = env.get(name)
        given = None if value is None else value.removeprefix("=") if name.startswith("NCCL") else value
        if given != wanted:
            problems.append(f"{name} is not defined" if value is None else f"{name}={value or '(empty)'}")
    return judge(problems, f"all three name {wanted}", f"{', '.join(SOCKET_VARIABLES)} all {wanted}")


@pair_rule("nccl.conf_files")
def conf_files(view: PairView) -> Outcome:
    """No file of a host defines variables of NCCL or Gloo; if one does, both hosts say the same and none is empty."""
    merged: dict[str, dict[str, tuple[str, str]]] = {}
    bad, surprising = [], []
    for node in view.facts.nodes:
        files = need(node.nccl_files, f"the files of the {node.role} that may hold NCCL variables")
        merged[node.role] = {name: (value, f.path) for f in files for name, value in f.values.items()}
        for file in files:
            bad += [f"{node.role} {file.path}: {name} is defined and empty" for name in file.empty if name == GID_INDEX]
            shown = ", ".join(f"{name}={value}" for name, value in file.values.items())
            surprising.append(f"{node.role} {file.path}: {shown}")
    head, worker = merged["head"], merged["worker"]
    for name in sorted(head.keys() | worker.keys()):
        ours, theirs = head.get(name), worker.get(name)
        if (ours and ours[0]) != (theirs and theirs[0]):  # defined and empty is not undefined
            bad.append(f"{name} is {_shown(ours)} on the head and {_shown(theirs)} on the worker")
    expected = "no variable of NCCL, Gloo or TP in /etc/nccl.conf, ~/.nccl.conf and the environment files"
    if bad:
        return fail("; ".join(bad), expected)
    return warn("; ".join(surprising), expected) if surprising else ok("no file of either host defines one")


def _shown(entry: tuple[str, str] | None) -> str:
    if entry is None:
        return "not defined"
    return f"{entry[0] or '(empty)'} ({entry[1]})"
