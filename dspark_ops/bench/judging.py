"""One block against the engine's own counters: whether it was alone, cold or warm as said, and rightly counted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from dspark_ops.bench.corpus.model import ContentClass
from dspark_ops.bench.measure import WARM_SHARE
from dspark_ops.bench.plan import BlockPlan
from dspark_ops.bench.predictable import SAMPLE_SHARE, FlagReason, PredictableFlag, flag
from dspark_ops.bench.records import Identity, Sample, Speculation
from dspark_ops.openai_api.model import EngineCounters, Record

#: More than this between what the answers say and what the engine counted, and the block is void.
IDENTITY_SHARE = 0.05
#: Fewer drafts than this say nothing about a content.
_LEAST_DRAFTS = 50


class Judgement(Record):
    """What the counters say of a block."""

    state: Literal["sound", "unchecked", "void"]
    reasons: tuple[str, ...] = ()
    identity: Identity | None = None
    speculation: Speculation | None = None
    predictable: PredictableFlag
    server_ttft_s: float | None = None


def judge_block(
    plan: BlockPlan,
    samples: Sequence[Sample],
    before: EngineCounters | None,
    after: EngineCounters | None,
    *,
    max_tokens: int,
) -> Judgement:
    """Judge a block by its samples and the counters on either side of it.

    max_tokens: the most that an answer may have; a request that failed may have made up to that, which the engine
    counted and no usage tells.
    """
    void: list[str] = []
    unchecked: list[str] = []
    speculation = speculation_of(before, after)
    identity = None
    if before is None or after is None:
        unchecked.append("the engine's counters could not be read")
    elif _restarted(before, after):
        void.append("the engine started anew within the block")
    else:
        _look_for_others(samples, before, after, void, unchecked)
        _look_at_cache(plan, samples, before, after, void, unchecked)
        identity = identity_of(samples, before, after, max_tokens=max_tokens)
        if identity is None:
            unchecked.append("the engine does not count its tokens, or no answer has a count")
        elif abs(identity.off) > IDENTITY_SHARE:
            void.append(
                f"identity: the answers' usage gives {identity.client_rate:.1f} tokens/s a stream, the engine's "
                f"counters {identity.engine_rate:.1f} ({identity.off:+.1%})"
            )
    sums = _delta(before, after, "ttft_sum_s"), _delta(before, after, "ttft_count")
    return Judgement(
        state="void" if void else "unchecked" if unchecked else "sound",
        reasons=(*void, *unchecked),
        identity=identity,
        speculation=speculation,
        predictable=block_flag(plan.content_class, samples, speculation),
        server_ttft_s=sums[0] / sums[1] if sums[0] is not None and sums[1] else None,
    )


def speculation_of(before: EngineCounters | None, after: EngineCounters | None) -> Speculation | None:
    """Acceptance over a block; None: no speculation, no counters, or no draft in it."""
    drafts, proposed = _delta(before, after, "drafts"), _delta(before, after, "draft_tokens")
    accepted = _delta(before, after, "accepted_tokens")
    if not drafts or not proposed or accepted is None or min(drafts, proposed) < 0:
        return None
    first = None if before is None else before.accepted_per_position
    last = None if after is None else after.accepted_per_position
    positions: tuple[float, ...] = ()
    if last:
        # A position that no draft had reached has no series yet.
        begun = (*(first or ()), *([0.0] * len(last)))
        positions = tuple(max(0.0, now - then) / drafts for now, then in zip(last, begun, strict=False))
    return Speculation.of(drafts, proposed, accepted, positions)


def identity_of(
    samples: Sequence[Sample], before: EngineCounters, after: EngineCounters, *, max_tokens: int
) -> Identity | None:
    """tok/s = steps/s x tokens/step, once from the answers' usage and once from the engine's counters.

    Every token after a request's first comes from a step, so that with speculation drafts + accepted is what all
    answers have beyond their first tokens; without it, generation tokens are what they have in all. Two differences
    are rightful and taken off before comparing: the last step's tokens beyond the limit, at most the draft's length an
    answer, and what requests that failed may have made. None: nothing to compare.
    """
    whole = [s for s in samples if s.failure is None and s.n]
    # A whole answer without usage was counted by the engine as well, and may have anything up to its limit.
    unknown = len(samples) - len(whole)
    seconds = sum(s.last_s - s.first_s for s in whole if s.first_s is not None and s.last_s is not None)
    counted = sum(s.n for s in whole if s.n)
    if not counted or seconds <= 0:
        return None
    speculation, generated = speculation_of(before, after), _delta(before, after, "generation_tokens")
    by: Literal["drafts", "generation"] = "generation"
    if speculation is not None:
        by, client = "drafts", counted - len(whole)
        steps, per_step = speculation.drafts, speculation.tokens_per_step
        rightful = speculation.depth * len(whole)
        if generated is not None and steps * per_step < (1 - IDENTITY_SHARE) * client:
            # Some steps had no draft (n-gram speculation, or none above a batch size): then all steps are counted.
            by, client, rightful = "generation", counted, 0.0
            steps = generated - speculation.accepted
            per_step = generated / steps if steps > 0 else 0.0
    elif generated is not None:
        client, steps, per_step, rightful = counted, generated, 1.0, 0.0
    else:
        return None
    if client <= 0:
        return None
    engine = steps * per_step
    over = engine - client
    off = max(0.0, over - rightful - unknown * max_tokens) if over > 0 else over
    return Identity(
        by=by,
        client_tokens=client,
        engine_tokens=engine,
        client_rate=client / seconds,
        steps_per_s=steps / seconds,
        tokens_per_step=per_step,
        engine_rate=engine / seconds,
        chunks_per_step=sum(s.chunks for s in whole) / steps if steps > 0 and not unknown else None,
        off=off / client,
    )


def block_flag(
    content_class: ContentClass | Literal["mixed"], samples: Sequence[Sample], speculation: Speculation | None
) -> PredictableFlag:
    """Whether a block's content is predictable: by the counters, by most of its texts, or because it was made so."""
    reasons: list[FlagReason] = []
    if speculation is not None and speculation.drafts >= _LEAST_DRAFTS:
        reasons += flag(
            acceptance=speculation.acceptance,
            last_position=speculation.last_position,
            tokens_per_step=speculation.tokens_per_step,
            depth=speculation.depth,
        ).reasons
    judged = [sample.predictable for sample in samples if sample.predictable is not None]
    share = statistics.mean(verdict.predictable for verdict in judged) if judged else 0.0
    if judged and share >= SAMPLE_SHARE:
        reasons.append(FlagReason(code="samples", value=round(share, 4), threshold=SAMPLE_SHARE))
    if content_class == "predictable":
        reasons.append(FlagReason(code="declared", value=1.0, threshold=1.0))
    return PredictableFlag(predictable=bool(reasons), reasons=tuple(reasons))


def finished_between(before: EngineCounters | None, after: EngineCounters | None) -> float | None:
    """Requests that the engine finished between two readings, whatever the reason; None: it does not say."""
    if before is None or after is None or after.finished is None:
        return None
    return sum(after.finished.values()) - sum((before.finished or {}).values())


def _look_for_others(
    samples: Sequence[Sample],
    before: EngineCounters,
    after: EngineCounters,
    void: list[str],
    unchecked: list[str],
) -> None:
    finished = finished_between(before, after)
    if finished is None:
        unchecked.append("the engine does not say how many requests it finished: a foreign one would not be seen")
        return
    failed = sum(sample.failure is not None for sample in samples)
    ours = len(samples) - failed
    if finished > len(samples):
        void.append(f"foreign requests: the engine finished {finished:g}, ours were {len(samples)}")
    elif finished < ours:
        void.append(f"the engine finished {finished:g} requests, {ours} were answered: these are not its counters")
    for name, reading in (("before", before), ("after", after)):
        busy = (reading.running or 0) + (reading.waiting or 0)
        if busy > 0:
            void.append(f"{busy:g} requests were in the engine {name} the block")


def _look_at_cache(
    plan: BlockPlan,
    samples: Sequence[Sample],
    before: EngineCounters,
    after: EngineCounters,
    void: list[str],
    unchecked: list[str],
) -> None:
    """Hits that no sample owns up to. A sample that says how much of it was cached is judged by itself."""
    whole = [sample for sample in samples if sample.failure is None]
    told = sum(sample.cached_tokens or 0 for sample in whole)
    silent = [sample for sample in whole if sample.cached_tokens is None]
    hits = _delta(before, after, "prefix_hits")
    if hits is None:
        if silent:
            unchecked.append(f"neither counters nor answers say whether the prompts were {plan.cache}")
        return
    failed = len(samples) - len(whole)
    if plan.cache == "cold" and hits > told:
        # What a request that failed had from the cache no answer tells: at most its prompt, as long as the longest.
        most = failed * max((sample.prompt_tokens or 0 for sample in whole), default=0)
        text = f"cold, and the prefix cache had {hits:g} hits, of which the answers tell {told}"
        if hits - told > most:
            void.append(text)
        else:
            unchecked.append(f"{text}: whether the rest are of the {failed} that failed is not known")
    if plan.cache == "warm" and silent:
        needed = WARM_SHARE * sum(sample.prompt_tokens or 0 for sample in silent)
        if hits - told < needed:
            void.append(f"warm, and the prefix cache had {hits:g} hits where at least {needed + told:g} were due")


def _delta(before: EngineCounters | None, after: EngineCounters | None, name: str) -> float | None:
    """How much a counter grew. A series that first comes with its first event counts from zero."""
    if before is None or after is None:
        return None
    now, then = getattr(after, name), getattr(before, name)
    return None if now is None else float(now) - float(then or 0.0)


def _restarted(before: EngineCounters, after: EngineCounters) -> bool:
    if before.process_start is not None and after.process_start is not None:
        return before.process_start != after.process_start
    grown = [_delta(before, after, name) for name in ("generation_tokens", "prompt_tokens", "prefix_queries")]
    return any(value is not None and value < 0 for value in grown)
