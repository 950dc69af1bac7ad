"""A run against the test server, in virtual time: seconds of work for minutes of measuring, and the same each time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from dspark_ops.bench.corpus.build import make_prompts
from dspark_ops.bench.corpus.model import Prompt
from dspark_ops.bench.plan import BenchPlan
from dspark_ops.bench.records import Run, RunWriter, read_run
from dspark_ops.bench.runner import Arm, Clock, Progress, Runner
from dspark_ops.openai_api.client import ApiClient
from tests.openai_server.answers import Call, Solution, prose
from tests.openai_server.app import make_app
from tests.openai_server.setup import ServerSetup
from tests.openai_server.transport import StreamingAsgiTransport
from tests.openai_server.virtual import run_virtual

_NEEDLE = re.compile(r"is (\d{6}), and only this note says so")

#: Short enough for a unit test, with everything that a run has.
SMALL: dict[str, Any] = {
    "classes": ("code", "prose"),
    "concurrency": (1, 2),
    "caches": ("cold", "warm"),
    "rounds": 1,
    "per_block": 3,
    "prompts_per_class": 3,
    "mixed_at": None,
    "max_tokens": 120,
    "preamble_tokens": 200,
    "context_tokens": 600,
    "open_requests": 0,
    "warmup_min": 5,
    "warmup_max": 8,
    "idle_s": 2.0,
    "idle_wait_s": 5.0,
    "budget_s": 7200.0,
    "temperature": 0.7,
    "top_p": 0.9,
}


def small(**changes: Any) -> BenchPlan:
    """A plan of a few blocks."""
    return BenchPlan.model_validate(SMALL | changes)


class Solver:
    """Answers the corpus rightly: what a good model would do, as long as it is asked for."""

    def __init__(self, plan: BenchPlan) -> None:
        self._known: dict[str, Prompt] = {}
        for name in plan.classes:
            if name == "long-context":
                continue
            for prompt in make_prompts(
                name,
                plan.prompts_per_class,
                seed=plan.seed,
                max_tokens=plan.max_tokens,
                preamble_chars=0,
                context_chars=400,
            ):
                self._known[str(prompt.messages[-1]["content"])] = prompt
        self.tokens = plan.max_tokens * 2

    def __call__(self, body: dict[str, Any]) -> Solution | None:
        asked = str(body["messages"][-1]["content"])
        if found := _NEEDLE.search(asked):
            return Solution(f"It is {found[1]}. " + prose(len(asked), self.tokens))
        prompt = self._known.get(asked)
        return None if prompt is None else answer_to(prompt, self.tokens)


def answer_to(prompt: Prompt, tokens: int) -> Solution:
    """A right answer of about so many tokens."""
    expected = prompt.expected
    if expected.kind == "call":
        return Solution(tool_calls=(Call(expected.values[0], json.dumps(expected.arguments)),))
    if expected.kind == "final":
        return Solution(prose(len(prompt.key), tokens // 4) + f"\nANSWER: {expected.values[0]}")
    if prompt.content_class == "predictable":
        return Solution("\n".join((*expected.values, *map(str, range(1, tokens)))), acceptance=(0.99,) * 5)
    return Solution(" ".join(expected.values) + ". " + prose(sum(map(ord, prompt.key)), tokens))


def run_bench(
    plan: BenchPlan,
    path: Path,
    setup: ServerSetup | None = None,
    *,
    app: Starlette | None = None,
    arms: tuple[Starlette, ...] = (),
    beside: Callable[[ApiClient, asyncio.AbstractEventLoop], Any] | None = None,
    say: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """The whole run in virtual time. beside: a coroutine function that runs at the same time, as a foreign client."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        zero = loop.time()
        apps = arms or (app or make_app(setup or ServerSetup(metrics="lean"), solver=Solver(plan)),)
        made = []
        for name, one in zip(plan.arms, apps, strict=True):
            api = ApiClient("http://test", zero=zero, transport=StreamingAsgiTransport(one), clock=loop.time)
            made.append(Arm(name, api, "http://test"))
        clock = Clock(now=lambda: loop.time() - zero, cpu=lambda: 0.0)
        task = None if beside is None else loop.create_task(beside(made[0].api, loop))  # type: ignore[arg-type]
        try:
            with RunWriter(path) as writer:
                await Runner(plan, made, writer, clock, tool="test", say=say).run("run")
        finally:
            if task is not None:
                task.cancel()

    run_virtual(main())
    return read_run(path)
