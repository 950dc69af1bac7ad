"""The figures of a run against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.bench.predictable import PredictableFlag
from dspark_ops.bench.records import Block, Run, Sample, Speculation
from dspark_ops.bench.summary import pool, spread, summarise
from dspark_ops.openai_api.model import Usage
from tests.unit.bench.answers import failed_answer, made_answer, made_block, made_sample
from tests.unit.bench.test_records import BLOCK, HEADER


def _speculation(drafts: float, accepted: float, positions: tuple[float, ...]) -> Speculation:
    return Speculation(
        drafts=drafts,
        draft_tokens=drafts * len(positions),
        accepted=accepted,
        acceptance=accepted / (drafts * len(positions)),
        tokens_per_step=1 + accepted / drafts,
        per_position=positions,
        depth=len(positions),
    )


def _run(*pairs: tuple[Block, list[Sample]]) -> Run:
    return Run(
        path="x",
        header=HEADER,
        blocks=tuple(block for block, _ in pairs),
        samples=tuple(sample for _, samples in pairs for sample in samples),
    )


def _block(index: int, **changes: Any) -> Block:
    return BLOCK.model_copy(update={"index": index, "requests": 4, "wall_s": 10.0} | changes)


def _samples(index: int) -> list[Sample]:
    plan = made_block(index=index)
    wrong = made_answer("of someone else")
    invalid = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=101, cached_tokens=16))
    answers = (made_answer(), wrong, invalid, failed_answer())
    return [made_sample(answer, plan, i) for i, answer in enumerate(answers)]


def test_counts_rates_and_goodput() -> None:
    (cell,) = summarise(_run((_block(0), _samples(0)), (_block(1), _samples(1))))
    assert (cell.blocks, cell.requests, cell.valid, cell.invalid, cell.failed) == (2, 8, 4, 2, 2)
    assert (cell.correct, cell.incorrect, cell.untold) == (2, 2, 0)
    assert cell.valid_share == 0.5
    assert cell.rate is not None
    assert (cell.rate.n, cell.rate.median) == (4, pytest.approx(24.0))
    assert cell.tpot is not None
    assert cell.tpot.mean == pytest.approx(1 / 24)
    assert cell.ttft is not None
    assert cell.ttft.median == pytest.approx(2.0)
    assert cell.step is not None
    assert cell.step.median == pytest.approx(0.2)
    # All whole answers' tokens, and those that are valid and right, over 2 x 10 s.
    assert cell.aggregate == pytest.approx(6 * 101 / 20)
    assert cell.goodput == pytest.approx(2 * 101 / 20)
    assert cell.requests_per_s == pytest.approx(6 / 20)
    assert cell.failures == ("timeout: no whole answer within 5 s (2 times)",)
    assert len(cell.invalid_reasons) == 1


def test_void_blocks_are_counted_and_used_for_nothing() -> None:
    void = _block(1, state="void", reasons=("foreign requests",))
    (cell,) = summarise(_run((_block(0), _samples(0)), (void, _samples(1))))
    assert (cell.blocks, cell.void_blocks, cell.void_requests, cell.requests) == (1, 1, 4, 4)
    assert cell.void_reasons == ("foreign requests",)
    assert cell.wall_s == 10.0
    (only,) = summarise(_run((void, _samples(1))))
    assert (only.requests, only.rate, only.aggregate, only.valid_share) == (0, None, None, None)


def test_cells_are_kept_apart_and_in_the_order_of_the_plan() -> None:
    blocks = [
        _block(0, content_class="prose"),
        _block(1, content_class="code", cache="warm"),
        _block(2, content_class="code", concurrency=6),
        _block(3, content_class="code"),
        _block(4, content_class="mixed", load="open"),
        _block(5, content_class="long-context", prompt_tokens=32_000),
        _block(6, content_class="code"),
    ]
    cells = [summary.cell for summary in summarise(_run(*((block, []) for block in blocks)))]
    assert [(c.content_class, c.concurrency, c.cache, c.load) for c in cells] == [
        ("code", 1, "cold", "closed"),
        ("code", 1, "warm", "closed"),
        ("code", 6, "cold", "closed"),
        ("prose", 1, "cold", "closed"),
        ("mixed", 1, "cold", "open"),
        ("long-context", 1, "cold", "closed"),
    ]


def test_acceptance_is_pooled_by_drafts_not_by_blocks() -> None:
    pooled = pool([_speculation(100, 100, (0.6, 0.4)), None, _speculation(300, 60, (0.15, 0.05))])
    assert pooled is not None
    assert pooled.acceptance == pytest.approx(160 / 800)
    assert pooled.tokens_per_step == pytest.approx(1.4)
    assert pooled.per_position == pytest.approx((0.2625, 0.1375))
    assert pool([None]) is None


def test_a_cell_is_predictable_by_all_its_blocks_together() -> None:
    high = _block(0, speculation=_speculation(1000, 1900, (0.97, 0.93)))
    low = _block(1, speculation=_speculation(1000, 800, (0.6, 0.2)))
    flagged = high.model_copy(update={"predictable": PredictableFlag(predictable=True)})
    assert not summarise(_run((flagged, []), (low, [])))[0].predictable.predictable
    assert summarise(_run((high, [])))[0].predictable.predictable
    declared = _block(0, content_class="predictable")
    assert summarise(_run((declared, [])))[0].predictable.predictable


def test_a_spread_leaves_out_what_is_not_known() -> None:
    assert spread([None, None]) is None
    found = spread([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.n, found.mean, found.median, found.least, found.most) == (3, 2.0, 2.0, 1.0, 3.0)
    assert found.p5 == pytest.approx(1.1)


def test_a_bound_is_not_among_the_rates() -> None:
    sample = made_sample(made_answer(n1=None), made_block(index=0))
    (cell,) = summarise(_run((_block(0), [sample])))
    assert cell.rate is None
    assert cell.tpot is None
    assert cell.rate_at_most is not None
    assert cell.rate_at_most.median == pytest.approx(25.0)


def test_what_cannot_be_told_is_not_0() -> None:
    plan = made_block(index=0)
    cut = made_answer("of someone", finish_reason="length")
    (cell,) = summarise(_run((_block(0), [made_sample(cut, plan, 0)])))
    assert (cell.valid, cell.untold) == (1, 1)
    assert cell.goodput is None
    (cell,) = summarise(_run((_block(0), [made_sample(cut, plan, 0), made_sample(made_answer(), plan, 1)])))
    assert cell.goodput == pytest.approx(10.1)
    (cell,) = summarise(_run((_block(0), [made_sample(made_answer(usage=None), plan, 0)])))
    assert cell.invalid == 1
    assert cell.aggregate is None
    # Where all failed it is known: nothing was made.
    (cell,) = summarise(_run((_block(0), [made_sample(failed_answer(), plan, 0)])))
    assert (cell.aggregate, cell.goodput) == (0.0, 0.0)
