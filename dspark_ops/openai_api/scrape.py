"""vLLM's own counters as its clients use them, from one scrape of `/metrics`."""

from __future__ import annotations

from dspark_ops.facts.metrics import parse_metrics
from dspark_ops.openai_api.model import EngineCounters

# Nothing here is read from a histogram's buckets, and they are most of the text; what is left is quick to parse, and a
# burst is sampled ten times a second by the process that takes its times.
_LEFT_OUT = ("_bucket{", "_created{", "_created ")


def read_counters(text: str | None, at_s: float) -> EngineCounters:
    """The counters of a scrape; all None but at_s where the text is not vLLM's, or is cut.

    at_s: seconds of the answers' clock. Counts only grow in one life of the engine: another process_start is another.
    """
    found = None if text is None else parse_metrics(_without_buckets(text))
    if found is None:
        return EngineCounters(at_s=at_s)
    return EngineCounters(
        at_s=at_s,
        running=found.running,
        waiting=found.waiting,
        kv_usage=found.kv_usage,
        prompt_tokens=found.prompt_tokens,
        prompt_tokens_cached=found.prompt_tokens_cached,
        generation_tokens=found.generation_tokens,
        finished=None if found.finished is None else dict(found.finished),
        prefix_queries=found.prefix_queries,
        prefix_hits=found.prefix_hits,
        drafts=found.drafts,
        draft_tokens=found.draft_tokens,
        accepted_tokens=found.accepted_tokens,
        accepted_per_position=found.accepted_per_position,
        corrupted=found.corrupted,
        ttft_sum_s=None if found.first_token_time is None else found.first_token_time.sum_s,
        ttft_count=None if found.first_token_time is None else found.first_token_time.count,
        process_start=found.process_start_s,
    )


def _without_buckets(text: str) -> str:
    kept = (line for line in text.splitlines(keepends=True) if not any(part in line for part in _LEFT_OUT))
    return "".join(kept)
