"""From a verdict to both ranks down: draining, stopping, failed. Always the head first, then the worker."""

from __future__ import annotations

from dataclasses import replace

from dspark_ops.supervise.core.clock import since
from dspark_ops.supervise.core.memory import ActionKind, FailureClass, Witness
from dspark_ops.supervise.core.policy import backoff_wait_s, started_by_others, with_failure
from dspark_ops.supervise.core.sight import Role
from dspark_ops.supervise.core.turn import Turn
from dspark_ops.supervise.core.witness import deaths, suspicions

_ORDER: tuple[Role, ...] = ("head", "worker")
_STOP: dict[Role, ActionKind] = {"head": "stop_head", "worker": "stop_worker"}
_KILL: dict[Role, ActionKind] = {"head": "kill_head", "worker": "kill_worker"}


def give_up_serving(turn: Turn, witnesses: tuple[Witness, ...]) -> None:
    """Two witnesses or a death: drain or stop. With harm: leave everything as it is for a person."""
    dead = any(witness.kind == "process" for witness in witnesses)
    reason = "; ".join(witness.text for witness in witnesses)
    harm = turn.memory.harm
    turn.open_incident(reason, "harms" if harm else "cures", witnesses, dead=dead)
    turn.note(**_failed_start(turn, reason, "harms" if harm else "cures"))
    if harm is not None:
        turn.go("failed", f"{reason}; not restarted: {harm}", witnesses, latched=harm, latched_for="harm")
    elif dead:
        turn.go("stopping", reason, witnesses)
    else:
        turn.go("draining", reason, witnesses)
        turn.ask("drain", reason, epoch=turn.memory.epoch)


def give_up_start(turn: Turn, reason: str, failure_class: FailureClass, witnesses: tuple[Witness, ...] = ()) -> None:
    """A start, or its gate, that failed: both ranks go, and the attempt is spent."""
    dead = bool(witnesses)
    turn.open_incident(reason, failure_class, witnesses, dead=dead)
    turn.note(**_failed_start(turn, reason, failure_class))
    turn.go("stopping", reason, witnesses)


def _failed_start(turn: Turn, reason: str, failure_class: FailureClass) -> dict[str, object]:
    return {"attempts": with_failure(turn.memory, reason, failure_class).attempts, "healthy_since": None}


def draining(turn: Turn) -> None:
    """No new requests; those that run may finish, while evidence is collected."""
    memory, engine = turn.memory, turn.observation.engine
    gone = deaths(memory, turn.observation)
    if gone:
        turn.go("stopping", "; ".join(witness.text for witness in gone), gone)
        return
    if memory.harm is not None:
        turn.go("failed", f"not restarted: {memory.harm}", latched=memory.harm, latched_for="harm")
        return
    signs = suspicions(turn.settings, memory.watch, turn.observation)
    turn.note(witnesses=signs)
    proof = memory.watch.proof_s
    if not signs and proof is not None and proof > memory.since.monotonic_s:
        turn.ask("undrain", "it works again", epoch=memory.epoch)
        turn.go("suspect", "it works again, and nothing was stopped", signs)
        return
    pending = turn.evidence_pending()
    # A dead engine ends no request any more, nor does one whose counters stand.
    nothing_ends = any(witness.kind in ("counters", "api", "engine") for witness in signs)
    idle = engine is not None and engine.running == 0 and (engine.waiting or 0) == 0
    if pending:
        turn.wait("evidence is collected")
    elif turn.in_state_s < turn.settings.drain_s and not idle and not nothing_ends:
        turn.wait(f"running requests end, at most {turn.settings.drain_s:.0f} s")
    else:
        turn.go("stopping", memory.reason, signs)


def stopping(turn: Turn) -> None:
    """Evidence, then head, then worker. What cannot be asked is not down: then it waits, and says so."""
    if turn.evidence_pending():
        turn.wait("evidence is collected")
        return
    for role in _ORDER:
        rank = turn.observation.rank(role)
        if rank.down:
            continue
        if rank.state == "unknown":
            turn.wait(f"the rank on {role} can be looked at")
            return
        _stop(turn, role, rank.epoch)
        return
    incident = turn.memory.incident
    if incident is None or not incident.open:
        turn.go("cooling", "what did not belong is down")
        return
    turn.go(
        "cooling", "both ranks are down",
        backoff_from=turn.now, backoff_wait_s=backoff_wait_s(turn.settings, turn.memory),
        failures=turn.memory.failures + 1, incident=replace(incident, stopped=incident.stopped or turn.now),
    )  # fmt: skip


def _stop(turn: Turn, role: Role, epoch: str | None) -> None:
    memory, settings = turn.memory, turn.settings
    if memory.stop_role != role or memory.stop_since is None:
        turn.note(stop_role=role, stop_since=turn.now)
    waited_s = since(turn.memory.stop_since, turn.now)
    grace_s = settings.dead_grace_s if _nothing_to_drain(turn, role) else settings.stop_grace_s
    # The docker program needs a moment of its own after the grace that it gives.
    if waited_s < grace_s + 2 * settings.probe_s:
        turn.ask(_STOP[role], memory.reason, role=role, epoch=epoch, limit_s=grace_s)
        turn.wait(f"the rank on {role} stops")
    else:
        turn.ask(_KILL[role], "it did not stop", role=role, epoch=epoch, limit_s=settings.kill_limit_s)
        turn.wait(f"the rank on {role} is killed: it did not stop in {waited_s:.0f} s")


def _nothing_to_drain(turn: Turn, role: Role) -> bool:
    """Whether the rank's peer or its engine is known to be dead. A peer that cannot be asked is not."""
    observation, decisions = turn.observation, turn.memory.decisions
    if observation.rank("worker" if role == "head" else "head").down:
        return True
    led_here = decisions[-1].witnesses if decisions and decisions[-1].target == "stopping" else ()
    dead = any(witness.kind in ("process", "engine") for witness in led_here)
    return dead or (observation.engine is not None and observation.engine.health == "dead")


def failed(turn: Turn) -> None:
    """Latched. Nothing is done but to collect what was seen; a person resumes, or a deployment made it run again."""
    if started_by_others(turn.memory, turn.observation):
        epoch = turn.observation.head.rank.epoch
        turn.go("cooling", f"start {epoch}, which is not ours, runs as wanted", latched=None, latched_for=None)
        return
    turn.evidence_pending()
    turn.wait("a person: `supervise resume` after the cause is gone")
