"""While it serves: serving and suspect, and what is left of both under a hold."""

from __future__ import annotations

from dspark_ops.supervise.core.clock import now_of, since
from dspark_ops.supervise.core.going_down import give_up_serving
from dspark_ops.supervise.core.going_up import serve
from dspark_ops.supervise.core.memory import Memory, Witness
from dspark_ops.supervise.core.policy import started_by_others
from dspark_ops.supervise.core.sight import ROLES, Observation
from dspark_ops.supervise.core.turn import Turn
from dspark_ops.supervise.core.witness import deaths, enough, runs_as_wanted, suspicions

#: Longer than this a step of a restart takes for another reason than that nobody looked.
_HURRY_S = 60.0


def serving(turn: Turn) -> None:
    """Proven lately and nothing against it; after two healthy hours old failures are forgotten."""
    memory, settings = turn.memory, turn.settings
    if _replaced(turn):
        return
    signs = _signs(turn)
    if enough(signs):
        give_up_serving(turn, signs)
    elif signs:
        turn.go("suspect", signs[0].text, signs)
    elif (silent_s := _unproven_s(turn)) >= settings.proof_limit_s:
        turn.go("suspect", f"nothing proved for {silent_s:.0f} s that it answers")
    elif memory.failures and since(memory.healthy_since, turn.now) >= settings.reset_s:
        turn.note(failures=0)


def suspect(turn: Turn) -> None:
    """One witness is not enough to restart, and no proof is not enough to call it well."""
    memory = turn.memory
    if _replaced(turn):
        return
    signs = _signs(turn)
    proof = memory.watch.proof_s
    if enough(signs):
        give_up_serving(turn, signs)
    elif not signs and proof is not None and proof > memory.since.monotonic_s:
        turn.go("serving", "it answers, and nothing speaks against it", healthy_since=memory.healthy_since or turn.now)
        turn.close_incident()
    elif memory.watch.canary_verdict == "wrong" and signs:
        # Wrong text is one witness; the gate, with other questions, can be the second.
        if not _gate_ended(turn):
            turn.ask("run_gate", signs[0].text, epoch=memory.epoch, limit_s=turn.settings.gate_limit_s)
        turn.wait("the gate's verdict")
    else:
        turn.wait("a second witness, or a proof that it answers")


def held_watch(turn: Turn) -> None:
    """Serving or suspect under a hold: the state follows what is seen, and nothing is done."""
    memory = turn.memory
    gone = deaths(memory, turn.observation)
    if gone:
        turn.go("cooling", f"{gone[0].text}, under a hold", gone, healthy_since=None)
        return
    signs = _signs(turn)
    proof = memory.watch.proof_s
    if memory.state == "serving" and signs:
        turn.go("suspect", signs[0].text, signs)
    elif memory.state == "serving" and _unproven_s(turn) >= turn.settings.proof_limit_s:
        turn.go("suspect", "nothing proved that it answers")
    elif memory.state == "suspect" and not signs and proof is not None and proof > memory.since.monotonic_s:
        turn.go("serving", "it answers, and nothing speaks against it")


def held_proof(turn: Turn) -> None:
    """A hold over a pair that is not known to serve, as after a deployment under it: a correct answer makes it serve.

    The answer must be to a canary that was sent after the whole start was seen; the state and the route follow, and
    nothing is done.
    """
    memory, observation = turn.memory, turn.observation
    latch_ends = memory.state == "failed" and started_by_others(memory, observation)
    if not (memory.state == "cooling" or latch_ends) or not may_be_proven(memory, observation):
        return
    epoch, canary = observation.head.rank.epoch, observation.canary
    if latch_ends or memory.epoch != epoch:
        reason = f"start {epoch} runs as wanted, under a hold"
        turn.go("cooling", reason, epoch=epoch, started=ROLES, latched=None, latched_for=None)
    elif deaths(memory, observation) or canary is None or canary.sent_s < memory.since.monotonic_s:
        return
    elif canary.verdict == "correct" and turn.now.monotonic_s - canary.ended_s <= turn.settings.gap_s:
        serve(turn, "it answers correctly, under a hold", canary.ended_s)


def may_be_proven(memory: Memory, observation: Observation) -> bool:
    """Whether a held pair that is not known to serve runs as it should, so that one canary can tell."""
    wanted = observation.wanted
    waits = memory.hold is not None and memory.harm is None
    return waits and wanted is not None and wanted.run and runs_as_wanted(observation)


def wants_canary(memory: Memory, observation: Observation) -> bool:
    """Not while the pair starts, where the gate asks, and not while it goes down."""
    if memory.state == "cooling":
        return may_be_proven(memory, observation)
    return memory.state in ("serving", "suspect", "failed")


def wants_looks(memory: Memory, observation: Observation) -> bool:
    """Whether every second counts: the pair is down, and the next step of its restart waits for a look."""
    recent = since(memory.since, now_of(observation)) < _HURRY_S
    return recent and memory.hold is None and memory.state in ("stopping", "cooling", "starting")


def _replaced(turn: Turn) -> bool:
    """Whether another whole start of the wanted release runs, as after a deployment: it is looked at, not stopped."""
    head = turn.observation.head.rank
    if not runs_as_wanted(turn.observation) or head.epoch == turn.memory.epoch:
        return False
    turn.go("cooling", f"another start of the wanted release runs: {head.epoch}", healthy_since=None)
    return True


def _signs(turn: Turn) -> tuple[Witness, ...]:
    """All witnesses of now, kept for `status`."""
    memory, observation = turn.memory, turn.observation
    signs = (*deaths(memory, observation), *suspicions(turn.settings, memory.watch, observation))
    gate = observation.gate
    if memory.state == "suspect" and gate is not None and gate.verdict == "failed" and _gate_ended(turn):
        signs = (*signs, Witness(kind="gate", since_s=gate.ended_s, text=f"the gate failed: {gate.detail}"))
    turn.note(witnesses=signs)
    return signs


def _gate_ended(turn: Turn) -> bool:
    gate, memory = turn.observation.gate, turn.memory
    return gate is not None and gate.epoch == memory.epoch and gate.ended_s >= memory.since.monotonic_s


def _unproven_s(turn: Turn) -> float:
    """Seconds without proof, of those in which somebody looked."""
    watch, now_s = turn.memory.watch, turn.now.monotonic_s
    known = [moment for moment in (watch.proof_s, watch.watching_since_s) if moment is not None]
    return now_s - max(known, default=now_s)
