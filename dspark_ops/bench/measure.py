"""One answer as a sample: what was measured, and whether it may be used."""

from __future__ import annotations

import hashlib
import statistics

from dspark_ops.bench.corpus.model import Prompt, is_correct
from dspark_ops.bench.plan import BlockPlan, CacheState
from dspark_ops.bench.predictable import flag, text_signals
from dspark_ops.bench.records import Sample, SampleFailure
from dspark_ops.openai_api.model import Answer

#: A warm prompt has at least this share of its tokens from the cache; the last block is never there.
WARM_SHARE = 0.5
#: From first chunk to last. A busy client reads a chunk some milliseconds late: eleven tokens that came in one piece
#: were seen to make 33,757 tok/s out of 60. Unit: seconds.
LEAST_SPAN_S = 0.1


def sample_of(block: BlockPlan, number: int, prompt: Prompt, answer: Answer, *, late_s: float | None = None) -> Sample:
    """The sample of one answer. What makes it unusable is named, not thrown away."""
    whole = answer.failure is None
    reasons = _why_invalid(answer, block.cache) if whole else ()
    said = "\n".join(part for part in (answer.reasoning, answer.content) if part)
    calls = "\n".join(call.arguments for call in answer.tool_calls)
    text = "\n".join(part for part in (said, calls) if part)
    signals = text_signals(text, prompt.user_text) if whole and text else None
    gaps = [after.at_s - before.at_s for before, after in zip(answer.chunks, answer.chunks[1:], strict=False)]
    usage = answer.usage
    return Sample(
        block=block.index,
        number=number,
        arm=block.arm,
        prompt=prompt.key,
        content_class=prompt.content_class,
        concurrency=block.concurrency,
        cache=block.cache,
        load=block.load,
        sent_s=answer.sent_s,
        first_s=answer.first_s,
        last_s=answer.last_s,
        end_s=answer.end_s,
        wall=answer.wall,
        outcome="failed" if not whole else "invalid" if reasons else "valid",
        reasons=reasons,
        correct=is_correct(prompt, answer),
        failure=None
        if answer.failure is None
        else SampleFailure(
            kind=answer.failure.kind, status=answer.failure.status, message=answer.failure.message[:400]
        ),
        finish_reason=answer.finish_reason,
        n=answer.n,
        n1=answer.n1,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
        reasoning_tokens=None if usage is None else usage.reasoning_tokens,
        chunks=len(answer.chunks),
        ttft_s=answer.ttft_s,
        decode_rate=answer.decode_rate if whole and not too_short(answer) else None,
        decode_rate_at_most=_at_most(answer) if whole and not too_short(answer) else None,
        step_s=statistics.median(gaps) if gaps else None,
        step_p95_s=sorted(gaps)[int(0.95 * (len(gaps) - 1))] if gaps else None,
        late_s=late_s,
        tool_calls=len(answer.tool_calls),
        text=signals,
        predictable=None if signals is None else flag(signals),
        text_sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else None,
    )


def too_short(answer: Answer | Sample) -> bool:
    """Whether its chunks came within so short a time that when each was read says more than when it was made."""
    return answer.first_s is not None and answer.last_s is not None and answer.last_s - answer.first_s < LEAST_SPAN_S


def _at_most(answer: Answer) -> float | None:
    """Where n1 is unknown it is at least one token, so the rate is not above (n - 1) / (last - first)."""
    if answer.n1 is not None or answer.n is None or answer.first_s is None or answer.last_s is None:
        return None
    seconds = answer.last_s - answer.first_s
    return (answer.n - 1) / seconds if seconds > 0 and answer.n > 1 else None


def _why_invalid(answer: Answer, cache: CacheState) -> tuple[str, ...]:
    """Why a whole answer cannot be measured; empty: it can."""
    reasons = []
    usage = answer.usage
    if usage is None:
        reasons.append("no usage: its tokens are not known, and none are estimated")
    elif usage.completion_tokens < 1:
        reasons.append("its usage says 0 tokens")
    if answer.first_s is None:
        reasons.append("nothing came in it")
    if answer.finish_reason is None:
        reasons.append("it has no finish reason")
    if usage is not None and answer.n1 is not None and answer.n1 > usage.completion_tokens:
        reasons.append(f"its first chunk counts {answer.n1} tokens and the whole of it {usage.completion_tokens}")
    cached = None if usage is None else usage.cached_tokens
    if usage is not None and cached is not None:
        if cache == "cold" and cached > 0:
            reasons.append(f"cold, and {cached} of its {usage.prompt_tokens} prompt tokens came from the cache")
        if cache == "warm" and cached < WARM_SHARE * usage.prompt_tokens:
            reasons.append(f"warm, and only {cached} of its {usage.prompt_tokens} prompt tokens came from the cache")
    return tuple(reasons)
