"""Others on the machine beside those that hold the GPU: servers of other models, orphans, builds, what is owed."""

from __future__ import annotations

from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, judge, need, ok, rank_of
from dspark_ops.doctor.registry import node_rule
from dspark_ops.facts.noted_processes import NotedProcess
from dspark_ops.facts.unit_states import SERVER_UNITS, unit_named

# Whose parts have such titles.
_SERVER_OF = {"VLLM": "vLLM", "sglang": "SGLang"}


def _outside_our_rank(view: NodeView) -> list[NotedProcess]:
    """The noted processes that are not in the container of our rank."""
    noted = need(view.node.noted, "the processes")
    rank = rank_of(view.node, view.site)
    if rank is None:
        return list(noted)
    pids = set(rank.pids or ())
    return [process for process in noted if process.container != rank.id and process.pid not in pids]


def _serving(view: NodeView) -> bool:
    rank = rank_of(view.node, view.site)
    return rank is not None and bool(rank.running)


@node_rule("tenant.orphan_engine")
def orphan_engine(view: NodeView) -> Outcome:
    """No part of an engine is left whose server is gone."""
    orphans = [f"{p.what} (pid {p.pid}) has lost its server" for p in _outside_our_rank(view) if p.orphan]
    return judge(orphans, "no engine without its server", "no VLLM:: or sglang:: process without its server")


@node_rule("tenant.other_server")
def other_server(view: NodeView) -> Outcome:
    """No other model server runs beside the pair."""
    names: dict[str, int] = {}
    for process in _outside_our_rank(view):
        if process.kind == "server" or (process.kind == "engine" and not process.orphan):
            names.setdefault(_SERVER_OF.get(process.what.split("::")[0], process.what), process.pid)
    running = [f"{name} runs (pid {pid})" for name, pid in names.items()]
    return judge(running, "no other model server runs", "no other model server on a serving node")


@node_rule("tenant.server_unit")
def server_unit(view: NodeView) -> Outcome:
    """No unit starts another model server with the machine."""
    units = need(view.node.units, "the units")
    found = [unit for unit in (unit_named(units, name) for name in SERVER_UNITS) if unit is not None]
    problems = [
        f"{unit.name} is {unit.active} and {unit.enablement or 'of unknown enablement'}"
        for unit in found
        if unit.active in ("active", "activating") or unit.enablement == "enabled"
    ]
    return judge(problems, "none of them runs or starts with the machine", "such units stopped and disabled")


@node_rule("tenant.desktop")
def desktop(view: NodeView) -> Outcome:
    """No desktop runs on a node that serves."""
    units = need(view.node.units, "the units")
    display = unit_named(units, "display-manager.service")
    if display is not None and display.active == "active":
        return fail(f"the display manager {display.name} runs", "a node without a desktop session")
    return ok("no display manager runs")


@node_rule("tenant.build_while_serving")
def build_while_serving(view: NodeView) -> Outcome:
    """Nothing is built on a node while it serves."""
    if not _serving(view):
        raise NotApplicableError("our rank does not run here")
    built = dict.fromkeys(process.what for process in _outside_our_rank(view) if process.kind == "build")
    return judge([f"{name} runs" for name in built], "nothing is being built", "no build beside a serving rank")


@node_rule("tenant.owed")
def owed(view: NodeView) -> Outcome:
    """What was asked to leave for our rank is given back once the rank is gone."""
    evictions = need(view.node.evictions, "the record of evictions")
    waiting = [record.what for record in evictions if record.owed]
    if not waiting:
        return ok("nobody waits to be started again")
    if _serving(view):
        return ok(f"our rank runs; given back when it stops: {', '.join(waiting)}")
    return fail(f"still stopped for a rank that does not run: {', '.join(waiting)}", "tenants started again")
