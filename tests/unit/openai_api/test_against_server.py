"""The client against the server of the gate's own tests, over real HTTP: all of its calls agree with its counters."""

from __future__ import annotations

import asyncio
import time

from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import Answer, ChatRequest, EngineCounters
from tests.openai_server.serving import serve
from tests.openai_server.setup import KnownRate, ServerSetup

SETUP = ServerSetup(known_rate=KnownRate(ttft_s=0.02, step_s=0.002, per_step=(3,), held=7), prose_tokens=60)


def asked(model: str, salt: str, *, stream: bool = True) -> ChatRequest:
    messages = ({"role": "system", "content": "word " * 2000}, {"role": "user", "content": "Tell me something."})
    return ChatRequest(model=model, messages=messages, max_tokens=60, stream=stream, cache_salt=salt)


def test_answers_and_counters_agree() -> None:
    async def work(url: str) -> tuple[EngineCounters, list[Answer], EngineCounters, int | None]:
        async with ApiClient(url, zero=time.perf_counter()) as client:
            (model,) = await client.models()
            before = await client.scrape()
            answers = await client.burst([asked(model.id, f"s{n}") for n in range(6)], timeout_s=30)
            answers.append(await client.chat(asked(model.id, "s6", stream=False), timeout_s=30))
            after = await client.scrape()
            return before, answers, after, await client.tokenize(asked(model.id, "s0"))

    with serve(SETUP) as url:
        before, answers, after, tokens = asyncio.run(work(url))
    assert [answer.failure for answer in answers] == [None] * 7
    assert {answer.content for answer in answers} == {answers[0].content}
    assert [answer.n for answer in answers] == [60] * 7
    *streamed, unary = answers
    # The first chunk was held back until seven tokens were there, and says so.
    assert {answer.n1 for answer in streamed} == {7}
    assert (unary.n1, unary.first_s) == (None, None)
    assert before.at_s < min(answer.sent_s for answer in answers)
    assert max(answer.end_s for answer in answers) < after.at_s
    assert after.generation_tokens is not None
    assert after.generation_tokens - (before.generation_tokens or 0) == 7 * 60
    assert after.prefix_hits == before.prefix_hits == 0
    assert {answer.usage.prompt_tokens for answer in answers if answer.usage} == {tokens}


def test_an_answer_of_its_own_is_likelier_than_garbage() -> None:
    async def work(url: str) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, int | None]:
        async with ApiClient(url, zero=0.0) as client:
            (model,) = await client.models()
            request = asked(model.id, "s")
            answer = await client.chat(request, timeout_s=30)
            garbage = "\u65e5\u672c\u8a9e " * 20
            scores = [await client.prompt_logprobs(request, text, timeout_s=30) for text in (answer.content, garbage)]
            return scores[0], scores[1], answer.n

    with serve(SETUP) as url:
        own, garbage, n = asyncio.run(work(url))
    assert own is not None
    assert garbage is not None
    assert n is not None
    # The end of the answer is a token of its own, and no text.
    assert len(own) in (n, n - 1)
    assert sum(own) / len(own) > sum(garbage) / len(garbage)
