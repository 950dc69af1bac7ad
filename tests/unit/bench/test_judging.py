"""One block against counters made by hand: each thing that voids it, and each that must not."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.bench.judging import Judgement, judge_block
from dspark_ops.bench.plan import BlockPlan
from dspark_ops.openai_api.model import Answer, EngineCounters, Usage
from tests.unit.bench.answers import after_one, counters, failed_answer, made_answer, made_block, made_sample


def _judge(
    *answers: Answer, before: EngineCounters | None = None, after: EngineCounters | None = None, **block: Any
) -> Judgement:
    plan: BlockPlan = made_block(**block)
    samples = [made_sample(answer, plan, i) for i, answer in enumerate(answers or (made_answer(),))]
    return judge_block(plan, samples, before or counters(), after or after_one(), max_tokens=640)


def test_an_honest_block_is_sound() -> None:
    judged = _judge()
    assert (judged.state, judged.reasons) == ("sound", ())
    assert judged.identity is not None
    assert judged.identity.client_rate == pytest.approx(25.0)  # 100 tokens after the first, in 4 s
    assert judged.identity.engine_rate == pytest.approx(25.0)
    assert judged.identity.steps_per_s * judged.identity.tokens_per_step == pytest.approx(25.0)
    assert judged.server_ttft_s == pytest.approx(1.9)
    assert judged.speculation is not None
    assert judged.speculation.tokens_per_step == pytest.approx(2.5)
    assert judged.speculation.acceptance == pytest.approx(0.3)
    assert judged.speculation.per_position == pytest.approx((0.75, 0.45, 0.15, 0.105, 0.045))


@pytest.mark.parametrize(("counted", "state"), [(101, "sound"), (97, "sound"), (94, "void"), (112, "void")])
def test_usage_and_counters_may_differ_by_five_per_cent(counted: int, state: str) -> None:
    # The engine may rightly be ahead by one step's draft an answer, here 5 tokens, and by no more.
    judged = _judge(after=after_one(tokens=counted))
    assert judged.state == state
    assert ("identity" in " ".join(judged.reasons)) == (state == "void")


def test_counting_chunks_as_tokens_would_be_caught() -> None:
    chunks = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=21, cached_tokens=0), n1=1)
    assert _judge(chunks).state == "void"


def test_a_draft_beyond_the_limit_does_not_void_a_short_answer() -> None:
    short = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=21, cached_tokens=0), n1=1)
    assert _judge(short, after=after_one(tokens=25, accepted=14)).state == "sound"


def test_steps_without_a_draft_are_no_mistake() -> None:
    # 20 drafted steps with 30 accepted tokens; the other 50 tokens came from plain steps.
    few = after_one(drafts=1020.0, draft_tokens=5100.0, accepted_tokens=3030.0)
    judged = _judge(after=few)
    assert judged.state == "sound"
    assert judged.identity is not None
    assert (judged.identity.by, judged.identity.tokens_per_step) == ("generation", pytest.approx(101 / 71))
    wrong = after_one(drafts=1020.0, draft_tokens=5100.0, accepted_tokens=3030.0, generation_tokens=5120.0)
    assert _judge(after=wrong).state == "void"


def test_a_foreign_request_voids() -> None:
    judged = _judge(after=after_one(finished={"stop": 12.0, "length": 2.0}))
    assert judged.state == "void"
    assert "foreign requests: the engine finished 2, ours were 1" in judged.reasons[0]


def test_an_aborted_one_is_ours_only_if_one_of_ours_failed() -> None:
    aborted = after_one(finished={"stop": 11.0, "length": 2.0, "abort": 1.0})
    assert _judge(after=aborted).state == "void"
    assert _judge(made_answer(), failed_answer(), after=aborted).state == "sound"


def test_a_failure_alone_does_not_void() -> None:
    assert _judge(made_answer(), failed_answer()).state == "sound"
    assert _judge(made_answer(), failed_answer(), after=after_one(tokens=400, accepted=250)).state == "sound"


def test_counters_of_another_server_void() -> None:
    judged = _judge(after=counters(at_s=20.0))
    assert judged.state == "void"
    assert "not its counters" in " ".join(judged.reasons)


@pytest.mark.parametrize("changes", [{"running": 1.0}, {"waiting": 2.0}])
def test_somebody_at_the_border_of_the_block_voids(changes: dict[str, float]) -> None:
    assert _judge(before=counters(**changes)).state == "void"
    assert _judge(after=after_one(**changes)).state == "void"


def test_another_start_of_the_engine_voids() -> None:
    assert "anew" in _judge(after=after_one(process_start=2.0e9)).reasons[0]
    fewer = after_one(process_start=None, generation_tokens=101.0)
    assert "anew" in _judge(before=counters(process_start=None), after=fewer).reasons[0]


@pytest.mark.parametrize(
    ("cache", "cached", "hits", "state"),
    [
        ("cold", 0, 0.0, "sound"),
        ("cold", None, 0.0, "sound"),
        ("cold", None, 16.0, "void"),
        ("cold", 0, 16.0, "void"),
        ("cold", 16, 16.0, "sound"),  # the sample itself is invalid
        ("warm", 48, 48.0, "sound"),
        ("warm", None, 48.0, "sound"),
        ("warm", None, 16.0, "void"),
        ("warm", None, None, "unchecked"),
        ("cold", None, None, "unchecked"),
        ("cold", 0, None, "sound"),
    ],
)
def test_hits_must_be_what_the_cache_state_says(cache: str, cached: int | None, hits: float | None, state: str) -> None:
    answer = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=101, cached_tokens=cached))
    assert _judge(answer, after=after_one(prefix_hits=hits), cache=cache).state == state


@pytest.mark.parametrize(
    ("cache", "cached", "outcome"),
    [("cold", 16, "invalid"), ("cold", 0, "valid"), ("warm", 16, "invalid"), ("warm", 48, "valid")],
)
def test_a_sample_that_owns_up_is_judged_by_itself(cache: str, cached: int, outcome: str) -> None:
    answer = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=101, cached_tokens=cached))
    assert made_sample(answer, made_block(cache=cache)).outcome == outcome


def test_no_counters_are_unchecked() -> None:
    plan = made_block()
    judged = judge_block(plan, [made_sample()], None, None, max_tokens=640)
    assert judged.state == "unchecked"
    assert (judged.identity, judged.speculation, judged.server_ttft_s) == (None, None, None)
    no_success = _judge(before=counters(finished=None), after=after_one(finished=None))
    assert no_success.state == "unchecked"
    assert "foreign" in no_success.reasons[0]


def test_a_counter_that_begins_within_the_block_counts_from_zero() -> None:
    none_yet = counters(drafts=None, draft_tokens=None, accepted_tokens=None, accepted_per_position=None)
    judged = _judge(
        before=none_yet,
        after=after_one(
            drafts=40.0, draft_tokens=200.0, accepted_tokens=60.0, accepted_per_position=(30.0, 20.0, 10.0)
        ),
    )
    assert judged.speculation is not None
    assert judged.speculation.per_position == pytest.approx((0.75, 0.5, 0.25))
    assert judged.state == "sound"


def test_acceptance_flags_a_block_and_few_drafts_do_not() -> None:
    easy = after_one(
        tokens=601, accepted=500, draft_tokens=5500.0, accepted_per_position=(999.0, 899.0, 699.0, 498.0, 396.0)
    )
    answer = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=601, cached_tokens=0))
    codes = [reason.code for reason in _judge(answer, after=easy).predictable.reasons]
    assert codes == ["acceptance", "last-position", "tokens-per-step"]
    few = after_one(tokens=61, accepted=50, draft_tokens=5050.0)
    answer = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=61, cached_tokens=0))
    assert not _judge(answer, after=few).predictable.predictable


def test_most_texts_make_a_block_predictable_and_a_class_by_its_name() -> None:
    counting, prose = made_answer("\n".join(map(str, range(300)))), made_answer()
    two = after_one(finished={"stop": 12.0, "length": 2.0}, drafts=1080.0, draft_tokens=5400.0, accepted_tokens=3120.0)
    assert [r.code for r in _judge(counting, prose, after=two).predictable.reasons] == ["samples"]
    declared = _judge(content_class="predictable").predictable
    assert [r.code for r in declared.reasons] == ["declared"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"usage": None}, "no usage"),
        ({"usage": Usage(prompt_tokens=5, completion_tokens=0)}, "0 tokens"),
        ({"first_s": None, "last_s": None}, "nothing came"),
        ({"finish_reason": None}, "no finish reason"),
        ({"n1": 102}, "first chunk counts 102"),
    ],
)
def test_a_whole_answer_that_cannot_be_measured_says_why(changes: dict[str, Any], part: str) -> None:
    sample = made_sample(made_answer(**changes))
    assert sample.outcome == "invalid"
    assert part in " ".join(sample.reasons)


def test_a_failed_one_has_no_rate_whatever_had_come() -> None:
    usage = Usage(prompt_tokens=50, completion_tokens=101)
    sample = made_sample(failed_answer().model_copy(update={"usage": usage}))
    assert sample.outcome == "failed"
    assert (sample.decode_rate, sample.decode_rate_at_most) == (None, None)
    assert sample.failure is not None
    assert sample.failure.kind == "timeout"


def test_more_reasoning_than_completion_tokens_does_not_change_the_rate() -> None:
    usage = Usage(prompt_tokens=50, completion_tokens=101, reasoning_tokens=140, cached_tokens=0)
    sample = made_sample(made_answer(usage=usage))
    assert (sample.outcome, sample.decode_rate, sample.reasoning_tokens) == ("valid", pytest.approx(24.0), 140)


def test_a_failure_does_not_hide_that_a_cold_block_was_warm() -> None:
    silent = made_answer(usage=Usage(prompt_tokens=50, completion_tokens=101))
    more = _judge(silent, failed_answer(), after=after_one(prefix_hits=96.0))
    assert more.state == "void"
    assert "prefix cache had 96 hits" in " ".join(more.reasons)
    # As many as the failed one's own prompt may have been: nothing says whose they were.
    perhaps = _judge(silent, failed_answer(), after=after_one(prefix_hits=48.0))
    assert perhaps.state == "unchecked"
    assert _judge(silent, failed_answer()).state == "sound"


def test_an_answer_that_came_all_at_once_has_no_rate() -> None:
    """A client that was late reads in one piece what took the server a second: that time is not the server's."""
    whole = made_sample(made_answer(first_s=12.0, last_s=12.125))
    assert whole.decode_rate == pytest.approx(768)
    at_once = made_sample(made_answer(first_s=12.0, last_s=12.001))
    assert (at_once.outcome, at_once.decode_rate, at_once.decode_rate_at_most) == ("valid", None, None)
