"""The run: warm-up, blocks in their order, the open-loop block, long prompts; every result on the disk as it comes.

A failure of the server is a sample, never an exception. An interruption leaves a file without an `end`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dspark_ops.bench.asking import Asker, Clock
from dspark_ops.bench.corpus.model import Prompt
from dspark_ops.bench.judging import finished_between, judge_block
from dspark_ops.bench.plan import BenchPlan, BlockPlan, make_blocks, open_block
from dspark_ops.bench.preflight import (
    Api,
    Prompts,
    chars_per_token,
    client_conditions,
    find_model,
    fit_prompts,
    wait_idle,
)
from dspark_ops.bench.records import DEFINITIONS, Block, End, Header, PromptLine, RunWriter, Sample, Server
from dspark_ops.bench.warmup import warm_up
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.openai_api.model import Answer, EngineCounters

__all__ = ["Arm", "Clock", "Progress", "Runner"]

# Between blocks the engine is only looked at: it was alone before, and the counters tell whether it stayed so.
_BETWEEN_IDLE_S = 0.5
_SETTLE_S = 10.0
_SETTLE_POLL_S = 0.1
_WARM_UP_TOKENS = 640


@dataclass(frozen=True)
class Arm:
    """One server under test. model: None, the only one that it serves. known: of its identity what the caller knows
    (a site's digest and flags); the run adds what the server says.
    """

    name: str
    api: Api
    base_url: str
    model: str | None = None
    known: Server | None = None


@dataclass(frozen=True)
class Progress:
    """Where the run is. done, total: blocks. left_s: of this plan, at most the budget's rest; None: not known yet."""

    text: str
    done: int
    total: int
    elapsed_s: float
    left_s: float | None


@dataclass
class Runner:
    """One run over one or two arms. `run` may be called once."""

    plan: BenchPlan
    arms: Sequence[Arm]
    writer: RunWriter
    clock: Clock
    tool: str
    say: Callable[[Progress], None] = lambda _: None
    client: dict[str, str] = field(default_factory=dict)
    _took: dict[tuple[str, int], float] = field(default_factory=dict)
    _rates: list[tuple[int, float]] = field(default_factory=list)
    _boots: dict[str, float] = field(default_factory=dict)
    _done: int = 0
    _total: int = 0

    def __post_init__(self) -> None:
        self._asker = Asker(self.plan, self.writer, self.clock)

    async def run(self, run_id: str) -> End:
        """Everything, from the preflight to the end.

        Raises:
            ConfigError, NoVerdictError, RefusedError: from the preflight, before a record is written, or because the
                file cannot be written any more.
        """
        prompts, header = await self._preflight(run_id)
        self.writer.write(header)
        for arm in self.arms:
            await self._warm(arm, prompts)
        blocks = list(make_blocks(self.plan, prompts.keys()))
        opens = [open_block(self.plan, prompts.keys(), len(blocks) + i, arm.name) for i, arm in enumerate(self.arms)]
        blocks += [block for block in opens if block is not None]
        blocks += self._long_blocks(prompts, len(blocks))
        self._total = len(blocks)
        texts = prompts.all()
        reason: str = "done"
        for position, block in enumerate(blocks):
            if self._asker.left_s() < self._estimate(block):
                reason = "budget"
                break
            self._tell(f"{_name(block)}, {len(block.prompts)} requests", blocks[position:])
            # Blocks follow each other at once; this is for a machine that was put to sleep in between, and for the
            # arm that waited while the other was asked long prompts. A server that was started anew is cold as well.
            idle_s = self.clock.now() - self._asker.last_answer_s.get(block.arm, 0.0)
            if idle_s > self.plan.rewarm_idle_s or await self._restarted(block.arm):
                await self._warm(self._arm(block.arm), prompts)
            if not await self._block(block, texts):
                reason = "budget"
            self._done += 1
            if reason == "budget":
                break
        end = End(
            at=datetime.now(UTC),
            reason="done" if reason == "done" else "budget",
            blocks_planned=len(blocks),
            blocks_run=self._done,
            elapsed_s=self.clock.now(),
        )
        self.writer.write(end)
        return end

    async def _preflight(self, run_id: str) -> tuple[Prompts, Header]:
        servers, scales, windows = [], [], []
        for arm in self.arms:
            self._tell(f"preflight of {arm.base_url}", ())
            model, window = await find_model(arm.api, arm.model)
            self._asker.models[arm.name], self._asker.apis[arm.name] = model, arm.api
            seen = await wait_idle(
                arm.api,
                idle_s=self.plan.idle_s,
                wait_s=self.plan.idle_wait_s,
                now=self.clock.now,
                sleep=self.clock.sleep,
            )
            if seen is not None and seen.process_start is not None:
                self._boots[arm.name] = seen.process_start
            known = arm.known or Server(base_url=arm.base_url, model=model)
            told = {
                "arm": arm.name,
                "base_url": arm.base_url,
                "model": model,
                "max_model_len": window,
                "version": await arm.api.version() or known.version,
                "boot": None if seen is None else seen.process_start,
            }
            servers.append(known.model_copy(update=told))
            scales.append(await chars_per_token(arm.api, model, self.plan, window))
            windows.append(window)
        known_windows = [window for window in windows if window is not None]
        prompts = fit_prompts(self.plan, min(scales), min(known_windows) if known_windows else None)
        if not prompts.by_class:
            raise NoVerdictError(f"the window holds none of the classes: {'; '.join(prompts.skipped)}")
        lines = [
            PromptLine(
                key=prompt.key,
                content_class=prompt.content_class,
                template=prompt.template,
                sha256=prompt.sha256,
                chars=prompt.chars,
                max_tokens=prompt.max_tokens,
            )
            for prompt in prompts.all().values()
        ]
        return prompts, Header(
            run_id=run_id,
            began=datetime.now(UTC),
            tool=self.tool,
            servers=tuple(servers),
            plan=self.plan,
            definitions=DEFINITIONS,
            prompts=tuple(lines),
            chars_per_token=min(scales),
            client=client_conditions() | self.client,
            skipped=prompts.skipped,
        )

    async def _warm(self, arm: Arm, prompts: Prompts) -> None:
        kept = prompts.by_class.get("prose") or next(iter(prompts.by_class.values()), ())
        if not kept:
            return
        long = kept[0].model_copy(update={"max_tokens": min(_WARM_UP_TOKENS, kept[0].max_tokens)})

        async def ask(_: int) -> Answer:
            answer = await self._asker.ask(arm.name, long, self._asker.salt(), temperature=0.0)
            self._took[("", 1)] = answer.end_s - answer.sent_s
            return answer

        self.writer.write(
            await warm_up(
                ask,
                arm=arm.name,
                at_s=self.clock.now(),
                least=self.plan.warmup_min,
                most=self.plan.warmup_max,
                change=self.plan.warmup_change,
                say=lambda text: self._tell(text, ()),
                over=lambda: self._asker.left_s() <= 0,
            )
        )

    def _long_blocks(self, prompts: Prompts, first: int) -> list[BlockPlan]:
        made: list[BlockPlan] = []
        for tokens, prompt in prompts.long:
            for arm in self.arms:
                made.append(
                    BlockPlan(
                        index=first + len(made),
                        round=0,
                        arm=arm.name,
                        content_class="long-context",
                        concurrency=1,
                        cache="cold",
                        prompts=(prompt.key,),
                        prompt_tokens=tokens,
                    )
                )
        return made

    async def _block(self, block: BlockPlan, texts: dict[str, Prompt]) -> bool:
        """Run one block and write it; False: the budget was over before its last request."""
        api = self._asker.apis[block.arm]
        began, began_s = datetime.now(UTC), self.clock.now()
        salts = [self._asker.salt() for _ in block.prompts]
        samples: list[Sample] = []
        problem: str | None = None
        before: EngineCounters | None = None
        after: EngineCounters | None = None
        rate: float | None = None
        cpu_s = self.clock.cpu()
        load_s = 0.0
        try:
            await self._idle(api)
            if block.cache == "warm":
                await self._asker.prime(block, texts, salts)
                await self._idle(api)
            before = await self._counters(api)
            cpu_s, load_s = self.clock.cpu(), self.clock.now()
            if block.load == "open":
                rate = self._open_rate()
                samples = await self._asker.arrivals(block, texts, salts, rate)
            else:
                samples = await self._asker.streams(block, texts, salts)
            load_s, cpu_s = self.clock.now() - load_s, self.clock.cpu() - cpu_s
            after = await self._settled(api, before, samples)
        except RefusedError as error:
            problem = error.message
        most = max((texts[key].max_tokens for key in block.prompts), default=1)
        judged = judge_block(block, samples, before, after, max_tokens=most)
        wall_s = max((s.end_s for s in samples), default=0.0) - min((s.sent_s for s in samples), default=0.0)
        if samples:
            self._took[block.content_class, block.concurrency] = wall_s / len(samples)
            whole = sum(sample.failure is None for sample in samples)
            if judged.state != "void" and block.load == "closed" and wall_s > 0 and whole:
                self._rates.append((block.concurrency, whole / wall_s))
        self.writer.write(
            Block(
                index=block.index,
                round=block.round,
                arm=block.arm,
                content_class=block.content_class,
                concurrency=block.concurrency,
                cache=block.cache,
                load=block.load,
                prompt_tokens=block.prompt_tokens,
                began=began,
                began_s=began_s,
                ended_s=self.clock.now(),
                wall_s=wall_s,
                requests=len(samples),
                before=before,
                after=after,
                state="void" if problem or not samples else judged.state,
                reasons=(problem,) if problem else judged.reasons if samples else ("no request was sent",),
                identity=judged.identity,
                speculation=judged.speculation,
                predictable=judged.predictable,
                server_ttft_s=judged.server_ttft_s,
                arrival_rate=rate,
                cpu_share=cpu_s / load_s if samples and load_s > 0 else None,
            )
        )
        return problem is not None or len(samples) == len(block.prompts)

    async def _restarted(self, arm: str) -> bool:
        """Whether the arm's server is another process than at its last warm-up; unknown is no."""
        seen = await self._counters(self._asker.apis[arm])
        start = None if seen is None else seen.process_start
        was = self._boots.get(arm)
        if start is not None:
            self._boots[arm] = start
        return start is not None and was is not None and start != was

    async def _idle(self, api: Api) -> None:
        await wait_idle(
            api, idle_s=_BETWEEN_IDLE_S, wait_s=self.plan.idle_wait_s, now=self.clock.now, sleep=self.clock.sleep
        )

    async def _counters(self, api: Api) -> EngineCounters | None:
        seen = await api.scrape()
        return None if all(value is None for name, value in seen if name != "at_s") else seen

    async def _settled(
        self, api: Api, before: EngineCounters | None, samples: Sequence[Sample]
    ) -> EngineCounters | None:
        """The counters once they have taken in the last answer: they come a moment after it."""
        whole = sum(sample.failure is None for sample in samples)
        until = self.clock.now() + _SETTLE_S
        while True:
            seen = await self._counters(api)
            finished = finished_between(before, seen)
            busy = None if seen is None else (seen.running or 0) + (seen.waiting or 0)
            if seen is None or self.clock.now() >= until or (not busy and (finished is None or finished >= whole)):
                return seen
            await self.clock.sleep(_SETTLE_POLL_S)

    def _open_rate(self) -> float:
        """Arrivals per second: as the plan says, or its share of what the widest closed blocks completed."""
        if self.plan.open_rate is not None:
            return self.plan.open_rate
        if not self._rates:
            raise RefusedError("no closed block could be used, so the server's rate is not known")
        widest = max(streams for streams, _ in self._rates)
        rates = [rate for streams, rate in self._rates if streams == widest]
        return self.plan.open_share * sum(rates) / len(rates)

    def _estimate(self, block: BlockPlan) -> float:
        """About how long a block takes, in seconds, by what was seen; 0 while nothing was."""
        if block.prompt_tokens is not None:
            return block.prompt_tokens / 1000.0
        each = self._took.get((block.content_class, block.concurrency))
        if each is None:
            each = self._took.get(("", 1), 0.0) / max(1.0, block.concurrency / 2)
        return each * len(block.prompts)

    def _tell(self, text: str, ahead: Sequence[BlockPlan]) -> None:
        left = min(self._asker.left_s(), sum(map(self._estimate, ahead))) if ahead else None
        self.say(Progress(text, self._done, self._total, self.clock.now(), None if left is None else max(0.0, left)))

    def _arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def _name(block: BlockPlan) -> str:
    streams = "open loop" if block.load == "open" else f"{block.concurrency} stream{'s' * (block.concurrency > 1)}"
    long = f" of {block.prompt_tokens} tokens" if block.prompt_tokens else ""
    arm = f"{block.arm}: " if block.arm else ""
    return f"{arm}{block.content_class}{long}, {streams}, {block.cache}"
