"""One burst: wait until the engine is idle, send all at once, sample meanwhile, wait until all are accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from dspark_ops.errors import DsparkError
from dspark_ops.gates.coldness import Watched, accounted, idle
from dspark_ops.openai_api.model import Answer, ChatRequest, EngineCounters

# Ten samples a second until the whole burst was seen in the batch; one a second after that, for foreign requests.
_SAMPLE_S = 0.1
_WATCH_S = 1.0
# A request of ours that was given up a moment ago may still be running; so may the statistics of the last step.
_IDLE_PATIENCE_S = 30.0
_POLL_S = 0.1

_Result = TypeVar("_Result")


class Client(Protocol):
    """What a gate needs of the API's client; `dspark_ops.openai_api.client.ApiClient` has it."""

    async def chat(self, request: ChatRequest, *, timeout_s: float) -> Answer: ...

    async def burst(self, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]: ...

    async def scrape(self) -> EngineCounters: ...

    async def prompt_logprobs(
        self, request: ChatRequest, answer_text: str, *, timeout_s: float
    ) -> tuple[float, ...] | None: ...


async def run_burst(client: Client, requests: Sequence[ChatRequest], *, timeout_s: float) -> Watched:
    """Send all requests at once and watch the engine meanwhile; one request is a burst of one."""

    async def send() -> list[Answer]:
        if len(requests) == 1:
            return [await client.chat(requests[0], timeout_s=timeout_s)]
        return await client.burst(list(requests), timeout_s=timeout_s)

    return await watch(client, send, width=len(requests))


async def watch(client: Client, send: Callable[[], Awaitable[list[Answer]]], *, width: int) -> Watched:
    """What `send` brought and what the engine said before, while and after. width: requests of ours at one time."""
    before = await _settle(client, idle)
    if before is None:
        # Without the counters nothing can be shown, and a long burst for nothing helps nobody.
        return Watched(answers=(), before=None, after=None)
    if idle(before) is False:
        return Watched(answers=(), before=before, after=before)
    samples: list[EngineCounters] = []
    failed = [0]
    sampler = asyncio.create_task(_sample(client, width, samples, failed))
    try:
        answers = await send()
    finally:
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)

    def settled(counters: EngineCounters) -> bool | None:
        counted = accounted(answers, before, counters)
        return None if counted is None else counted and idle(counters)

    after = await _settle(client, settled, patient=True)
    return Watched(answers=tuple(answers), before=before, after=after, samples=tuple(samples), scrapes_failed=failed[0])


async def scrape(client: Client) -> EngineCounters | None:
    """One scrape; None where there is none or nothing of the engine is in it."""
    try:
        counters = await client.scrape()
    except DsparkError:
        return None
    known = counters.model_dump(exclude={"at_s", "process_start"}, exclude_none=True)
    return counters if known else None


async def _settle(
    client: Client, settled: Callable[[EngineCounters], bool | None], *, patient: bool = False
) -> EngineCounters | None:
    """The first scrape that is settled; the last one when none was in time or it cannot be told; None: no scrape.

    patient: the counters were there a moment ago, so one scrape that fails says little.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _IDLE_PATIENCE_S
    last: EngineCounters | None = None
    while True:
        seen = await scrape(client)
        last = seen or last
        if seen is not None and settled(seen) is not False:
            return seen
        if loop.time() >= deadline or (last is None and not patient):
            return last
        await asyncio.sleep(_POLL_S)


async def _sample(client: Client, width: int, samples: list[EngineCounters], failed: list[int]) -> None:
    together = False
    while True:
        await asyncio.sleep(_WATCH_S if together else _SAMPLE_S)
        seen = await scrape(client)
        if seen is None:
            failed[0] += 1
            continue
        samples.append(seen)
        together = together or (seen.running or 0) >= width
