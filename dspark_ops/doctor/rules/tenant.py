"""Others on the machine: on the GPU, on our ports, under our name. Named, never touched."""

from __future__ import annotations

from dspark_ops.doctor.outcome import FactMissingError, NodeView, Outcome, fail, judge, need, ok
from dspark_ops.doctor.registry import node_rule
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.facts.snapshot import NodeFacts


def rank_pids(node: NodeFacts, site: str) -> set[int]:
    """The processes of our own rank on a node; empty when it does not run.

    Raises:
        FactMissingError: it runs, or may run, and its processes are unknown.
    """
    need(node.rank_known or None, "whether our rank runs here")
    rank = node.rank
    if rank is None or rank.label("site") != site or not rank.running:
        return set()
    return set(need(rank.pids, "the processes of our rank"))


@node_rule("tenant.gpu_process")
def gpu_process(view: NodeView) -> Outcome:
    """Only our rank computes on the GPU."""
    gpu = need(view.node.gpu, "the GPU")
    processes = need(gpu.processes, "the GPU's processes")
    if not processes:
        return ok("no process is on the GPU")
    ours = rank_pids(view.node, view.site.name)
    strangers = [p for p in processes if p.pid not in ours]
    others = [c.name for c in view.node.containers or () if c.state == "running" and c.name != RANK_CONTAINER]
    hint = f"; other containers that run: {', '.join(others)}" if others and strangers else ""
    held = [
        f"{p.name} (pid {p.pid}, {'memory unknown' if p.used_mib is None else f'{p.used_mib} MiB'})" for p in strangers
    ]
    if held:
        return fail(f"not ours on the GPU: {', '.join(held)}{hint}", "only our rank on the GPU")
    return ok(f"{len(processes)} of our own processes")


@node_rule("tenant.port")
def port(view: NodeView) -> Outcome:
    """The ports of the service are free, or our rank's."""
    listeners = need(view.node.listeners, "the listening ports")
    serve = view.site.serve
    wanted = {serve.api_port: "API", serve.master_port: "rendezvous"} if view.role == "head" else {}
    taken = [item for item in listeners if item.port in wanted]
    if not taken:
        return ok("the ports of the service are free" if wanted else "no port is needed on the worker before it starts")
    ours = rank_pids(view.node, view.site.name)
    problems = []
    for item in taken:
        if item.pid is None:
            if ours:
                raise FactMissingError(f"the process on port {item.port} could not be read")
            problems.append(f"port {item.port} ({wanted[item.port]}) is taken by an unknown process")
        elif item.pid not in ours:
            problems.append(f"port {item.port} ({wanted[item.port]}) is taken by {item.process} (pid {item.pid})")
    return judge(problems, "our rank holds the ports of the service", "ports that are free or ours")


@node_rule("tenant.foreign_name")
def foreign_name(view: NodeView) -> Outcome:
    """No container that is not ours has the name of the rank."""
    need(view.node.rank_known or None, f"whether there is a container {RANK_CONTAINER}")
    rank = view.node.rank
    if rank is None:
        return ok(f"the name {RANK_CONTAINER} is free")
    site = rank.label("site")
    if site == view.site.name:
        return ok(f"{RANK_CONTAINER} is ours")
    whose = f"belongs to the site {site}" if site else "was not made by dspark-ops"
    return fail(f"the container {RANK_CONTAINER} {whose}", f"a container of site {view.site.name}, or none")
