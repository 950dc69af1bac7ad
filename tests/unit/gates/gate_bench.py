"""Gates against the fault-injecting server inside this process, in virtual time: hours of a gate in seconds of work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dspark_ops.gates.book import AgentBook, Book
from dspark_ops.gates.case import Case, CaseKind, Verdict
from dspark_ops.gates.levels import release, smoke
from dspark_ops.gates.likelihood import Baseline
from dspark_ops.gates.oracles import judge
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.plan import GatePlan, Level, asker
from dspark_ops.gates.prompts import second_turn
from dspark_ops.gates.record import RunFolder
from dspark_ops.gates.runner import Conduct
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import Answer
from tests.openai_server.app import ServerSetup, make_app
from tests.openai_server.transport import StreamingAsgiTransport
from tests.openai_server.virtual import run_virtual

MODEL = "tiny"
#: A pair in small: prompts of 1,500 tokens against steps of 1,024, so that prefills are cut as on the real one.
PROMPT_TOKENS = 1500
PAIR = ServerSetup(
    model=MODEL,
    max_num_batched_tokens=1024,
    prefill_rate=12000.0,
    decode_step_s=0.02,
    metrics="lean",
    context_length=32768,
)


@dataclass
class Bench:
    """One simulated run. alter: changes each case before it is asked (a mutation of the gate itself)."""

    setup: ServerSetup
    folder: Path
    plan: GatePlan
    alter: Callable[[Case], Case] = lambda case: case
    book: Book = field(default_factory=lambda: AgentBook(model=MODEL, tokens_per_character=0.25))

    def run(self, level: Callable[[Conduct], Coroutine[Any, Any, RunResult]]) -> tuple[RunResult, Conduct]:
        """Run it in virtual time."""

        async def main() -> tuple[RunResult, Conduct]:
            app = make_app(self.setup)
            return await self._conduct(app, level)

        return run_virtual(main())

    async def _conduct(
        self, app: Any, level: Callable[[Conduct], Coroutine[Any, Any, RunResult]]
    ) -> tuple[RunResult, Conduct]:
        loop = asyncio.get_running_loop()
        knowledge = app.state.server
        make = asker(self.book, self.plan.prompt_tokens)

        def ask(kind: CaseKind, rng: random.Random, salt: str, stream: bool, tokens: int | None) -> Case:
            case = self.alter(make(kind, rng, salt, stream, tokens))
            knowledge.learn_case(case)
            return case

        def follow(case: Case, answer: Answer) -> Case | None:
            following = second_turn(case, answer)
            if following is not None:
                knowledge.learn_case(following)
            return following

        folder = RunFolder(self.folder)
        folder.open()
        transport = StreamingAsgiTransport(app)
        async with ApiClient("http://server", zero=loop.time(), transport=transport, clock=loop.time) as client:
            run = Conduct(
                client=client,
                plan=self.plan,
                ask=ask,
                judge=judged,
                follow_up=follow,
                folder=folder,
                salt=f"salt-{self.plan.seed}",
                clock=loop.time,
            )
            result = await level(run)
        folder.close()
        return result, run


def judged(case: Case, answer: Answer, baseline: Baseline | None) -> Verdict:
    """The gate's own oracles."""
    return judge(case, answer, baseline=baseline)


def plan(level: Level, seed: int = 1, **changes: Any) -> GatePlan:
    """A plan for the small pair."""
    return GatePlan(level=level, seed=seed, prompt_tokens=PROMPT_TOKENS, rescore=False, timeout_s=300.0).model_copy(
        update=changes
    )


def run_smoke(folder: Path, setup: ServerSetup = PAIR, seed: int = 1, **changes: Any) -> tuple[RunResult, Conduct]:
    """`gate smoke` against this server."""
    return Bench(replace_seed(setup, seed), folder, plan("smoke", seed, **changes)).run(smoke)


def run_release(folder: Path, setup: ServerSetup = PAIR, seed: int = 1, **changes: Any) -> tuple[RunResult, Conduct]:
    """`gate release` against this server."""
    return Bench(replace_seed(setup, seed), folder, plan("release", seed, **changes)).run(release)


def replace_seed(setup: ServerSetup, seed: int) -> ServerSetup:
    """The server's own draws differ from run to run."""
    return setup.model_copy(update={"seed": seed})


def with_alter(bench: Bench, alter: Callable[[Case], Case]) -> Bench:
    """The same with a mutated gate."""
    return replace(bench, alter=alter)
