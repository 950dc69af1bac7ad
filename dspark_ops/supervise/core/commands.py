"""What a person or a verb tells the supervisor: hold, resume; and what HAProxy is told. Pure."""

from __future__ import annotations

from dataclasses import replace

from dspark_ops.supervise.core.clock import now_of
from dspark_ops.supervise.core.memory import Hold, Memory, Transition
from dspark_ops.supervise.core.policy import fatal_keys, hold_left_s
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import Observation
from dspark_ops.supervise.core.turn import DECISIONS_KEPT


def hold(
    memory: Memory, observation: Observation, *, reason: str, owner: str, for_s: float, drain: bool = False
) -> Memory:
    """Take the hold, or renew one's own. Only `step` acts, and it does nothing while this lasts.

    Raises:
        ValueError: for_s is not more than 0, or somebody else's hold has not expired.
    """
    now, present = now_of(observation), memory.hold
    if not for_s > 0:
        raise ValueError(f"a hold of {for_s:g} s; expected more than 0")
    if present is not None and present.owner != owner and hold_left_s(present, now) > 0:
        left = hold_left_s(present, now)
        raise ValueError(f"held by {present.owner} for {left:.0f} s more ({present.reason}); resume, or wait")
    return replace(memory, hold=Hold(reason=reason, owner=owner, since=now, for_s=for_s, drain=drain))


def resume(memory: Memory, observation: Observation) -> Memory:
    """Give the pair back: no hold, no latch, a fresh budget; fatal lines that are there now are known from here on.

    For a person who looked at the cause. A verb that leaves a proven release behind must not say this for itself: it
    tells what is wanted (`adopt`) and ends its own hold. A latch for a spent budget, and the budget, then end by
    themselves, as a start of others runs as wanted; a latch for harm stays, as a deployment mends no hardware.
    """
    known = tuple(dict.fromkeys((*memory.acknowledged, *fatal_keys(observation))))
    memory = replace(
        memory, hold=None, latched=None, latched_for=None, harm=None, acknowledged=known, attempts=(), failures=0,
        resets=(), backoff_from=None, backoff_wait_s=0.0,
    )  # fmt: skip
    if memory.state != "failed":
        return memory
    now = now_of(observation)
    made = Transition(source="failed", target="cooling", reason="resumed by a person", witnesses=(), at=now)
    return replace(
        memory, state="cooling", since=now, reason=made.reason, witnesses=(), waits_for=(),
        decisions=(*memory.decisions, made)[-DECISIONS_KEPT:],
    )  # fmt: skip


def route(settings: Settings, memory: Memory, age_s: float) -> int:
    """The answer of `GET /route`: 200 local may serve, 404 finish what runs and send no more, 503 not local.

    age_s: seconds since the last step; an old one proves nothing.
    """
    if age_s > settings.gap_s:
        return 503
    if memory.state in ("serving", "suspect"):
        return 404 if memory.hold is not None and memory.hold.drain else 200
    return 404 if memory.state == "draining" else 503
