"""Answers, counters and samples made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dspark_ops.bench.corpus.model import Expected, Prompt
from dspark_ops.bench.measure import sample_of
from dspark_ops.bench.plan import BlockPlan
from dspark_ops.bench.records import Sample
from dspark_ops.openai_api.model import Answer, Chunk, EngineCounters, Failure, Usage

WALL = datetime(2026, 1, 2, tzinfo=UTC)
PROMPT = Prompt(
    key="prose-00",
    content_class="prose",
    template="story",
    messages=({"role": "user", "content": "Tell me of Ada."},),
    max_tokens=640,
    expected=Expected(kind="mentions", values=("Ada",)),
)


def made_answer(text: str = "Ada went home.", **changes: Any) -> Answer:
    """A whole streamed answer: 101 tokens, the first 5 after 2 s, the rest in the 4 s after that."""
    given: dict[str, Any] = {
        "sent_s": 10.0,
        "first_s": 12.0,
        "last_s": 16.0,
        "end_s": 16.5,
        "wall": WALL,
        "status": 200,
        "content": text,
        "finish_reason": "stop",
        "usage": Usage(prompt_tokens=50, completion_tokens=101, cached_tokens=0),
        "n1": 5,
        "chunks": tuple(Chunk(at_s=12.0 + i * 0.2, tokens=None, chars=9) for i in range(21)),
    }
    return Answer(**given | changes)


def failed_answer(message: str = "no whole answer within 5 s") -> Answer:
    """One that timed out after a part of it had come."""
    return made_answer("Ada", usage=None, finish_reason=None, failure=Failure(kind="timeout", message=message))


def made_block(**changes: Any) -> BlockPlan:
    """A cold block of prose with one stream."""
    given: dict[str, Any] = {
        "index": 3,
        "round": 0,
        "content_class": "prose",
        "concurrency": 1,
        "cache": "cold",
        "prompts": ("prose-00",),
    }
    return BlockPlan(**given | changes)


def made_sample(answer: Answer | None = None, block: BlockPlan | None = None, number: int = 0) -> Sample:
    """The sample of an answer."""
    return sample_of(block or made_block(), number, PROMPT, answer or made_answer())


def counters(**changes: Any) -> EngineCounters:
    """An idle engine with speculation, five positions deep."""
    given: dict[str, Any] = {
        "at_s": 0.0,
        "running": 0.0,
        "waiting": 0.0,
        "prompt_tokens": 1000.0,
        "generation_tokens": 5000.0,
        "finished": {"stop": 10.0, "length": 2.0},
        "prefix_queries": 1000.0,
        "prefix_hits": 0.0,
        "drafts": 1000.0,
        "draft_tokens": 5000.0,
        "accepted_tokens": 3000.0,
        "accepted_per_position": (900.0, 800.0, 600.0, 400.0, 300.0),
        "ttft_sum_s": 20.0,
        "ttft_count": 12.0,
        "process_start": 1.0e9,
    }
    return EngineCounters(**given | changes)


def after_one(tokens: int = 101, accepted: int = 60, **changes: Any) -> EngineCounters:
    """The same engine after one more answer of so many tokens, of which `accepted` were drafted."""
    before = counters()
    drafts = tokens - 1 - accepted
    assert before.generation_tokens is not None
    given: dict[str, Any] = {
        "at_s": 20.0,
        "prompt_tokens": 1050.0,
        "generation_tokens": before.generation_tokens + tokens,
        "finished": {"stop": 11.0, "length": 2.0},
        "prefix_queries": 1050.0,
        "drafts": 1000.0 + drafts,
        "draft_tokens": 5000.0 + 5 * drafts,
        "accepted_tokens": 3000.0 + accepted,
        "accepted_per_position": (
            900.0 + 0.5 * accepted,
            800.0 + 0.3 * accepted,
            600.0 + 0.1 * accepted,
            400.0 + 0.07 * accepted,
            300.0 + 0.03 * accepted,
        ),
        "ttft_sum_s": 21.9,
        "ttft_count": 13.0,
    }
    return counters(**given | changes)
