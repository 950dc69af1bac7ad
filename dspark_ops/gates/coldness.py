"""Was a burst cold, concurrent and alone? Shown from the server's own counters, or it does not count. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.openai_api.model import Answer, EngineCounters, Record

# All requests of a burst are written within this time of each other.
SPREAD_S = 0.05


class Doubt(Record):
    """One thing that keeps a burst from counting. code: stable. client: our own clock's fault, a repeat may cure it."""

    code: str
    observed: str
    expected: str
    client: bool = False


class Watched(Record):
    """One burst and what the engine said around it.

    before: idle, just before it; after: idle again, when its requests had been counted; samples: in between.
    scrapes_failed: how many of those were asked for and not answered.
    """

    answers: tuple[Answer, ...]
    before: EngineCounters | None
    after: EngineCounters | None
    samples: tuple[EngineCounters, ...] = ()
    scrapes_failed: int = 0


class Proof(Record):
    """What was shown of a burst. doubts: empty where all was. Numbers are None where they could not be read.

    spread_s: between the first and the last T0. overlap_s: how long all were sent and none had answered yet.
    most_running, most_waiting: the largest values sampled. hits: prefix cache hits in tokens. finished: by the engine.
    """

    doubts: tuple[Doubt, ...]
    spread_s: float | None = None
    overlap_s: float | None = None
    most_running: float | None = None
    most_waiting: float | None = None
    hits: float | None = None
    finished: float | None = None

    @property
    def proven(self) -> bool:
        return not self.doubts


def prove(watched: Watched, *, width: int, cold: bool = True, together: bool = True) -> Proof:
    """Judge one burst of `width` requests. cold False: it may hit the prefix cache. together False: its requests
    followed each other, at most `width` at a time. That it was alone and met one engine must hold in any case.
    """
    before, after = watched.before, watched.after
    if before is None or after is None:
        seen = f"/metrics gave nothing {'before' if before is None else 'after'} the burst"
        doubt = Doubt(code="no-metrics", observed=seen, expected="vLLM's counters")
        return Proof(doubts=(doubt,), spread_s=_spread(watched.answers))
    doubts = [
        *_same_engine(before, after),
        *_alone(watched, before, after, width),
        *(_cold(watched.answers, before, after) if cold else ()),
        *(_concurrent(watched, width) if width > 1 and together else ()),
    ]
    return Proof(
        doubts=tuple(doubts),
        spread_s=_spread(watched.answers),
        overlap_s=_overlap(watched.answers),
        most_running=_most(watched.samples, "running"),
        most_waiting=_most(watched.samples, "waiting"),
        hits=_delta(before.prefix_hits, after.prefix_hits),
        finished=_delta(_finished(before), _finished(after)),
    )


def idle(counters: EngineCounters) -> bool | None:
    """True when nothing runs or waits; None where the engine does not say."""
    if counters.running is None or counters.waiting is None:
        return None
    return counters.running == 0 and counters.waiting == 0


def accounted(answers: Sequence[Answer], before: EngineCounters, now: EngineCounters) -> bool | None:
    """True when the engine has counted as many ends as we saw whole answers; None where it does not count them."""
    delta = _delta(_finished(before), _finished(now))
    return None if delta is None else delta >= sum(answer.failure is None for answer in answers)


def _same_engine(before: EngineCounters, after: EngineCounters) -> list[Doubt]:
    if before.process_start is None or after.process_start is None:
        return [_absent("process_start_time_seconds", "a restart would not be seen")]
    if before.process_start != after.process_start:
        return [Doubt(code="restarted", observed="the engine was started anew", expected="one process all through")]
    back = [
        name
        for name in ("prompt_tokens", "generation_tokens", "prefix_queries", "prefix_hits")
        if (delta := _delta(getattr(before, name), getattr(after, name))) is not None and delta < 0
    ]
    if back:
        return [Doubt(code="restarted", observed=f"{', '.join(back)} went back", expected="counters that only grow")]
    return []


def _alone(watched: Watched, before: EngineCounters, after: EngineCounters, width: int) -> list[Doubt]:
    """No request but ours: the engine was idle at both ends and ended exactly ours in between."""
    doubts = []
    for when, counters in (("before", before), ("after", after)):
        quiet = idle(counters)
        if quiet is None:
            doubts.append(_absent("num_requests_running, num_requests_waiting", "idleness would not be seen"))
            break
        if not quiet:
            seen = f"{counters.running:g} running and {counters.waiting:g} waiting {when} the burst"
            doubts.append(Doubt(code="foreign-requests", observed=seen, expected="an idle engine"))
    most = _most(watched.samples, "running")
    if most is not None and most > width:
        seen = f"{most:g} running at once"
        doubts.append(Doubt(code="foreign-requests", observed=seen, expected=f"at most the {width} of the burst"))
    finished = _delta(_finished(before), _finished(after))
    whole = sum(answer.failure is None for answer in watched.answers)
    if finished is None:
        doubts.append(_absent("request_success_total", "foreign requests would not be seen"))
    elif finished > len(watched.answers):
        seen, sent = f"the engine ended {finished:g} requests", f"{len(watched.answers)}, as many as sent"
        doubts.append(Doubt(code="foreign-requests", observed=seen, expected=sent))
    elif 0 <= finished < whole:
        seen = f"the engine counts {finished:g} ended requests"
        doubts.append(Doubt(code="unaccounted", observed=seen, expected=f"{whole}, as many as were answered"))
    return doubts


def _cold(answers: Sequence[Answer], before: EngineCounters, after: EngineCounters) -> list[Doubt]:
    hits = _delta(before.prefix_hits, after.prefix_hits)
    if hits is None:
        return [_absent("prefix_cache_hits_total", "a warm request would not be seen")]
    doubts = []
    if hits > 0:
        seen = f"{hits:g} tokens came out of the prefix cache"
        doubts.append(Doubt(code="prefix-hits", observed=seen, expected="0: every request is cold"))
    said = _delta(before.prompt_tokens_cached, after.prompt_tokens_cached)
    if not doubts and said is not None and said > 0:
        seen = f"the engine says that {said:g} prompt tokens were cached"
        doubts.append(Doubt(code="cached-tokens", observed=seen, expected="0: every request is cold"))
    cached = [answer.usage.cached_tokens for answer in answers if answer.usage and answer.usage.cached_tokens]
    if cached:
        seen = f"{len(cached)} answers say that up to {max(cached)} of their prompt tokens were cached"
        doubts.append(Doubt(code="cached-tokens", observed=seen, expected="0: every request is cold"))
    prompts = [answer.usage.prompt_tokens for answer in answers if answer.usage is not None]
    computed = _delta(before.prompt_tokens, after.prompt_tokens)
    if computed is not None and not hits and len(prompts) == len(answers) and computed < sum(prompts):
        seen = f"the engine was given {computed:g} prompt tokens"
        doubts.append(Doubt(code="prompt-tokens", observed=seen, expected=f"{sum(prompts)}, as its answers say"))
    return doubts


def _concurrent(watched: Watched, width: int) -> list[Doubt]:
    """All were sent at once, all were in the engine's batch at once, and none had answered before all were sent."""
    doubts = []
    answers = watched.answers
    if len(answers) != width:
        doubts.append(Doubt(code="width", observed=f"{len(answers)} requests", expected=f"{width}"))
    spread = _spread(answers)
    if spread is not None and spread > SPREAD_S:
        seen = f"the last was sent {1000 * spread:.0f} ms after the first"
        limit = f"at most {1000 * SPREAD_S:.0f} ms"
        doubts.append(Doubt(code="t0-spread", observed=seen, expected=limit, client=True))
    most = _most(watched.samples, "running")
    if most is None:
        seen = f"no sample of num_requests_running ({watched.scrapes_failed} scrapes failed)"
        doubts.append(Doubt(code="no-samples", observed=seen, expected="samples all through the burst"))
    elif most < width:
        waiting = _most(watched.samples, "waiting") or 0
        seen = f"at most {most:g} ran at once, {waiting:g} waited"
        doubts.append(Doubt(code="not-concurrent", observed=seen, expected=f"{width} in the batch at once"))
    overlap = _overlap(answers)
    if overlap is None:
        if all(answer.failure is None for answer in answers):
            seen = "an answer has no first chunk"
            doubts.append(Doubt(code="no-overlap", observed=seen, expected="a first chunk of every answer"))
    elif overlap <= 0:
        seen = f"the first answer began {-1000 * overlap:.0f} ms before the last request was sent"
        doubts.append(Doubt(code="no-overlap", observed=seen, expected="all prefills under way at once", client=True))
    return doubts


def _absent(series: str, why: str) -> Doubt:
    return Doubt(code="no-counter", observed=f"/metrics has no {series}: {why}", expected="the series")


def _spread(answers: Sequence[Answer]) -> float | None:
    sent = [answer.sent_s for answer in answers]
    return max(sent) - min(sent) if sent else None


def _overlap(answers: Sequence[Answer]) -> float | None:
    """From the last T0 to the first first chunk; None where an answer without a failure has no first chunk."""
    began = [answer.first_s for answer in answers if answer.first_s is not None]
    # A request that failed before its first chunk was in prefill until it failed.
    began += [answer.end_s for answer in answers if answer.first_s is None and answer.failure is not None]
    if not answers or len(began) < len(answers):
        return None
    return min(began) - max(answer.sent_s for answer in answers)


def _most(samples: Sequence[EngineCounters], name: str) -> float | None:
    seen = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return max(seen) if seen else None


def _finished(counters: EngineCounters) -> float | None:
    return None if counters.finished is None else sum(counters.finished.values())


def _delta(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
