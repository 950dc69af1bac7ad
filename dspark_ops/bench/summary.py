"""A run in figures: one cell per arm, class, concurrency, cache state and load, out of blocks that are not void.

Intervals and plots are made elsewhere from the same samples; here are the plain figures and every count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from dspark_ops.bench.judging import block_flag
from dspark_ops.bench.plan import BlockClass, CacheState, Load
from dspark_ops.bench.predictable import PredictableFlag
from dspark_ops.bench.records import Block, Run, Sample, Speculation
from dspark_ops.openai_api.model import Record


class Spread(Record):
    """How a quantity is spread over n samples."""

    n: int
    mean: float
    median: float
    p5: float
    p95: float
    least: float
    most: float


class Cell(Record):
    """What a cell of the plan is. prompt_tokens: of a long prompt; None: as the class has it."""

    arm: str
    content_class: BlockClass
    concurrency: int
    cache: CacheState
    load: Load
    prompt_tokens: int | None = None


class CellSummary(Record):
    """One cell's figures. Rates in tokens per second, times in seconds; None: there is nothing to tell it by.

    requests = valid + invalid + failed, of blocks that are not void; void_requests: of those that are, used for
    nothing. correct, incorrect, untold: of the valid ones. rate: of each stream, tpot its inverse; rate_at_most: of
    streams whose first chunk's tokens are unknown, not among `rate`. aggregate: all tokens of whole answers / the
    blocks' wall time; goodput: of valid and correct ones only, None where of none of the valid it can be told whether
    it is correct. acceptance and the like: from the blocks' counters together.
    """

    cell: Cell
    blocks: int
    unchecked_blocks: int
    void_blocks: int
    void_requests: int
    void_reasons: tuple[str, ...] = ()
    requests: int
    valid: int
    invalid: int
    failed: int
    invalid_reasons: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    correct: int
    incorrect: int
    untold: int
    wall_s: float
    rate: Spread | None = None
    rate_at_most: Spread | None = None
    ttft: Spread | None = None
    tpot: Spread | None = None
    step: Spread | None = None
    server_ttft_s: float | None = None
    latency: Spread | None = None
    output_tokens: Spread | None = None
    prompt_length: Spread | None = None
    aggregate: float | None = None
    goodput: float | None = None
    requests_per_s: float | None = None
    acceptance: float | None = None
    per_position: tuple[float, ...] = ()
    tokens_per_step: float | None = None
    steps_per_s: float | None = None
    identity_off: float | None = None
    predictable: PredictableFlag
    cpu_share: float | None = None

    @property
    def valid_share(self) -> float | None:
        """Valid of all requests: a failed one stays in the denominator."""
        return self.valid / self.requests if self.requests else None


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of what is known; None: nothing is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Spread(
        n=len(known),
        mean=statistics.fmean(known),
        median=statistics.median(known),
        p5=_quantile(known, 0.05),
        p95=_quantile(known, 0.95),
        least=known[0],
        most=known[-1],
    )


def summarise(run: Run) -> tuple[CellSummary, ...]:
    """Every cell that the run has begun and finished a block of, in the order of the plan.

    Samples of a block that was not finished are left out: nothing says whether the engine was theirs alone.
    """
    groups: dict[Cell, list[Block]] = {}
    for block in run.blocks:
        groups.setdefault(cell_of(block), []).append(block)
    by_block: dict[int, list[Sample]] = {}
    for sample in run.samples:
        by_block.setdefault(sample.block, []).append(sample)
    order = {name: i for i, name in enumerate(("", *run.header.plan.arms))}
    classes: dict[str, int] = {name: i for i, name in enumerate((*run.header.plan.classes, "mixed"))}

    def place(cell: Cell) -> tuple[int, int, int, int, int, str]:
        return (
            order.get(cell.arm, 0),
            cell.prompt_tokens or 0,
            int(cell.load == "open"),
            classes.get(cell.content_class, len(classes)),
            cell.concurrency,
            cell.cache,
        )

    return tuple(_summary(cell, groups[cell], by_block) for cell in sorted(groups, key=place))


def cell_of(block: Block) -> Cell:
    """The cell that a block belongs to."""
    return Cell(
        arm=block.arm,
        content_class=block.content_class,
        concurrency=block.concurrency,
        cache=block.cache,
        load=block.load,
        prompt_tokens=block.prompt_tokens,
    )


def _summary(cell: Cell, blocks: Sequence[Block], by_block: dict[int, list[Sample]]) -> CellSummary:
    used = [block for block in blocks if block.state != "void"]
    void = [block for block in blocks if block.state == "void"]
    samples = [sample for block in used for sample in by_block.get(block.index, ())]
    valid = [sample for sample in samples if sample.outcome == "valid"]
    whole = [sample for sample in samples if sample.outcome != "failed"]
    wall_s = sum(block.wall_s for block in used)
    pooled = pool(block.speculation for block in used)
    ended = [block.identity for block in used if block.identity is not None]
    servers = [(block.server_ttft_s, block.requests) for block in used if block.server_ttft_s is not None]

    def over(measure: Callable[[Sample], float | None]) -> Spread | None:
        return spread(map(measure, valid))

    return CellSummary(
        cell=cell,
        blocks=len(used),
        unchecked_blocks=sum(block.state == "unchecked" for block in used),
        void_blocks=len(void),
        void_requests=sum(block.requests for block in void),
        void_reasons=_distinct(reason for block in void for reason in block.reasons),
        requests=len(samples),
        valid=len(valid),
        invalid=len(whole) - len(valid),
        failed=len(samples) - len(whole),
        invalid_reasons=_distinct(reason for s in whole if s.outcome == "invalid" for reason in s.reasons),
        failures=_distinct(f"{s.failure.kind}: {s.failure.message}" for s in samples if s.failure is not None),
        correct=sum(sample.correct is True for sample in valid),
        incorrect=sum(sample.correct is False for sample in valid),
        untold=sum(sample.correct is None for sample in valid),
        wall_s=wall_s,
        rate=over(lambda s: s.decode_rate),
        rate_at_most=over(lambda s: s.decode_rate_at_most),
        ttft=over(lambda s: s.ttft_s),
        tpot=over(lambda s: 1 / s.decode_rate if s.decode_rate else None),
        step=over(lambda s: s.step_s),
        server_ttft_s=sum(ttft * n for ttft, n in servers) / sum(n for _, n in servers) if servers else None,
        latency=over(lambda s: s.end_s - s.sent_s),
        output_tokens=over(lambda s: s.n),
        prompt_length=over(lambda s: s.prompt_tokens),
        aggregate=_per_second((s.n for s in whole), wall_s),
        goodput=_per_second((s.n for s in valid if s.correct is True), wall_s) if told(valid) else None,
        requests_per_s=len(whole) / wall_s if wall_s > 0 else None,
        acceptance=None if pooled is None else pooled.acceptance,
        per_position=() if pooled is None else pooled.per_position,
        tokens_per_step=None if pooled is None else pooled.tokens_per_step,
        steps_per_s=_steps_per_second(used),
        identity_off=max((identity.off for identity in ended), key=abs, default=None),
        predictable=block_flag(cell.content_class, samples, pooled),
        cpu_share=max((block.cpu_share for block in used if block.cpu_share is not None), default=None),
    )


def pool(parts: Iterable[Speculation | None]) -> Speculation | None:
    """Acceptance over several blocks: their counters together, so that a long block weighs more."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    drafts, proposed = sum(p.drafts for p in known), sum(p.draft_tokens for p in known)
    accepted = sum(p.accepted for p in known)
    depth = max(len(p.per_position) for p in known)
    positions = tuple(
        sum(p.per_position[i] * p.drafts for p in known if i < len(p.per_position)) / drafts for i in range(depth)
    )
    return Speculation.of(drafts, proposed, accepted, positions)


def _steps_per_second(blocks: Sequence[Block]) -> float | None:
    """Of one stream while it decodes: all steps over all streams' seconds."""
    known = [block.identity for block in blocks if block.identity is not None]
    seconds = sum(identity.client_tokens / identity.client_rate for identity in known if identity.client_rate > 0)
    steps = sum(
        identity.steps_per_s * identity.client_tokens / identity.client_rate
        for identity in known
        if identity.client_rate > 0
    )
    return steps / seconds if seconds > 0 else None


def told(valid: Sequence[Sample]) -> bool:
    """Whether a goodput can be told: none valid, it is 0; all of them cut too early, it is unknown."""
    return not valid or any(sample.correct is not None for sample in valid)


def _per_second(tokens: Iterable[int | None], wall_s: float) -> float | None:
    """None: no time, or there are answers and none tells its tokens."""
    counts = list(tokens)
    if wall_s <= 0 or (counts and all(n is None for n in counts)):
        return None
    return sum(n for n in counts if n) / wall_s


def _quantile(ordered: Sequence[float], share: float) -> float:
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, with how often where more than once."""
    counted: dict[str, int] = {}
    for text in texts:
        counted[text] = counted.get(text, 0) + 1
    return tuple(text if count == 1 else f"{text} ({count} times)" for text, count in counted.items())
