"""The state machine of the pair: one look in, the new memory and what is to be done out. Pure, total, deterministic.

    cooling -> starting -> gate -> serving <-> suspect -> draining -> stopping -> cooling;  failed: latched

A death goes from any of them straight to stopping. A hold is a flag beside the state: nothing is done while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from dspark_ops.supervise.core.alerts import alerts_of
from dspark_ops.supervise.core.clock import carry_over, now_of
from dspark_ops.supervise.core.commands import hold, resume, route
from dspark_ops.supervise.core.going_down import draining, failed, stopping
from dspark_ops.supervise.core.going_up import cooling, gate, starting
from dspark_ops.supervise.core.memory import Action, Memory, State, Transition
from dspark_ops.supervise.core.policy import hold_left_s, judge_harm
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import Observation
from dspark_ops.supervise.core.turn import Turn
from dspark_ops.supervise.core.watching import held_proof, held_watch, serving, suspect, wants_canary, wants_looks
from dspark_ops.supervise.core.witness import fold

__all__ = ["Step", "hold", "resume", "route", "step", "wants_canary", "wants_looks"]

_RULES: Mapping[State, Callable[[Turn], None]] = {
    "cooling": cooling,
    "starting": starting,
    "gate": gate,
    "serving": serving,
    "suspect": suspect,
    "draining": draining,
    "stopping": stopping,
    "failed": failed,
}
#: One look can lead through several states, as from a death to stopping; never round and round.
_HOPS = 6


class Step(NamedTuple):
    """What one look leads to. No actions: nothing is to be done."""

    memory: Memory
    actions: tuple[Action, ...]
    transitions: tuple[Transition, ...]


def step(settings: Settings, memory: Memory, observation: Observation) -> Step:
    """Decide. Never raises for any observation. The caller saves the memory before it acts."""
    before = memory
    if memory.seen is None:
        memory = replace(memory, since=now_of(observation))
    memory = judge_harm(settings, carry_over(memory, observation), observation)
    memory = replace(memory, watch=fold(settings, memory.watch, observation), waits_for=())
    turn = Turn(settings, observation, memory)
    expired = _end_hold(turn)
    for _ in range(_HOPS):
        state = turn.memory.state
        idle = _why_idle(turn)
        if idle is not None:
            _do_nothing(turn, idle)
        else:
            _RULES[state](turn)
        if turn.memory.state == state:
            break
    if turn.memory.state not in ("serving", "suspect", "draining"):
        turn.note(witnesses=())
    turn.note(alerts=alerts_of(settings, turn.memory, observation), seen=turn.now,
              seen_synced=observation.head.clock_synced is True)  # fmt: skip
    known = {alert.key for alert in before.alerts}
    news = [
        Action(kind="alert", reason=alert.text, alert=alert.key, page=alert.page)
        for alert in turn.memory.alerts
        if alert.key not in known
    ]
    return Step(turn.memory, (*turn.actions, *expired, *news), tuple(turn.transitions))


def _end_hold(turn: Turn) -> tuple[Action, ...]:
    """Drop a hold that expired; the alert that says so."""
    held = turn.memory.hold
    if held is None or hold_left_s(held, turn.now) > 0:
        return ()
    turn.note(hold=None)
    text = f"the hold of {held.owner} ({held.reason}) expired without being resumed"
    return (Action(kind="alert", reason=text, alert="hold-expired"),)


def _why_idle(turn: Turn) -> str | None:
    """Why nothing may be done, or None."""
    held, wanted = turn.memory.hold, turn.observation.wanted
    if held is not None:
        return f"the hold of {held.owner} ends ({held.reason})"
    if wanted is None:
        return "a release is adopted"
    return None if wanted.run else "the pair is wanted up: it was stopped on purpose"


def _do_nothing(turn: Turn, until: str) -> None:
    state, wanted = turn.memory.state, turn.observation.wanted
    down = wanted is not None and not wanted.run
    if state in ("serving", "suspect") and turn.memory.hold is not None:
        held_watch(turn)
    elif state == "failed" and down and turn.memory.latched_for == "budget" and turn.memory.harm is None:
        # Nobody has to look after starts that nobody wants any more; the budget itself stays spent.
        turn.go("cooling", f"nothing is done until {until}", latched=None, latched_for=None)
    elif state not in ("cooling", "failed"):
        turn.go("cooling", f"nothing is done until {until}", healthy_since=None)
    if turn.memory.hold is not None:
        held_proof(turn)
    if turn.memory.state == "cooling":
        turn.wait(until)
