"""What a run does: classes, concurrency, cache states, bounds; and the order of its blocks."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dspark_ops.bench.corpus.model import CONTENT_CLASSES, ContentClass
from dspark_ops.openai_api.model import Record

CacheState = Literal["cold", "warm"]
Load = Literal["closed", "open"]
BlockClass = ContentClass | Literal["mixed"]
#: What the run sets by itself: a field of another value would be sent, and the record would say something else.
OWN_FIELDS = frozenset(
    (
        *("model", "messages", "tools", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "seed", "cache_salt", "logprobs"),
    )
)
_SECRET = re.compile(r"(?i)api_?key|authorization|secret|password|credential|\b\w*(access|auth|bearer)_?token\b")


class BenchPlan(Record):
    """One run. Times in seconds, lengths in tokens.

    rounds: each round has every cell (class x concurrency x cache) once, in random order, so a run that its budget ends
    early has still measured all cells alike. per_block: requests of a block; never fewer than its concurrency.
    preamble_tokens: the notes that every prompt begins with; without them a prompt is shorter than a cache block and
    warm is not to be had. open_requests: of the one open-loop block, 0 for none; open_rate: its arrivals per second,
    None: `open_share` of what the widest closed blocks completed. long_prompts: cold prompts of these lengths at
    concurrency 1 for their TTFT; window: one more as long as the window holds. extra: body fields of every request,
    none that the run sets or records by itself and none that reads like a secret: the plan is written down.
    """

    profile: str = "custom"
    classes: tuple[ContentClass, ...] = CONTENT_CLASSES
    concurrency: tuple[int, ...] = (1, 2, 4, 6)
    caches: tuple[CacheState, ...] = ("cold", "warm")
    arms: tuple[str, ...] = ("",)
    rounds: int = Field(3, ge=1, le=100)
    per_block: int = Field(12, ge=1, le=1000)
    prompts_per_class: int = Field(12, ge=1, le=1000)
    mixed_at: int | None = Field(6, ge=1)
    max_tokens: int = Field(640, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    extra: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    preamble_tokens: int = Field(800, ge=0)
    context_tokens: int = Field(8000, ge=200)
    long_prompts: tuple[int, ...] = ()
    window: bool = False
    open_requests: int = Field(36, ge=0)
    open_rate: float | None = Field(None, gt=0)
    open_share: float = Field(0.7, gt=0)
    warmup_min: int = Field(5, ge=1)
    warmup_max: int = Field(20, ge=1)
    warmup_change: float = Field(0.03, gt=0)
    rewarm_idle_s: float = Field(1200.0, gt=0)
    idle_s: float = Field(60.0, ge=0)
    idle_wait_s: float = Field(120.0, ge=0)
    timeout_s: float = Field(300.0, gt=0)
    budget_s: float = Field(4 * 3600.0, gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.classes or not self.concurrency or not self.caches or not self.arms:
            raise ValueError("a run needs a class, a concurrency, a cache state and an arm")
        if min(self.concurrency) < 1:
            raise ValueError("concurrency counts from 1")
        if len(self.arms) not in (1, 2) or len(set(self.arms)) != len(self.arms):
            raise ValueError("a run has one arm, or two with different names")
        if self.warmup_max < self.warmup_min:
            raise ValueError("warmup_max is below warmup_min")
        taken = sorted(OWN_FIELDS & set(self.extra))
        if taken:
            raise ValueError(f"extra sets {', '.join(taken)}, which the run itself sets and records")
        if _SECRET.search(" ".join(_names(self.extra))):
            raise ValueError("extra holds a key or a token by its name; the API key belongs into DSPARK_API_KEY")
        return self


def _names(value: object) -> Iterator[str]:
    """Every field's name, however deep."""
    if isinstance(value, dict):
        yield from map(str, value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _names(item)


class BlockPlan(Record):
    """One block: requests of one cell, between two readings of the counters on an idle engine.

    prompts: keys in the order of their start. prompt_tokens: what a long prompt aims at; None: as the class has it.
    """

    index: int
    round: int
    arm: str = ""
    content_class: BlockClass
    concurrency: int
    cache: CacheState
    load: Load = "closed"
    prompts: tuple[str, ...]
    prompt_tokens: int | None = None


def quick(**changes: Any) -> BenchPlan:
    """A few minutes on a pair that makes about 40 tokens a second a stream: a first look, not a figure to publish."""
    given: dict[str, Any] = {
        "profile": "quick",
        "classes": ("code", "prose", "tool-json", "predictable"),
        "concurrency": (1, 6),
        "caches": ("cold",),
        "rounds": 1,
        "per_block": 4,
        "prompts_per_class": 12,
        "mixed_at": None,
        "max_tokens": 512,
        "open_requests": 0,
        "idle_s": 5.0,
        "warmup_max": 8,
        "budget_s": 900.0,
    }
    return BenchPlan.model_validate(given | changes)


def standard(**changes: Any) -> BenchPlan:
    """Every class, cold and warm, at 1, 2, 4 and 6, an open-loop block and long prompts: some hours."""
    given: dict[str, Any] = {"profile": "standard", "long_prompts": (32_000, 128_000), "window": False}
    return BenchPlan.model_validate(given | changes)


PROFILES = {"quick": quick, "standard": standard}


def make_blocks(plan: BenchPlan, prompts: dict[ContentClass, tuple[str, ...]]) -> tuple[BlockPlan, ...]:
    """The blocks of a run in their order. prompts: keys by class; a class without prompts has no blocks.

    Within a round the cells are shuffled. With two arms each cell is run A B and, in the next round, B A, so that a
    drift of the machine falls on both alike.
    """
    # Which order the blocks have is no secret; the seed makes it the same again.
    rng = random.Random(f"blocks {plan.seed}")  # noqa: S311
    cells: list[tuple[BlockClass, int, CacheState]] = [
        (name, streams, cache)
        for name in plan.classes
        if prompts.get(name)
        for streams in plan.concurrency
        for cache in plan.caches
    ]
    if plan.mixed_at is not None and sum(bool(prompts.get(name)) for name in plan.classes) > 1:
        cells += [("mixed", plan.mixed_at, cache) for cache in plan.caches]
    blocks: list[BlockPlan] = []
    queues: dict[str, list[str]] = {}
    # Of their own, so that a class's own blocks still have every prompt.
    mixed_queues: dict[str, list[str]] = {}
    for round_ in range(plan.rounds):
        rng.shuffle(cells)
        for name, streams, cache in cells:
            kept = mixed_queues if name == "mixed" else queues
            chosen = _draw(plan, prompts, name, max(plan.per_block, streams), rng, kept)
            for arm in plan.arms if round_ % 2 == 0 else reversed(plan.arms):
                blocks.append(
                    BlockPlan(
                        index=len(blocks),
                        round=round_,
                        arm=arm,
                        content_class=name,
                        concurrency=streams,
                        cache=cache,
                        prompts=chosen,
                    )
                )
    return tuple(blocks)


def open_block(
    plan: BenchPlan, prompts: dict[ContentClass, tuple[str, ...]], index: int, arm: str = ""
) -> BlockPlan | None:
    """The one block of random arrivals, over the plan's classes less the predictable one; None: the plan has none."""
    if not plan.open_requests or not any(prompts.get(name) for name in plan.classes):
        return None
    rng = random.Random(f"open {plan.seed}")  # noqa: S311
    return BlockPlan(
        index=index,
        round=0,
        arm=arm,
        content_class="mixed",
        concurrency=max(plan.concurrency),
        cache="cold",
        load="open",
        prompts=_draw(plan, prompts, "mixed", plan.open_requests, rng, {}),
    )


def _draw(
    plan: BenchPlan,
    prompts: dict[ContentClass, tuple[str, ...]],
    name: BlockClass,
    count: int,
    rng: random.Random,
    queues: dict[str, list[str]],
) -> tuple[str, ...]:
    """The next `count` prompts of a class: every prompt once before any comes again."""
    if name == "mixed":
        kinds = [kind for kind in plan.classes if prompts.get(kind)]
        kinds = [kind for kind in kinds if kind != "predictable"] or kinds
        order = [kinds[i % len(kinds)] for i in range(count)]
        rng.shuffle(order)
        return tuple(_draw(plan, prompts, kind, 1, rng, queues)[0] for kind in order)
    drawn: list[str] = []
    queue = queues.setdefault(name, [])
    while len(drawn) < count:
        if not queue:
            queue.extend(prompts[name])
            rng.shuffle(queue)
        drawn.append(queue.pop())
    return tuple(drawn)
