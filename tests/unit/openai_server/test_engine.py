"""The scheduler's clockwork: times, batches, cache and counters that can be worked out by hand."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.openai_server.app import Lies, Server, ServerSetup, Speculation
from tests.unit.openai_server.asking import body, counters, in_virtual_time, long_body, streamed, whole

# 1,000 tokens a second of prefill in steps of 500, a decode step of 0.1 s, one token a step.
PLAIN = ServerSetup(
    prefill_rate=1000.0, max_num_batched_tokens=500, decode_step_s=0.1, speculation=None, context_length=32_768
)


def test_time_to_first_token_is_the_prompt_over_the_rate() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[Any, dict[str, float]]:
        return await streamed(client, long_body(1, 2000, max_tokens=11)), await counters(client)

    found, counted = in_virtual_time(PLAIN, scenario)
    prompt = found.usage["prompt_tokens"]
    times = [at for at, _ in found.deliveries()]
    assert times[0] == pytest.approx(prompt / 1000.0)
    assert times[-1] - times[0] == pytest.approx(10 * 0.1)
    assert found.usage["completion_tokens"] == 11
    assert counted["time_to_first_token_seconds_sum"] == pytest.approx(prompt / 1000.0)
    # Steps: the prompt's chunks and ten of decode.
    assert counted["iteration_tokens_total_count"] == -(-prompt // 500) + 10
    assert counted["generation_tokens_total"] == 11
    assert counted["request_success_total"] == 1


def test_buckets_hold_what_was_seen() -> None:
    """First tokens after 0.2, 0.4 and 2 s, in vLLM's own buckets."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> str:
        for number, tokens in enumerate((196, 396, 1996)):
            await streamed(client, long_body(number, tokens, max_tokens=2))
        return (await client.get("/metrics")).text

    text = in_virtual_time(PLAIN, scenario)
    found = dict(re.findall(r'time_to_first_token_seconds_bucket\{engine="0",le="([^"]+)".*\} (\S+)', text))
    assert [found[le] for le in ("0.1", "0.25", "0.5", "1.0", "2.5", "+Inf")] == [
        "0.0",
        "1.0",
        "2.0",
        "2.0",
        "3.0",
        "3.0",
    ]


def test_a_burst_is_prefilled_in_chunks_one_after_the_other() -> None:
    """Six prompts share the step's budget in their order; who decodes meanwhile waits for the others' chunks."""

    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[list[Any], list[Any]]:
        asked = [long_body(n, 1200, max_tokens=200) for n in range(6)]
        return list(await asyncio.gather(*(streamed(client, one) for one in asked))), server.served

    found, served = in_virtual_time(PLAIN, scenario)
    first = [one.deliveries()[0][0] for one in found]
    assert first == sorted(first)
    assert first[-1] >= 6 * 1200 / 1000.0
    assert all(s.concurrent for s in served)
    assert len({s.burst for s in served}) == 1


def test_lone_prompts_are_not_concurrent() -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> list[Any]:
        for n in range(3):
            await streamed(client, long_body(n, 1200))
        return server.served

    served = in_virtual_time(PLAIN, scenario)
    assert [s.concurrent for s in served] == [False] * 3
    assert [s.burst for s in served] == [0, 1, 2]


def test_more_requests_than_sequences_wait() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[dict[str, float], dict[str, float]]:
        asking = [asyncio.ensure_future(streamed(client, body(f"Question {n}?", max_tokens=100))) for n in range(9)]
        await asyncio.sleep(2.0)
        during = await counters(client)
        await asyncio.gather(*asking)
        return during, await counters(client)

    during, after = in_virtual_time(PLAIN, scenario)
    assert (during["num_requests_running"], during["num_requests_waiting"]) == (6, 3)
    assert during["kv_cache_usage_perc"] > 0
    assert (after["num_requests_running"], after["num_requests_waiting"], after["kv_cache_usage_perc"]) == (0, 0, 0)
    assert after["request_success_total"] == 9


def test_the_cache_knows_whole_blocks_and_the_salt() -> None:
    """The second of two equal requests is warm but for its last block; another salt, or a nonce in front, is cold."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> list[int]:
        cached = []
        for asked in (
            long_body(1, 1000, cache_salt="a"),
            long_body(1, 1000, cache_salt="a"),
            long_body(1, 1000, cache_salt="b"),
            long_body(1, 1000),
            long_body(2, 1000, cache_salt="a"),
        ):
            found = await streamed(client, asked)
            cached.append(found.usage["prompt_tokens_details"]["cached_tokens"])
        counted = await counters(client)
        return [*cached, int(counted["prefix_cache_hits_total"]), int(counted["prompt_tokens_cached_total"])]

    found = in_virtual_time(PLAIN, scenario)
    warm = found[1]
    assert 1000 - 2 * 16 <= warm < 1010
    assert warm % 16 == 0
    assert found == [0, warm, 0, 0, 0, warm, warm]


def test_a_warm_prompt_starts_at_once() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> list[float]:
        asked = long_body(1, 4000, cache_salt="s")
        return [(await streamed(client, asked)).deliveries()[0][0] for _ in range(2)]

    cold, warm = in_virtual_time(PLAIN, scenario)
    assert cold > 3.9
    assert warm < 0.05


def test_a_second_turn_finds_the_first_in_the_cache() -> None:
    """The session goes on: the prompt of the longer chat has the shorter one as its prefix."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[int, int]:
        first = long_body(1, 1000, cache_salt="s")
        answer = await streamed(client, first)
        more = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "And then?"}]
        second = await streamed(client, first | {"messages": first["messages"] + more})
        return answer.usage["prompt_tokens"], second.usage["prompt_tokens_details"]["cached_tokens"]

    prompt, cached = in_virtual_time(PLAIN, scenario)
    assert cached >= prompt // 16 * 16


def test_speculation_gives_its_acceptance_and_the_identity_holds() -> None:
    """Shares accepted by position, and tokens = first tokens + drafts + accepted, from the counters alone."""
    setup = PLAIN.model_copy(update={"speculation": Speculation(acceptance=(0.8, 0.5, 0.2))})

    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[dict[str, float], list[int]]:
        asked = [body(f"Question {n}?", max_tokens=600) for n in range(12)]
        await asyncio.gather(*(streamed(client, one) for one in asked))
        return await counters(client), server.counters.per_position

    counted, positions = in_virtual_time(setup, scenario)
    drafts = counted["spec_decode_num_drafts_total"]
    assert counted["spec_decode_num_draft_tokens_total"] == 3 * drafts
    assert counted["spec_decode_num_accepted_tokens_total"] == sum(positions)
    assert counted["generation_tokens_total"] == 12 + drafts + sum(positions)
    for seen, rate in zip(positions, (0.8, 0.5, 0.2), strict=True):
        assert seen / drafts == pytest.approx(rate, abs=0.03)


def test_who_goes_away_is_aborted() -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[dict[str, float], Any]:
        async with client.stream("POST", "/v1/chat/completions", json=body(max_tokens=600)) as response:
            async for _ in response.aiter_lines():
                break
        return await counters(client), server.served[-1]

    counted, served = in_virtual_time(PLAIN, scenario)
    assert counted["num_requests_running"] == 0
    assert served.finish == "abort"


def test_a_whole_answer_and_its_stream_say_the_same() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[str, str]:
        stream, document = await streamed(client, body("One?")), await whole(client, body("One?"))
        return stream.content, document["choices"][0]["message"]["content"]

    stream, document = in_virtual_time(ServerSetup(), scenario)
    assert stream
    assert stream == document


def test_the_engine_comes_back_with_new_counters_and_an_empty_cache() -> None:
    setup = PLAIN.model_copy(update={"restart_after": 2})

    async def scenario(client: httpx.AsyncClient, server: Server) -> list[Any]:
        seen: list[Any] = []
        for _ in range(3):
            found = await streamed(client, long_body(1, 500, cache_salt="s"))
            counted = await counters(client)
            cached = found.usage["prompt_tokens_details"]["cached_tokens"]
            seen.append((cached, counted["request_success_total"], server.counters.process_start))
        return seen

    first, second, third = in_virtual_time(setup, scenario)
    assert first[0] == 0
    assert second[0] > 0
    assert third[0] == 0
    assert (first[1], second[1], third[1]) == (1, 0, 1)
    assert second[2] > first[2]


@pytest.mark.parametrize(
    ("lies", "cold"),
    [
        (Lies(), 6),
        (Lies(always_warm=True), 1),
        (Lies(cold_of_burst=2), 2),
    ],
)
def test_lies_of_coldness_show_in_the_counters(lies: Lies, cold: int) -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[int, float]:
        asked = [long_body(n, 800, cache_salt=str(n)) for n in range(6)]
        await asyncio.gather(*(streamed(client, one) for one in asked))
        counted = await counters(client)
        return sum(1 for s in server.served if not s.cached_tokens), counted["prefix_cache_hits_total"]

    really_cold, hits = in_virtual_time(PLAIN.model_copy(update={"lies": lies}), scenario)
    assert really_cold == cold
    assert (hits > 0) == (cold < 6)


def test_hidden_hits_are_warm_all_the_same() -> None:
    lies = Lies(always_warm=True, hide_hits=True)

    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[float, int, float]:
        await streamed(client, long_body(1, 800))
        found = await streamed(client, long_body(2, 800))
        counted = await counters(client)
        return counted["prefix_cache_hits_total"], server.served[-1].cached_tokens, found.deliveries()[0][0]

    hits, cached, first = in_virtual_time(PLAIN.model_copy(update={"lies": lies}), scenario)
    assert hits == 0
    assert cached > 700
    assert first < 0.1


def test_serialised_requests_never_run_together() -> None:
    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[float, list[Any]]:
        asked = [asyncio.ensure_future(streamed(client, long_body(n, 800))) for n in range(6)]
        most = 0.0
        while not all(one.done() for one in asked):
            most = max(most, (await counters(client))["num_requests_running"])
            await asyncio.sleep(0.25)
        return most, server.served

    setup = PLAIN.model_copy(update={"lies": Lies(serialise=True), "metrics": "lean"})
    most, served = in_virtual_time(setup, scenario)
    assert most == 1
    assert not any(s.concurrent for s in served)


def test_the_salt_is_ignored_on_request() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> list[int]:
        return [
            (await streamed(client, long_body(1, 800, cache_salt=salt))).usage["prompt_tokens_details"]["cached_tokens"]
            for salt in ("a", "b")
        ]

    assert in_virtual_time(PLAIN, scenario) == [0, 0]
    assert in_virtual_time(PLAIN.model_copy(update={"lies": Lies(ignore_salt=True)}), scenario)[1] > 700
