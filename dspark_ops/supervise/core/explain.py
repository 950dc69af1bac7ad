"""One plain paragraph and a table: what the state is, why, what it waits for, what would make it act. Pure."""

from __future__ import annotations

from dspark_ops.supervise.core.clock import now_of, since
from dspark_ops.supervise.core.memory import Memory, State
from dspark_ops.supervise.core.policy import hold_left_s, recent
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import ROLES, Observation
from dspark_ops.supervise.core.witness import canary_strikes_needed

_MEANS: dict[State, str] = {
    "cooling": "both ranks are down, or it was not looked yet, and a start waits until it is allowed",
    "starting": "worker, then head are started as one",
    "gate": "the engine is up and must answer correctly before it serves",
    "serving": "it serves",
    "suspect": "it serves, and something speaks against it or nothing for it",
    "draining": "no new requests come, running ones may end, evidence is collected",
    "stopping": "head, then worker are stopped",
    "failed": "it is latched: nothing restarts until a person resumes",
}
_ACTS: dict[State, str] = {
    "cooling": "a start follows as soon as nothing of that is left",
    "starting": "a rank that ends, a refused start or the time limit ends this start",
    "gate": "a correct answer makes it serve; wrong ones end this start",
    "serving": "a rank that ends, or two independent signs, make it restart the pair",
    "suspect": "a second, independent sign or a rank that ends makes it restart the pair; an answer clears it",
    "draining": "then the head is stopped; an answer in time calls it off",
    "stopping": "then memory must come back, and a start follows if the budget allows one",
    "failed": "only `supervise resume`",
}


def explain(settings: Settings, memory: Memory, observation: Observation) -> str:
    """The paragraph and, below it, the table of witnesses."""
    now = now_of(observation)
    age_s = since(memory.since, now)
    words = [f"State {memory.state} for {duration(age_s)}: {_MEANS[memory.state]}. Why: {memory.reason}."]
    if memory.epoch:
        words.append(f"The present start is {memory.epoch}.")
    if memory.hold is not None:
        left = duration(hold_left_s(memory.hold, now))
        words.append(
            f"Held by {memory.hold.owner} for {left} more ({memory.hold.reason}): it watches and does nothing."
        )
    if memory.harm is not None:
        words.append(f"It will not restart the pair: {memory.harm}.")
    if memory.waits_for:
        words.append(f"It waits until: {'; '.join(memory.waits_for)}.")
    if memory.hold is None:
        words.append(f"What comes next: {_ACTS[memory.state]}.")
    spent = recent(settings, memory, now)
    window = duration(settings.budget_window_s)
    words.append(f"Starts in {window}: {len(spent)} of {settings.budget}; failures in a row: {memory.failures}.")
    return " ".join(words) + "\n\n" + witness_table(settings, memory, observation)


def witness_table(settings: Settings, memory: Memory, observation: Observation) -> str:
    """Each sign: what it says now and what it needs."""
    rows = [("sign", "now", "counts when"), *_rows(settings, memory, observation)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {now:<{widths[1]}}  {needs}".rstrip() for name, now, needs in rows)


def _rows(settings: Settings, memory: Memory, observation: Observation) -> list[tuple[str, str, str]]:
    watch, now_s = memory.watch, observation.monotonic_s

    def lasting(since_s: float | None, known: bool) -> str:
        if not known:
            return "cannot tell"
        return "no" if since_s is None else f"for {now_s - since_s:.0f} s"

    engine, worker = observation.engine, observation.worker
    counters_known = watch.sample_s is not None and watch.sample_s == watch.looked_s
    states = ", ".join(f"{role} {observation.rank(role).state}" for role in ROLES)
    needed = canary_strikes_needed(settings, watch.canary_verdict)
    canary = (
        "none yet" if observation.canary is None else f"{observation.canary.verdict}, {watch.canary_strikes} counted"
    )
    api_known = engine is not None and engine.health != "unknown"
    dead_known = api_known or observation.head.api_listening is not None
    power_known = any(observation.node(role).gpu_power_w is not None for role in ROLES)
    frozen = lasting(watch.frozen_since_s, counters_known)
    silent = lasting(watch.api_silent_since_s, api_known)
    dead = lasting(watch.engine_dead_since_s, dead_known)
    lost = lasting(watch.unreachable_since_s, worker.reachable is not None)
    power = lasting(watch.power_low_since_s, power_known)
    return [
        ("process", states, "a rank of this start is not running: alone enough"),
        ("counters", frozen, f"frozen with requests for {settings.wedge_s:.0f} s"),
        ("canary", canary, f"{needed or 1} in a row, while nothing moves if it timed out"),
        ("api", silent, f"no answer for {settings.wedge_s:.0f} s"),
        ("engine", dead, f"says it is dead, or nothing listens, for {settings.engine_dead_s:.0f} s"),
        ("node", lost, f"not reached over the fabric for {settings.node_lost_s:.0f} s"),
        ("power", power, f"busy below {settings.power_low_w:.0f} W for {settings.power_window_s:.0f} s"),
    ]


def duration(seconds: float) -> str:
    """As `45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
