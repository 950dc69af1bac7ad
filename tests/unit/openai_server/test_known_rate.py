"""A rate that is known beforehand is the rate that a client sees, however the tokens come."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.openai_server.answers import Solution, prose
from tests.openai_server.app import KnownRate, Server, ServerSetup, make_app
from tests.openai_server.serving import serve
from tests.unit.openai_server.asking import Streamed, body, counters, in_virtual_time, streamed

_TOKENS = 600


def ask(rate: KnownRate, at_once: int = 1, **fields: Any) -> tuple[list[Streamed], dict[str, float]]:
    async def scenario(client: httpx.AsyncClient, server: Server) -> tuple[list[Streamed], dict[str, float]]:
        asked = [body(f"Question {n}?", max_tokens=_TOKENS) for n in range(at_once)]
        found = await asyncio.gather(*(streamed(client, one) for one in asked))
        assert [s.kept_rate for s in server.served] == pytest.approx([rate.true_rate(_TOKENS)] * at_once)
        return list(found), await counters(client)

    return in_virtual_time(ServerSetup(known_rate=rate, **fields), scenario)


def measured(found: Streamed) -> float:
    """Tokens after the first chunk, over the time from the first to the last."""
    table = found.deliveries()
    return (table[-1][1] - table[0][1]) / (table[-1][0] - table[0][0])


@pytest.mark.parametrize("per_step", [(1,), (2,), (3,), (4,), (5,), (6,), (3, 1, 6, 2, 5, 4)])
@pytest.mark.parametrize("more", [{}, {"held": 17}, {"held": 44}, {"burst": 3}, {"held": 17, "burst": 4}])
def test_the_rate_is_the_true_one(per_step: tuple[int, ...], more: dict[str, int]) -> None:
    rate = KnownRate(step_s=0.02, per_step=per_step, **more)
    [found], counted = ask(rate)
    assert found.usage["completion_tokens"] == _TOKENS
    assert measured(found) == pytest.approx(rate.true_rate(_TOKENS), rel=1e-9)
    assert [at for at, _ in found.deliveries()] == pytest.approx([at for at, _ in rate.timetable(_TOKENS)])
    assert found.deliveries()[0][1] == rate.first_tokens(_TOKENS) >= max(1, rate.held)
    assert counted["generation_tokens_total"] == _TOKENS


@pytest.mark.parametrize("tokens", [1, 2, 3, 6])
def test_the_rate_is_tokens_over_step_time(tokens: int) -> None:
    """By hand: n tokens each 20 ms are 50 n a second; counting chunks would say 50 for all of them."""
    rate = KnownRate(step_s=0.02, per_step=(tokens,))
    assert rate.true_rate(_TOKENS) == pytest.approx(50 * tokens, rel=0.01)
    [found], _ = ask(rate)
    chunks = len(found.deliveries())
    assert chunks == -(-(_TOKENS - 1) // tokens) + 1


def test_tokens_by_hand() -> None:
    """One token of prefill, then 3, 2, 3, 2 …; eleven are held back for the first chunk; the end brings the rest."""
    rate = KnownRate(ttft_s=1.0, step_s=0.1, per_step=(3, 2), held=8)
    assert rate.steps(12) == [1, 3, 2, 3, 2, 1]
    expected = [(1.3, 9), (1.4, 2), (1.5, 1)]
    assert [(round(at, 6), n) for at, n in rate.timetable(12)] == expected
    assert rate.true_rate(12) == pytest.approx(3 / 0.2)


def test_others_do_not_slow_it() -> None:
    rate = KnownRate(step_s=0.02, per_step=(3,))
    found, counted = ask(rate, at_once=6)
    assert [measured(one) for one in found] == pytest.approx([rate.true_rate(_TOKENS)] * 6)
    assert counted["request_success_total"] == 6


def test_counters_agree_with_the_steps() -> None:
    """One draft for each step after the prefill's: tokens over drafts are the tokens of a step."""
    [_], counted = ask(KnownRate(per_step=(4,)))
    steps = -(-(_TOKENS - 1) // 4)
    assert counted["spec_decode_num_drafts_total"] == steps
    assert counted["spec_decode_num_accepted_tokens_total"] == _TOKENS - 1 - steps
    assert counted["spec_decode_num_draft_tokens_total"] == 3 * steps


def test_chunks_without_text_count_their_tokens() -> None:
    rate = KnownRate(per_step=(2,), empty_every=4)
    [found], _ = ask(rate)
    chunks = [d for d in found.documents if d["choices"]][1:]
    empty = [d for d in chunks if d["choices"][0]["delta"].get("content") == ""]
    assert len(empty) == len(chunks) // 4
    assert measured(found) == pytest.approx(rate.true_rate(_TOKENS))
    [plain], _ = ask(KnownRate(per_step=(2,)))
    assert found.content == plain.content


def test_usage_only_at_the_end() -> None:
    [found], _ = ask(KnownRate(per_step=(2,)), usage="end")
    assert [d for d in found.documents if d["choices"] and "usage" in d] == []
    assert found.usage["completion_tokens"] == _TOKENS


def test_usage_missing() -> None:
    [found], _ = ask(KnownRate(per_step=(2,)), usage="missing")
    assert [d for d in found.documents if "usage" in d] == []
    assert found.done


def test_more_reasoning_than_tokens() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> Streamed:
        return await streamed(client, body(max_tokens=100))

    def solver(_: dict[str, Any]) -> Solution:
        return Solution("Yes.", reasoning=prose(1, 40))

    setup = ServerSetup(known_rate=KnownRate(), reasoning_overcount=True)
    used = in_virtual_time(make_app(setup, solver=solver), scenario).usage
    assert used["completion_tokens_details"]["reasoning_tokens"] > used["completion_tokens"]


def test_a_text_of_its_own_acceptance() -> None:
    """A solver may say how easy its text is to guess; the counters show it."""

    def solver(asked: dict[str, Any]) -> Solution:
        easy = "count" in asked["messages"][-1]["content"]
        return Solution(prose(1, 500), acceptance=(1.0, 1.0, 1.0) if easy else (0.0, 0.0, 0.0))

    async def scenario(client: httpx.AsyncClient, server: Server) -> list[float]:
        seen = []
        for text in ("count", "think"):
            before = dict(server.counters.values)
            await streamed(client, body(text, max_tokens=400))
            after = server.counters.values
            drafts = after["spec_decode_num_drafts"] - before.get("spec_decode_num_drafts", 0)
            accepted = after["spec_decode_num_accepted_tokens"] - before.get("spec_decode_num_accepted_tokens", 0)
            seen.append(accepted / drafts)
        return seen

    setup = ServerSetup.model_validate({"speculation": {"acceptance": (0.5, 0.4, 0.3)}})
    easy, hard = in_virtual_time(make_app(setup, solver=solver), scenario)
    assert easy == pytest.approx(3.0, abs=0.05)
    assert hard == 0


def test_over_real_http_the_chunks_are_the_same() -> None:
    """The same timetable on a socket: tokens of each chunk, text and usage. Times are measured by the benchmark."""
    rate = KnownRate(ttft_s=0.01, step_s=0.001, per_step=(3,), held=17)
    [virtual], _ = ask(rate)

    async def real(url: str) -> Streamed:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            return await streamed(client, body("Question 0?", max_tokens=_TOKENS))

    with serve(ServerSetup(known_rate=rate)) as url:
        found = asyncio.run(real(url))
    assert [n for _, n in found.deliveries()] == [n for _, n in virtual.deliveries()]
    assert found.content == virtual.content
    assert found.usage == virtual.usage
    assert found.done
