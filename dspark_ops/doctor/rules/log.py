"""The life of a rank, by its own log: what failed in service, and what only followed from it."""

from __future__ import annotations

import re

from dspark_ops.doctor.logs.seen import hit_of, log_of, ready_s, started_s, times_after, unseen, whole
from dspark_ops.doctor.outcome import NodeView, NotApplicableError, Outcome, fail, need, ok, warn
from dspark_ops.doctor.registry import node_rule

_SPECULATION = re.compile(r"Accepted: (\d{1,12}) tokens, Drafted: (\d{1,12}) tokens")
_SIGKILL = 137


@node_rule("log.read_whole")
def read_whole(view: NodeView) -> Outcome:
    """The rank's log could be read to its end, within the time that the doctor takes."""
    log = log_of(view)
    size = f"{log.bytes_read / 1e6:.0f} MB"
    if log.cut is not None:
        return warn(f"only {size} of the rank's log were read ({log.cut}), and its end", "a log that is read whole")
    return ok(f"{size} read, to the end")


@node_rule("log.nccl_rdma")
def nccl_rdma(view: NodeView) -> Outcome:
    """NCCL did not fall back to sockets."""
    if not view.profile.gpu:
        raise NotApplicableError(f"profile {view.profile.name} uses no GPU, so no NCCL")
    outcome = unseen(view, "log.nccl_rdma", "NCCL found the RDMA devices", "NET/IB with the rails' devices", start=True)
    if outcome.status == "ok" and hit_of(view, "nccl_ib") is None:
        raise NotApplicableError("NCCL tells nothing of it at its level of logging")
    return outcome


@node_rule("log.nccl_gid")
def nccl_gid(view: NodeView) -> Outcome:
    """Every queue pair could be set up."""
    return unseen(view, "log.nccl_gid", "no queue pair failed", "a GID that both sides have")


@node_rule("log.nccl_memory")
def nccl_memory(view: NodeView) -> Outcome:
    """Memory could be registered for RDMA."""
    return unseen(view, "log.nccl_memory", "no registration failed", "unlimited locked memory")


@node_rule("log.rail_retries")
def rail_retries(view: NodeView) -> Outcome:
    """NCCL did not give up sending."""
    return unseen(view, "log.rail_retries", "no transfer was given up", "rails that lose nothing")


@node_rule("log.nccl_watchdog")
def nccl_watchdog(view: NodeView) -> Outcome:
    """No collective operation ran out of time."""
    return unseen(view, "log.nccl_watchdog", "no operation ran out of time", "operations that end")


@node_rule("log.gpu_memory")
def gpu_memory(view: NodeView) -> Outcome:
    """The GPU had memory for every request."""
    return unseen(view, "log.gpu_memory", "no request lacked memory", "memory for the largest request")


@node_rule("log.gpu_libraries")
def gpu_libraries(view: NodeView) -> Outcome:
    """No matrix library failed."""
    return unseen(view, "log.gpu_libraries", "no library failed", "no error of cuBLAS")


@node_rule("log.device_asserts")
def device_asserts(view: NodeView) -> Outcome:
    """No kernel ran into a check or out of its memory."""
    return unseen(view, "log.device_asserts", "no kernel failed", "kernels within their bounds")


@node_rule("log.capture_permitted")
def capture_permitted(view: NodeView) -> Outcome:
    """Nothing was compiled inside a graph capture."""
    return unseen(view, "log.capture_permitted", "no capture was disturbed", "every kernel warm before its capture")


@node_rule("log.draft_rows")
def draft_rows(view: NodeView) -> Outcome:
    """Uneven batches do not stop the draft model."""
    return unseen(view, "log.draft_rows", "no batch was refused", "an image with the guard")


@node_rule("log.ranks_agree")
def ranks_agree(view: NodeView) -> Outcome:
    """The ranks exchange data of one shape."""
    return unseen(view, "log.ranks_agree", "no mismatch was told", "one image and one model on both")


@node_rule("log.worker_alive")
def worker_alive(view: NodeView) -> Outcome:
    """No process of the rank was ended by a signal."""
    return unseen(view, "log.worker_alive", "no process was ended", "processes that end when asked")


@node_rule("log.rpc_timeouts")
def rpc_timeouts(view: NodeView) -> Outcome:
    """Every rank answered in time."""
    return unseen(view, "log.rpc_timeouts", "every rank answered", "answers within the engine's limit")


@node_rule("log.engine_alive")
def engine_alive(view: NodeView) -> Outcome:
    """The engine did not die."""
    return unseen(view, "log.engine_alive", "the engine did not die", "a living engine")


@node_rule("log.rank_killed")
def rank_killed(view: NodeView) -> Outcome:
    """The container did not end by SIGKILL."""
    rank = view.rank()
    if rank.running:
        return ok("the rank runs")
    if rank.ended_in_order:
        raise NotApplicableError("the rank was asked to end")
    code = need(rank.exit_code, "the exit code of the rank")
    if code == _SIGKILL:
        by = "by the kernel, short of memory" if rank.oom_killed else "by whom is not known"
        return fail(f"ended with {code}: killed, {by}", "an end that was asked for")
    return ok(f"ended with {code}, not killed")


@node_rule("log.broadcast_waits")
def broadcast_waits(view: NodeView) -> Outcome:
    """No rank keeps the engine waiting just now."""
    if not view.rank().running:
        raise NotApplicableError("the rank does not run")
    log = log_of(view)
    hit = log.hit("broadcast_wait")
    if hit is None:
        whole(view, log)
        return ok("nothing waited")
    late = times_after(hit, need(ready_s(view), "the moment when the API was ready"))
    limit, recent_s = int(view.limits["lines"]), view.limits["recent_s"]
    now_s = need(view.node.clock_s, "the node's clock")
    recent = [moment for moment in late if now_s - moment <= recent_s]
    if len(recent) < limit:
        return ok(f"{len(recent)} waits of a minute in the last {recent_s:.0f} s")
    expected = f"fewer than {limit} in {recent_s:.0f} s"
    return warn(f"a rank did not answer for {len(recent)} minutes just now", expected, evidence=hit.last.text)


@node_rule("log.late_compile")
def late_compile(view: NodeView) -> Outcome:
    """Kernels are compiled in the first half hour, and not later."""
    log, hit = log_of(view), hit_of(view, "jit_in_service")
    if hit is None:
        whole(view, log)
        return ok("nothing was compiled in service")
    # The worker has no API; its own start is the nearest thing to it.
    since = need(ready_s(view) or started_s(view.rank()), "the moment when the rank was ready")
    warm_s = view.limits["warm_s"]
    late = times_after(hit, since + warm_s)
    if not late:
        return ok(f"{hit.count} compilations, all within {warm_s:.0f} s of the start")
    after = f"{late[-1] - since:.0f} s after the start"
    return warn(f"a kernel was compiled {after}", f"none later than {warm_s:.0f} s", evidence=hit.last.text)


@node_rule("log.draft_accepted")
def draft_accepted(view: NodeView) -> Outcome:
    """Of enough drafted tokens, some were accepted."""
    log, hit = log_of(view), hit_of(view, "speculation")
    if hit is None:
        whole(view, log)
        raise NotApplicableError("no line of the log tells of speculation on this node")
    found = need(_SPECULATION.search(hit.last.text), "accepted and drafted tokens in the log")
    accepted, drafted = int(found[1]), int(found[2])
    if drafted < view.limits["drafted"]:
        raise NotApplicableError(f"the last line tells of {drafted} drafted tokens only")
    if accepted == 0:
        return fail(f"none of {drafted} drafted tokens was accepted", "some accepted", evidence=hit.last.text)
    return ok(f"{accepted} of {drafted} drafted tokens accepted")
