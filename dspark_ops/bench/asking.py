"""Requests of a block: closed loop, open loop, and what makes a prompt warm; each answer is a sample in the file."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dspark_ops.bench.corpus.model import Prompt
from dspark_ops.bench.measure import sample_of
from dspark_ops.bench.plan import BenchPlan, BlockPlan
from dspark_ops.bench.preflight import Api
from dspark_ops.bench.records import RunWriter, Sample
from dspark_ops.openai_api.model import Answer, ChatRequest

#: A long prompt may take its length at this rate, in tokens per second, before it counts as hung.
_LONG_RATE = 300.0


@dataclass(frozen=True)
class Clock:
    """now: seconds since the run's zero, of the same clock as the client's. sleep and cpu: of this process."""

    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    cpu: Callable[[], float] = time.process_time


@dataclass
class Asker:
    """Sends what a plan asks for. apis and models: by arm. last_answer_s: when an answer last came, by arm."""

    plan: BenchPlan
    writer: RunWriter
    clock: Clock
    apis: dict[str, Api] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    last_answer_s: dict[str, float] = field(default_factory=dict)
    _salts: int = 0

    def left_s(self) -> float:
        """What is left of the budget."""
        return self.plan.budget_s - self.clock.now()

    def salt(self) -> str:
        """Never the same twice, in this run or in another."""
        self._salts += 1
        return f"bench {datetime.now(UTC).isoformat()} {self._salts}"

    async def streams(self, block: BlockPlan, texts: dict[str, Prompt], salts: Sequence[str]) -> list[Sample]:
        """Closed loop: each stream takes the next prompt when its last answer has ended."""
        waiting = iter(range(len(block.prompts)))
        samples: list[Sample] = []

        async def stream() -> None:
            for number in waiting:
                if self.left_s() <= 0:
                    return
                samples.append(await self._measure(block, number, texts[block.prompts[number]], salts[number]))

        await asyncio.gather(*(stream() for _ in range(block.concurrency)))
        return samples

    async def arrivals(
        self, block: BlockPlan, texts: dict[str, Prompt], salts: Sequence[str], rate: float
    ) -> list[Sample]:
        """Open loop: requests start at Poisson arrivals, however many are still being answered."""
        rng = random.Random(f"arrivals {self.plan.seed}")  # noqa: S311
        due_s, asked = self.clock.now(), []
        try:
            for number, key in enumerate(block.prompts):
                due_s += rng.expovariate(rate)
                await self.clock.sleep(max(0.0, due_s - self.clock.now()))
                if self.left_s() <= 0:
                    break
                asked.append(
                    asyncio.create_task(self._measure(block, number, texts[key], salts[number], planned_s=due_s))
                )
            return list(await asyncio.gather(*asked))
        finally:
            for task in asked:
                task.cancel()

    async def _measure(
        self, block: BlockPlan, number: int, prompt: Prompt, salt: str, *, planned_s: float | None = None
    ) -> Sample:
        longest = self.plan.timeout_s + (block.prompt_tokens or 0) / _LONG_RATE
        answer = await self.ask(block.arm, prompt, salt, timeout_s=longest)
        late_s = None if planned_s is None else answer.sent_s - planned_s
        sample = sample_of(block, number, prompt, answer, late_s=late_s)
        self.writer.write(sample)
        return sample

    async def prime(self, block: BlockPlan, texts: dict[str, Prompt], salts: Sequence[str]) -> None:
        """Ask every prompt once under its salt for one token; whether it stuck is seen in the measured answer."""
        for key, salt in zip(block.prompts, salts, strict=True):
            if self.left_s() <= 0:
                return
            await self.ask(block.arm, texts[key].model_copy(update={"max_tokens": 1}), salt)

    async def ask(
        self,
        arm: str,
        prompt: Prompt,
        salt: str,
        *,
        temperature: float | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """One request. temperature, timeout_s: None, as the plan has them."""
        request = ChatRequest(
            model=self.models[arm],
            messages=prompt.messages,
            tools=prompt.tools,
            max_tokens=prompt.max_tokens,
            temperature=self.plan.temperature if temperature is None else temperature,
            top_p=self.plan.top_p if temperature is None else 1.0,
            cache_salt=salt,
            extra=self.plan.extra,
        )
        answer = await self.apis[arm].chat(request, timeout_s=timeout_s or self.plan.timeout_s)
        self.last_answer_s[arm] = self.clock.now()
        return answer
