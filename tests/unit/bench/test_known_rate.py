"""A server whose decode rate is known: every class, every size of chunk, first chunks that were held back."""

from __future__ import annotations

import asyncio

import pytest

from dspark_ops.bench.corpus.build import make_prompts
from dspark_ops.bench.corpus.model import CONTENT_CLASSES
from dspark_ops.bench.measure import sample_of
from dspark_ops.bench.records import Sample
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import ChatRequest
from tests.openai_server.app import make_app
from tests.openai_server.setup import KnownRate, ServerSetup
from tests.openai_server.transport import StreamingAsgiTransport
from tests.openai_server.virtual import run_virtual
from tests.unit.bench.answers import made_block
from tests.unit.bench.known_rate import CASES, long_answers

TOKENS = 256


def _samples(rate: KnownRate) -> list[Sample]:
    async def main() -> list[Sample]:
        loop = asyncio.get_running_loop()
        transport = StreamingAsgiTransport(make_app(ServerSetup(known_rate=rate, metrics="lean"), solver=long_answers))
        async with ApiClient("http://test", zero=loop.time(), transport=transport, clock=loop.time) as api:
            found = []
            for name in CONTENT_CLASSES:
                prompt = make_prompts(name, 1, seed=0, max_tokens=TOKENS, preamble_chars=0, context_chars=2000)[0]
                request = ChatRequest(
                    model="tiny", messages=prompt.messages, tools=prompt.tools, max_tokens=TOKENS, cache_salt=name
                )
                answer = await api.chat(request, timeout_s=600)
                block = made_block(content_class=name, prompts=(prompt.key,))
                found.append(sample_of(block, 0, prompt, answer))
            return found

    return run_virtual(main())


@pytest.mark.parametrize("case", CASES)
def test_the_rate_is_within_one_per_cent(case: str) -> None:
    rate = KnownRate(ttft_s=0.5, step_s=0.0725, **CASES[case])
    for sample in _samples(rate):
        assert (sample.outcome, sample.n) == ("valid", TOKENS)
        true = rate.true_rate(TOKENS)
        assert sample.decode_rate == pytest.approx(true, rel=0.01), sample.content_class
        # The two mistakes that others made, where they would be one.
        assert sample.last_s is not None
        assert sample.first_s is not None
        seconds = sample.last_s - sample.first_s
        if max(rate.per_step) >= 2:
            assert sample.chunks / seconds < 0.8 * true
        if rate.held:
            assert (TOKENS - 1) / seconds > 1.05 * true
