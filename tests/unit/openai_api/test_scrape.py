"""A real scrape becomes counters, those of other releases too, and what is no scrape becomes none."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts.metrics import parse_metrics
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import EngineCounters
from dspark_ops.openai_api.scrape import read_counters
from tests.unit.facts.captures import FIXTURES
from tests.unit.openai_api.raw_server import serving, whole

PERFECT = (FIXTURES / "vllm-metrics" / "perfect-draft-tp2.prom").read_text(encoding="utf-8")
HALF = (FIXTURES / "vllm-metrics" / "half-draft.prom").read_text(encoding="utf-8")


def nothing(counters: EngineCounters) -> bool:
    return counters.model_dump(exclude={"at_s"}, exclude_none=True) == {}


def test_a_draft_that_is_always_right() -> None:
    found = read_counters(PERFECT, 1.5)
    assert found.at_s == 1.5
    assert (found.drafts, found.draft_tokens, found.accepted_tokens) == (100, 500, 500)
    assert found.accepted_per_position == (100, 100, 100, 100, 100)
    assert (found.running, found.waiting, found.kv_usage) == (0, 0, 0)
    assert found.finished == {"stop": 0, "length": 2, "abort": 0, "error": 0, "repetition": 0}
    assert found.corrupted is None


@pytest.mark.parametrize("text", [PERFECT, HALF])
def test_leaving_out_the_buckets_changes_no_number(text: str) -> None:
    whole_text, found = parse_metrics(text), read_counters(text, 0.0)
    assert whole_text is not None
    assert whole_text.first_token_time is not None
    assert (found.ttft_sum_s, found.ttft_count) == (
        whole_text.first_token_time.sum_s,
        whole_text.first_token_time.count,
    )
    names = ["prompt_tokens", "prompt_tokens_cached", "generation_tokens", "prefix_queries", "prefix_hits", "drafts"]
    for name in [*names, "draft_tokens", "accepted_tokens", "accepted_per_position", "finished", "running", "kv_usage"]:
        assert getattr(found, name) == getattr(whole_text, name)
        assert getattr(found, name) is not None
    assert found.process_start == whole_text.process_start_s
    assert found.process_start is not None
    assert found.process_start > 1.7e9


def test_the_name_of_an_older_release() -> None:
    old = '# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc{engine="0"} 0.25\n'
    assert read_counters(old, 0.0).kv_usage == 0.25


def test_two_engines_are_summed_and_created_is_no_count() -> None:
    text = (
        "# TYPE vllm:generation_tokens_total counter\n"
        'vllm:generation_tokens_total{engine="0"} 3.0\nvllm:generation_tokens_total{engine="1"} 4.0\n'
        "# TYPE vllm:generation_tokens_created gauge\n"
        'vllm:generation_tokens_created{engine="0"} 1.7e+09\n'
    )
    assert read_counters(text, 0.0).generation_tokens == 7
    assert read_counters(text, 0.0).prefix_hits is None


@pytest.mark.parametrize("text", [None, "", "<html>\n", HALF[: len(HALF) // 2 + 7], "# TYPE up gauge\nup 1\n"])
def test_what_is_no_whole_scrape_gives_no_number(text: str | None) -> None:
    assert nothing(read_counters(text, 0.0))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(HALF) - 1), st.text(max_size=20))
def test_no_text_raises(place: int, text: str) -> None:
    read_counters(HALF[:place] + text, 0.0)
    read_counters(text + "\n", 0.0)


@pytest.mark.parametrize(
    ("reply", "drafts"),
    [
        (whole(PERFECT.encode(), kind="text/plain; version=0.0.4"), 100),
        (whole(PERFECT.encode(), status="503 Gone", kind="text/plain"), None),
        (whole(b"\xff" * 100, kind="text/plain"), None),
    ],
)
def test_a_scrape_over_http(reply: bytes, drafts: int | None) -> None:
    async def work() -> EngineCounters:
        moments = iter([10.0, 11.0, 12.0])
        async with (
            serving(lambda _: [reply]) as server,
            ApiClient(server.url, zero=9.0, clock=lambda: next(moments)) as client,
        ):
            return await client.scrape()

    found = asyncio.run(work())
    assert (found.at_s, found.drafts) == (1.0, drafts)
    assert drafts is not None or nothing(found)
