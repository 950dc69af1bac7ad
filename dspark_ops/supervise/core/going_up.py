"""From both ranks down to serving: cooling, starting, gate. Always the worker first, then the head, then the gate."""

from __future__ import annotations

from dataclasses import replace

from dspark_ops.supervise.core.going_down import give_up_start
from dspark_ops.supervise.core.memory import ActionKind, Attempt, FailureClass, Memory, Starts
from dspark_ops.supervise.core.policy import classify_start, epoch_of, exhausted, recent, start_blocks
from dspark_ops.supervise.core.sight import ROLES, Role
from dspark_ops.supervise.core.turn import Turn
from dspark_ops.supervise.core.witness import deaths, runs_as_wanted


def cooling(turn: Turn) -> None:
    """Look what is there: take over a pair that runs as wanted, stop what does not belong, else start when allowed."""
    memory, observation, wanted = turn.memory, turn.observation, turn.observation.wanted
    if memory.harm is not None:
        turn.go("failed", f"not restarted: {memory.harm}", latched=memory.harm, latched_for="harm")
        return
    ranks = {role: observation.rank(role) for role in ROLES}
    unknown = [role for role in ROLES if ranks[role].state == "unknown"]
    if unknown or wanted is None:
        turn.wait(*(f"the rank on {role} can be looked at" for role in unknown))
        return
    if runs_as_wanted(observation):
        epoch = ranks["head"].epoch
        turn.go(
            "gate", f"start {epoch} runs as wanted", epoch=epoch, started=ROLES, gate_failures=0,
            gate_ended_s=None,
        )  # fmt: skip
        return
    running = [role for role in ROLES if ranks[role].state == "running"]
    if running:
        where = " and ".join(running)
        turn.go("stopping", f"what runs on {where} is not one start of the wanted release", evidence_since=None)
        return
    spent = exhausted(turn.settings, memory, turn.now)
    if spent is not None:
        turn.go("failed", spent, latched=spent, latched_for="budget")
        return
    blocks = start_blocks(turn.settings, memory, observation)
    turn.wait(*(block.text for block in blocks))
    if blocks:
        return
    left = [role for role in ROLES if ranks[role].state in ("exited", "created")]
    for role in left:
        turn.ask("remove_orphan", "it is of an earlier start", role=role, epoch=ranks[role].epoch)
    if left:
        turn.wait(*(f"the old container on {role} is removed" for role in left))
        return
    _begin(turn)


def _begin(turn: Turn) -> None:
    memory, now = turn.memory, turn.now
    numbered = replace(memory, number=memory.number + 1)
    epoch = epoch_of(numbered)
    attempts = (*recent(turn.settings, memory, now), Attempt(epoch=epoch, at=now))
    incident = memory.incident
    if incident is not None and incident.open:
        incident = replace(incident, started=now)
    turn.go(
        "starting", f"start {epoch}", number=numbered.number, epoch=epoch, attempts=attempts, started=(),
        gate_failures=0, gate_ended_s=None, incident=incident, restarts=_counted(memory),
    )  # fmt: skip


def _counted(memory: Memory) -> tuple[Starts, ...]:
    """The starts by cause with one more: the signs of the incident that is open, or `wanted`."""
    incident = memory.incident
    kinds = incident.witnesses if incident is not None and incident.open else ()
    cause = "+".join(kinds) or "wanted"
    count = next((starts.count for starts in memory.restarts if starts.cause == cause), 0)
    others = tuple(starts for starts in memory.restarts if starts.cause != cause)
    return tuple(sorted((*others, Starts(cause=cause, count=count + 1)), key=lambda starts: starts.cause))


def starting(turn: Turn) -> None:
    """Worker, then head, then the engine's /health. A rank that ends, a refusal or the time limit ends the start."""
    if _harm_or_lost(turn):
        return
    failure = _failing(turn)
    if failure is not None:
        give_up_start(turn, *failure)
        return
    memory, engine = turn.memory, turn.observation.engine
    if not turn.observation.state_saved:
        turn.wait("the state file can be written")
    elif not _up(turn, "worker"):
        _ask_start(turn, "worker")
    elif not _up(turn, "head"):
        if turn.observation.rank("worker").state == "running":
            _ask_start(turn, "head")
        else:
            turn.wait("the rank on worker can be looked at")
    elif engine is not None and engine.health == "ok":
        turn.go("gate", f"start {memory.epoch} is up")
    else:
        turn.wait(f"the engine is up, at most {turn.settings.start_limit_s:.0f} s")


def _ask_start(turn: Turn, role: Role) -> None:
    """Ask for one rank's start, unless nobody can say whether it runs."""
    if turn.observation.rank(role).state in ("absent", "created"):
        kind: ActionKind = "start_head" if role == "head" else "start_worker"
        turn.ask(kind, turn.memory.reason, role=role, epoch=turn.memory.epoch)
    turn.wait(f"the rank on {role} runs")


def _failing(turn: Turn) -> tuple[str, FailureClass] | None:
    """Why this start is given up although no rank ended, and whether another one would do better."""
    settings = turn.settings
    for refusal in turn.observation.refusals:
        if refusal.epoch == turn.memory.epoch:
            return f"{refusal.role} could not be started: {refusal.reason}", "loops"
    for role in ROLES:
        has = turn.observation.node(role).mem_available_gib
        if has is not None and has < settings.memory_floor_gib:
            return f"memory on {role} fell to {has:.1f} GiB while starting", "loops"
    if turn.in_state_s >= settings.start_limit_s:
        return f"the engine was not up in {settings.start_limit_s:.0f} s", "cures"
    return None


def _up(turn: Turn, role: Role) -> bool:
    """Whether a rank runs, or did when it was last seen: what cannot be asked now is not started again."""
    if turn.observation.rank(role).state == "running" and role not in turn.memory.started:
        turn.note(started=(*turn.memory.started, role))
    return role in turn.memory.started


def _harm_or_lost(turn: Turn) -> bool:
    """Whether harm was found, or a rank that ran is gone; both end the start."""
    memory, observation = turn.memory, turn.observation
    if memory.harm is not None:
        turn.go("failed", f"not restarted: {memory.harm}", latched=memory.harm, latched_for="harm")
        return True
    gone = deaths(memory, observation)
    waited_for = [role for role in ROLES if role not in memory.started]
    # A rank that was never seen to run is absent or created because it is still to be started.
    early = {role for role in waited_for if observation.rank(role).state in ("absent", "created")}
    died = {event.role for event in observation.events if event.epoch == memory.epoch}
    real = tuple(witness for witness in gone if witness.role not in early - died)
    if not real:
        return False
    codes = [observation.rank(role).exit_code for role in ROLES if observation.rank(role).state == "exited"]
    before = tuple(a for a in memory.attempts if a.epoch != memory.epoch)
    give_up_start(turn, "; ".join(w.text for w in real), classify_start(next(iter(codes), None), before), real)
    return True


def gate(turn: Turn) -> None:
    """A correct answer before anything is served. The wedge rule is not asked here: a first compile stalls for long."""
    memory, settings, seen = turn.memory, turn.settings, turn.observation.gate
    if _harm_or_lost(turn):
        return
    news = seen is not None and seen.epoch == memory.epoch and seen.ended_s != memory.gate_ended_s
    if seen is not None and news and seen.ended_s >= memory.since.monotonic_s:
        turn.note(gate_ended_s=seen.ended_s)
        if seen.verdict == "passed":
            serve(turn, "the gate passed", seen.ended_s)
            turn.ask("undrain", "the gate passed", epoch=memory.epoch)
            return
        if seen.verdict == "failed":
            turn.note(gate_failures=memory.gate_failures + 1)
        if turn.memory.gate_failures >= settings.gate_failures:
            give_up_start(turn, f"the gate failed {settings.gate_failures} times: {seen.detail}", "loops")
            return
    left_s = settings.gate_limit_s - turn.in_state_s
    proof_s = memory.watch.proof_s
    # A pair that was taken over while it works on others' prompts may keep the gate waiting: that is not its failure.
    works = proof_s is not None and turn.now.monotonic_s - proof_s < settings.proof_limit_s
    if left_s <= 0 and not works:
        give_up_start(turn, f"the gate had no verdict in {settings.gate_limit_s:.0f} s", "cures")
        return
    turn.ask("run_gate", memory.reason, epoch=memory.epoch, limit_s=max(left_s, settings.canary_timeout_s))
    turn.wait("a correct answer of the gate")


def serve(turn: Turn, reason: str, proof_s: float) -> None:
    """It answered correctly. A start of others that does so, as of a deployment, begins with a fresh budget."""
    memory, now = turn.memory, turn.now
    ours = any(attempt.epoch == memory.epoch for attempt in memory.attempts)
    attempts = tuple(replace(a, served=True) if a.epoch == memory.epoch else a for a in memory.attempts)
    watch = replace(memory.watch, proof_s=proof_s, frozen_since_s=None, canary_strikes=0, canary_since_s=None)
    fresh = {} if ours else {"failures": 0, "backoff_from": None, "backoff_wait_s": 0.0}
    turn.go(
        "serving", reason, attempts=attempts if ours else (), watch=watch, healthy_since=now, witnesses=(),
        latched=None, latched_for=None, **fresh,
    )  # fmt: skip
    turn.close_incident()
