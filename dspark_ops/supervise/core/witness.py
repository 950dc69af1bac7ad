"""Is it a wedge? Signs that are independent of each other, each from a fold over samples. Pure.

A sign alone never restarts anything; two of different kinds do, or a process that is gone. What could not be read
makes a sign neither stronger nor weaker: it takes away what it can tell now, and after a gap it begins anew.

When a canary counts. A canary that is late may only wait behind a prefill of 17 minutes. So one that timed out counts
only if nothing moved all the while it waited (tokens, prompt tokens and KV usage as they were), or the API answered
nothing at all; and it stops counting as soon as something moves. A canary that failed with an error counts from the
second on, one with a wrong text from the third on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dspark_ops.supervise.core.memory import Memory, Watch, Witness
from dspark_ops.supervise.core.settings import Settings
from dspark_ops.supervise.core.sight import ROLES, CanarySight, EngineSight, Observation

#: Two names of one fact: a port without a listener is also an API that does not answer.
_SAME_FACT = (frozenset({"api", "engine"}),)
#: Verdicts of canaries that go on with the row of another; the rest end it without being proof.
_ALIKE: Mapping[str, tuple[str, ...]] = {
    "error": ("error", "refused"),
    "refused": ("error", "refused"),
    "wrong": ("wrong",),
    "timeout": ("timeout",),
}


def fold(settings: Settings, watch: Watch, observation: Observation) -> Watch:
    """The watch after one more look. Times may be irregular."""
    now = observation.monotonic_s
    if watch.looked_s is None or not 0 <= now - watch.looked_s <= settings.gap_s:
        watch = _begun_anew(watch, now)
    watch = _look_at_api(replace(watch, looked_s=now), observation)
    watch = _look_at_nodes(settings, watch, observation)
    watch = _look_at_counters(settings, watch, observation)
    return _look_at_canary(settings, watch, observation.canary)


def _begun_anew(watch: Watch, now: float) -> Watch:
    """What lasts is forgotten: nobody looked. What was counted of canaries was too."""
    return Watch(
        watching_since_s=now, prefilling=watch.prefilling, proof_s=watch.proof_s, canary_sent_s=watch.canary_sent_s
    )


def _from(since_s: float | None, true: bool, now: float) -> float | None:
    """When it began to be true without a break; None when it is not or nobody can tell."""
    if not true:
        return None
    return now if since_s is None else since_s


def _look_at_api(watch: Watch, observation: Observation) -> Watch:
    now, engine = observation.monotonic_s, observation.engine
    silent = engine is not None and engine.health in ("timeout", "refused") and engine.metrics_answered is False
    dead = (engine is not None and engine.health == "dead") or observation.head.api_listening is False
    return replace(
        watch,
        api_silent_since_s=_from(watch.api_silent_since_s, silent, now),
        engine_dead_since_s=_from(watch.engine_dead_since_s, dead, now),
    )


def _look_at_nodes(settings: Settings, watch: Watch, observation: Observation) -> Watch:
    now = observation.monotonic_s
    # By the management path or by none: a rank works over the fabric, so its loss alone is a lost node too.
    worker = observation.worker
    lost = worker.reachable is False or worker.by_fabric is False
    low = False
    for role in ROLES:
        power, busy = observation.node(role).gpu_power_w, observation.node(role).gpu_util_percent
        if power is not None and busy is not None and settings.power_low_w > 0:
            low = low or (busy >= settings.power_busy_percent and 0 < power < settings.power_low_w)
    return replace(
        watch,
        unreachable_since_s=_from(watch.unreachable_since_s, lost, now),
        power_low_since_s=_from(watch.power_low_since_s, low, now),
    )


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _look_at_counters(settings: Settings, watch: Watch, observation: Observation) -> Watch:
    now, engine = observation.monotonic_s, observation.engine or EngineSight()
    running, generation, kv_usage = engine.running, _known(engine.generation), _known(engine.kv_usage)
    if running is None or generation is None or kv_usage is None:
        return watch  # cannot tell now: sample_s stays behind, and with it every verdict of the counters
    waiting, prompt = engine.waiting or 0, _known(engine.prompt)
    # A canary is a request too: an engine core that hangs while idle never counts it as one.
    late = observation.canary is not None and observation.canary.verdict == "timeout"
    asked = observation.canary_pending_s is not None or late
    demand = running > 0 or waiting > 0 or asked
    new = replace(
        watch, sample_s=now, running=running, waiting=waiting, generation=generation, prompt=prompt, kv_usage=kv_usage
    )
    if watch.sample_s is None or watch.generation is None or now - watch.sample_s > settings.gap_s:
        return replace(new, frozen_since_s=now if demand else None, prefilling=False)
    both_prompts = prompt is not None and watch.prompt is not None
    restarted = generation < watch.generation or (both_prompts and (prompt or 0) < (watch.prompt or 0))
    tokens = generation > watch.generation
    filled = kv_usage != watch.kv_usage or (both_prompts and prompt != watch.prompt)
    if restarted or tokens or filled:
        if watch.canary_verdict == "timeout":  # it waited its turn
            new = replace(new, canary_strikes=0, canary_since_s=None)
        proof = watch.proof_s if restarted else now
        prefilling = running > 0 and filled and not tokens and not restarted
        return replace(new, frozen_since_s=now if demand else None, proof_s=proof, prefilling=prefilling)
    frozen = _from(watch.frozen_since_s, demand, now)
    return replace(new, frozen_since_s=frozen, prefilling=watch.prefilling and running > 0)


def _look_at_canary(settings: Settings, watch: Watch, canary: CanarySight | None) -> Watch:
    """Each canary is counted once, at the look after it ended."""
    if canary is None or canary.sent_s == watch.canary_sent_s:
        return watch
    before = watch
    watch = replace(watch, canary_sent_s=canary.sent_s, canary_verdict=canary.verdict)
    if canary.verdict == "correct":
        proof = max(canary.ended_s, watch.proof_s or canary.ended_s)
        return replace(watch, canary_strikes=0, canary_since_s=None, proof_s=proof)
    kin = _ALIKE.get(canary.verdict)
    counts = kin is not None and (canary.verdict != "timeout" or _nothing_moved(settings, watch, canary))
    if kin is None or not counts:
        return replace(watch, canary_strikes=0, canary_since_s=None)
    goes_on = before.canary_verdict in kin and before.canary_strikes > 0
    return replace(
        watch,
        canary_strikes=before.canary_strikes + 1 if goes_on else 1,
        canary_since_s=before.canary_since_s if goes_on else canary.sent_s,
    )


def _nothing_moved(settings: Settings, watch: Watch, canary: CanarySight) -> bool:
    """Whether all stood still while a canary waited. The first look after it was sent may be two probes late."""
    began = canary.sent_s + 2 * settings.probe_s
    frozen = watch.frozen_since_s is not None and watch.sample_s == watch.looked_s and watch.frozen_since_s <= began
    return frozen or (watch.api_silent_since_s is not None and watch.api_silent_since_s <= began)


def canary_strikes_needed(settings: Settings, verdict: str | None) -> int | None:
    """How many in a row are a witness; None for a verdict that never is one."""
    errors = settings.canary_error_strikes
    return {"timeout": 1, "error": errors, "refused": errors, "wrong": settings.canary_wrong_strikes}.get(verdict or "")


def suspicions(settings: Settings, watch: Watch, observation: Observation) -> tuple[Witness, ...]:
    """The witnesses of now that need a second one, at most one of each kind."""
    now, found = observation.monotonic_s, []
    if watch.sample_s == now and watch.frozen_since_s is not None and now - watch.frozen_since_s >= settings.wedge_s:
        text = f"requests wait, and no token, prompt or KV usage moved for {now - watch.frozen_since_s:.0f} s"
        found.append(Witness(kind="counters", since_s=watch.frozen_since_s, text=text))
    needed = canary_strikes_needed(settings, watch.canary_verdict)
    canary = observation.canary
    fresh_s = settings.canary_s + settings.canary_timeout_s + settings.gap_s
    if canary is not None and needed is not None and now - canary.ended_s <= fresh_s:
        since_s = watch.canary_since_s
        if since_s is not None and watch.canary_strikes >= needed:
            detail = f" ({canary.detail})" if canary.detail else ""
            text = f"{watch.canary_strikes} canaries in a row: {watch.canary_verdict}{detail}"
            found.append(Witness(kind="canary", since_s=since_s, text=text))
    lasting = (
        ("api", watch.api_silent_since_s, settings.wedge_s, "neither /health nor /metrics answers"),
        ("engine", watch.engine_dead_since_s, settings.engine_dead_s, "the engine says it is dead, or nothing listens"),
        ("node", watch.unreachable_since_s, settings.node_lost_s, "the worker is not reached over the fabric"),
        ("power", watch.power_low_since_s, settings.power_window_s, "a GPU is busy and draws next to no power"),
    )
    for kind, since_s, limit_s, text in lasting:
        if since_s is not None and now - since_s >= limit_s:
            found.append(Witness(kind=kind, since_s=since_s, text=f"{text}, for {now - since_s:.0f} s"))  # type: ignore[arg-type]
    return tuple(found)


def deaths(memory: Memory, observation: Observation) -> tuple[Witness, ...]:
    """Ranks of the present epoch that are known to be gone. What could not be asked is not gone."""
    found = []
    since_s = observation.monotonic_s if memory.seen is None else min(memory.seen.monotonic_s, observation.monotonic_s)
    for role in ROLES:
        rank = observation.rank(role)
        heard = [e for e in observation.events if e.role == role and e.epoch == memory.epoch and e.kind == "died"]
        if rank.state == "running" and rank.epoch != memory.epoch and not heard:
            text = f"the rank on {role} is of another start ({rank.epoch or 'no epoch'})"
        elif rank.down or heard:
            code = heard[-1].exit_code if heard else rank.exit_code
            ended = f", exit code {code}" if code is not None else ""
            killed = ", killed for memory" if rank.oom_killed else ""
            state = "ended" if heard or rank.state == "exited" else f"is {rank.state}"
            text = f"the rank on {role} {state}{ended}{killed}"
        else:
            continue
        found.append(Witness(kind="process", since_s=since_s, text=text, role=role))
    return tuple(found)


def runs_as_wanted(observation: Observation) -> bool:
    """Whether both ranks run and are one start of the wanted release."""
    head, worker, wanted = observation.head.rank, observation.worker.rank, observation.wanted
    if wanted is None or not head.state == worker.state == "running":
        return False
    return head.epoch is not None and head.epoch == worker.epoch and head.release == worker.release == wanted.release


def enough(witnesses: Iterable[Witness]) -> bool:
    """A process that is gone, or two signs that are independent of each other."""
    kinds = {witness.kind for witness in witnesses}
    return "process" in kinds or (len(kinds) >= 2 and kinds not in _SAME_FACT)
