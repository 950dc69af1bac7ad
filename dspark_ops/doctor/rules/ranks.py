"""The two ranks as a pair: both or neither, of one release and one start, told the same thing."""

from __future__ import annotations

import re

from dspark_ops.deploy.spec import render_pair
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
from dspark_ops.facts.rank import RankFacts
from dspark_ops.releases.model import hide_argv

# What may differ between the ranks, because it is the rank.
RANK_FLAGS = frozenset({"--node-rank", "-r", "--headless"})
_NUMBER = re.compile(r"-\d")


def both_ranks(view: PairView) -> tuple[RankFacts, RankFacts]:
    """Both rank containers.

    Raises:
        FactMissingError: one of them is unknown.
        NotApplicableError: one of them does not exist; that only one does is the business of service.ranks_paired.
    """
    head, worker = (rank_of(node, view.site) for node in view.facts.nodes)
    if head is None or worker is None:
        raise NotApplicableError("nothing is deployed on " + ("both nodes" if head is worker else "one node"))
    return head, worker


@pair_rule("service.ranks_paired")
def ranks_paired(view: PairView) -> Outcome:
    """Both ranks run, of the same release and the same start; or neither does."""
    found = {node.role: rank_of(node, view.site) for node in view.facts.nodes}
    there = {role: rank for role, rank in found.items() if rank is not None}
    expected = "both ranks running, of one release and one start"
    if not there:
        raise NotApplicableError("nothing is deployed")
    if len(there) == 1:
        role, rank = next(iter(there.items()))
        lone = "the worker" if role == "head" else "the head"
        return fail(f"the {role} has a rank ({rank.state}), {lone} has none", expected)
    running = [role for role, rank in there.items() if rank.running]
    if not running:
        raise NotApplicableError("both ranks are stopped")
    if len(running) == 1:
        lone = "worker" if running == ["head"] else "head"
        stopped = there["head" if lone == "head" else "worker"]
        return fail(f"the {running[0]} runs alone: the {lone} is {stopped.state}", expected)
    for label in ("release", "epoch"):
        head, worker = (need(rank.label(label), f"the {role}'s label {label}") for role, rank in there.items())
        if head != worker:
            word = "releases" if label == "release" else "starts"
            return fail(f"the ranks are of different {word}: head {head}, worker {worker}", expected)
    return ok(f"both run release {there['head'].label('release')}")


@pair_rule("service.release_current")
def release_current(view: PairView) -> Outcome:
    """What runs is what the site file says now."""
    head, worker = both_ranks(view)
    wanted = render_pair(view.site, view.profile)["head"].release
    stale = sorted({r for rank in (head, worker) if (r := rank.label("release")) not in (None, wanted)})
    if stale:
        return fail(f"release {', '.join(stale)} is deployed", f"{wanted}, which the site file renders to now")
    return ok(f"release {wanted}")


@pair_rule("service.argv_parity")
def argv_parity(view: PairView) -> Outcome:
    """Both ranks were given the same argument list, their rank aside. vLLM itself compares nothing."""
    head, worker = both_ranks(view)
    a, b = arguments(head.args), arguments(worker.args)
    problems = []
    for name in sorted(a.keys() | b.keys()):
        if name in RANK_FLAGS or a.get(name) == b.get(name):
            continue
        hidden = [hide_argv((name, *given[name]))[1:] if name in given else ("absent",) for given in (a, b)]
        shown = [" ".join(words) or "set" for words in hidden]
        problems.append(f"{name or 'words'}: head {shown[0]}, worker {shown[1]}")
    return judge(problems, f"{len(a)} arguments agree", "the same arguments, --node-rank and --headless aside")


def arguments(argv: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Flag to its values, in order of repetition; `--a=b` and `--a b` are the same. Words before any are under ''."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("-") and not _NUMBER.match(word):
            name, equals, value = word.partition("=")
            values = found.setdefault(name, [])
            if equals:
                values.append(value)
                name = ""
        else:
            found.setdefault(name, []).append(word)
    return {flag: tuple(values) for flag, values in found.items()}


@node_rule("service.env_host_ip")
def env_host_ip(view: NodeView) -> Outcome:
    """VLLM_HOST_IP of the rank is this node's own address on the first rail."""
    value = view.running_rank().env.get("VLLM_HOST_IP")
    wanted = str(view.site.fabric.rails[0].of(view.role).address.ip)
    if value == wanted:
        return ok(wanted)
    shown = "is not defined" if value is None else f"is {value or 'empty'}"
    peer = str(view.site.fabric.rails[0].of(view.peer_role).address.ip)
    whose = f", the {view.peer_role}'s address" if value == peer else ""
    return fail(f"VLLM_HOST_IP {shown} in the running rank{whose}", f"{wanted}, this node's own rail address")


@node_rule("service.exit_code_zero_is_death")
def exit_code_zero_is_death(view: NodeView) -> Outcome:
    """A rank that ended was asked to end. Its exit code does not say so: a dead engine exits with 0."""
    rank = view.rank()
    if rank.running:
        return ok("the rank runs")
    if rank.state not in ("exited", "dead"):
        raise NotApplicableError(f"the rank has not ended (container {rank.state})")
    code = need(rank.exit_code, "the exit code")
    expected = "a rank that runs, or that was asked to stop"
    if rank.oom_killed:
        return fail(f"the rank was killed for want of memory (exit code {code})", expected, evidence=rank.last_line)
    if need(rank.ended_in_order, "the end of the rank's log"):
        return ok(f"it was asked to stop (exit code {code})")
    if code == 0:
        return fail("the engine died: it exited with 0 and was not asked to stop", expected, evidence=rank.last_line)
    if code in (137, 143) and not rank.engine_died:
        return warn(f"the rank was ended by a signal (exit code {code})", expected, evidence=rank.last_line)
    return fail(f"the engine ended with exit code {code}", expected, evidence=rank.last_line)


@node_rule("service.restart_policy")
def restart_policy(view: NodeView) -> Outcome:
    """Docker restarts no rank on its own: one rank alone can never join the other again."""
    policy = need(view.rank().restart_policy, "the restart policy")
    return ok("no restart policy") if policy == "no" else fail(f"the restart policy is {policy!r}", "no restart policy")


@node_rule("service.restarted")
def restarted(view: NodeView) -> Outcome:
    """Docker never started this rank again on its own."""
    count = need(view.rank().restart_count, "how often Docker started the rank again")
    return ok("started once") if count == 0 else fail(f"Docker started the rank again {count} times", "one start")
