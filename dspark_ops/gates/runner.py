"""Runs bursts, judges them, writes them down and keeps the evidence; the levels are made of this."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from dspark_ops.gates.burst import Client, run_burst, scrape, watch
from dspark_ops.gates.case import Case, CaseKind, Reason, Verdict
from dspark_ops.gates.coldness import Doubt, Proof, Watched, prove
from dspark_ops.gates.likelihood import Baseline
from dspark_ops.gates.outcome import BurstResult, Judged, PartResult
from dspark_ops.gates.plan import Ask, GatePlan, case_rng
from dspark_ops.gates.record import RunFolder
from dspark_ops.openai_api.model import Answer, EngineCounters

Judge = Callable[[Case, Answer, Baseline | None], Verdict]
FollowUp = Callable[[Case, Answer], Case | None]
# Without the server's own count of tokens a prompt is made by an estimate; below this share it is another test.
_LEAST_SHARE = 0.4


class VoidRunError(Exception):
    """The run cannot be a verdict any more. doubts: why."""

    def __init__(self, doubts: Sequence[Doubt]) -> None:
        super().__init__("; ".join(doubt.observed for doubt in doubts))
        self.doubts = tuple(doubts)


class OutOfTimeError(Exception):
    """The budget is used up before the next step."""


@dataclass
class Conduct:
    """One run under way. salt: this run's own, never used before. say: done, total and words, for the progress bar."""

    client: Client
    plan: GatePlan
    ask: Ask
    judge: Judge
    follow_up: FollowUp
    folder: RunFolder
    salt: str
    say: Callable[[int, int, str], None] = lambda _done, _total, _text: None
    clock: Callable[[], float] = time.monotonic
    bursts: list[BurstResult] = field(default_factory=list)
    parts: list[PartResult] = field(default_factory=list)
    process_start: float | None = None
    baseline: Baseline | None = None
    began: float = 0.0
    repeats: int = 0
    _asked: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock()

    def in_time(self) -> None:
        """Raises OutOfTimeError when the budget is used up."""
        if self.time_is_up:
            raise OutOfTimeError

    @property
    def time_is_up(self) -> bool:
        return self.plan.budget_s is not None and self.clock() - self.began >= self.plan.budget_s

    def case(self, name: str, kind: CaseKind, *, stream: bool = True, prompt_tokens: int | None = None) -> Case:
        """A question by name, with a salt that no request ever had."""
        self._asked += 1
        rng = case_rng(self.plan.seed, name)
        return self.ask(kind, rng, f"{self.salt}-{self._asked}", stream, prompt_tokens)

    async def burst(self, part: str, index: int, kinds: Sequence[CaseKind], *, stream: bool = True) -> BurstResult:
        """Ask one cold burst and judge it, asking again where only our own clock was late.

        Raises:
            VoidRunError: it is not shown to have been cold, concurrent and alone, or the server cannot be reached.
        """
        while True:
            self.in_time()
            names = [f"{part}/{index}/{slot}" for slot in range(len(kinds))]
            cases = [self.case(name, kind, stream=stream) for name, kind in zip(names, kinds, strict=True)]
            result = await self.asked(part, index, names, cases, cold=True)
            late = [doubt for doubt in result.proof.doubts if doubt.client]
            if len(late) < len(result.proof.doubts) or (late and self.repeats >= self.plan.repeats):
                self.keep(result)
                raise VoidRunError(result.proof.doubts)
            if late and not result.bad:
                self.repeats += 1
                self.keep(result.model_copy(update={"counted": False}))
                continue
            # A bad answer counts even where the burst was not quite at once: it is bad all the same.
            self.keep(result)
            return result

    async def asked(
        self, part: str, index: int, names: Sequence[str], cases: Sequence[Case], *, cold: bool
    ) -> BurstResult:
        """Send these cases at once, judge the answers, and ask what is warm by intent when the evidence is complete."""
        watched = await run_burst(self.client, [case.request for case in cases], timeout_s=self.plan.timeout_s)
        # Warm requests are through too soon to be seen together, and no claim rests on that.
        proof = self._prove(watched, width=len(cases), cold=cold, together=cold)
        triples = list(zip(names, cases, watched.answers, strict=False))
        if proof.proven and self.baseline is not None:
            triples = await self._scored(triples)
        judged = [self.judged(name, case, answer) for name, case, answer in triples]
        later = []
        if proof.proven:
            for name, case, answer in triples:
                following = self.follow_up(case, answer)
                if following is not None:
                    reply = await self.client.chat(following.request, timeout_s=self.plan.timeout_s)
                    later.append(self.judged(f"{name}+2", following, reply))
        # What follows may be what has NaN in it.
        last = await scrape(self.client) if later else None
        return BurstResult(
            part=part,
            index=index,
            judged=tuple(judged),
            later=tuple(later),
            engine=_engine_reasons(watched, last),
            proof=proof,
        )

    async def watched(
        self, part: str, index: int, width: int, send: Callable[[], Awaitable[tuple[list[Answer], list[Judged]]]]
    ) -> BurstResult:
        """Requests that follow each other, at most `width` at a time, as one entry; they may be warm.

        Raises:
            VoidRunError: they were not alone or met more than one engine.
        """
        judged: list[Judged] = []

        async def answers() -> list[Answer]:
            given, found = await send()
            judged.extend(found)
            return given

        watched = await watch(self.client, answers, width=width)
        proof = self._prove(watched, width=width, cold=False, together=False)
        result = BurstResult(part=part, index=index, judged=tuple(judged), engine=_engine_reasons(watched), proof=proof)
        self.keep(result)
        if not proof.proven:
            raise VoidRunError(proof.doubts)
        return result

    def judged(self, name: str, case: Case, answer: Answer) -> Judged:
        """Judge one answer; what is not plainly right is kept whole, request and answer."""
        verdict = self.judge(case, answer, self.baseline)
        if verdict.outcome != "pass":
            self.keep_exchange(name, case, answer, verdict)
        return Judged(
            name=name,
            kind=case.kind,
            outcome=verdict.outcome,
            reasons=verdict.reasons,
            judged=verdict.judged,
            prompt_tokens=None if answer.usage is None else answer.usage.prompt_tokens,
            n=answer.n,
            ttft_s=None if answer.ttft_s is None else round(answer.ttft_s, 3),
            warm=case.warm,
        )

    def keep_exchange(self, name: str, case: Case, answer: Answer, verdict: Verdict) -> None:
        """Write down a request with its answer and what is wrong with it."""
        self.folder.write(
            "exchange",
            name=name,
            kind=case.kind,
            outcome=verdict.outcome,
            reasons=[reason.model_dump() for reason in verdict.reasons],
            expected=case.expected.model_dump(mode="json"),
            request=case.request.body(),
            answer=answer.model_dump(mode="json", exclude={"chunks", "prompt_logprobs"}),
        )

    def part(self, name: str, title: str, began: float, *, done: bool = True, why: str | None = None) -> PartResult:
        """Close a part: what was counted of it so far."""
        of_it = [burst for burst in self.bursts if burst.part == name and burst.counted]
        result = PartResult(
            name=name,
            title=title,
            asked=sum(len(burst.judged) for burst in of_it),
            bad=sum(burst.bad for burst in of_it),
            reviews=sum(burst.reviews for burst in of_it),
            done=done,
            why=why,
            elapsed_s=round(self.clock() - began, 1),
        )
        self.parts.append(result)
        self.folder.write("part", **result.model_dump(mode="json"))
        return result

    def all_judged(self) -> list[Judged]:
        """Everything that was judged, repeats aside."""
        return [judged for burst in self.bursts if burst.counted for judged in (*burst.judged, *burst.later)]

    async def first_look(self) -> EngineCounters:
        """The engine before anything is asked.

        Raises:
            VoidRunError: it shows no counters.
        """
        counters = await scrape(self.client)
        if counters is None:
            seen = "/metrics gives none of vLLM's counters: coldness and concurrency cannot be shown"
            raise VoidRunError([Doubt(code="no-metrics", observed=seen, expected="vLLM's counters")])
        self.process_start = counters.process_start
        return counters

    async def _scored(self, triples: list[tuple[str, Case, Answer]]) -> list[tuple[str, Case, Answer]]:
        """The first answer of a kind with a baseline read back as a prompt, one a burst: each costs a whole prefill."""
        for place, (name, case, answer) in enumerate(triples):
            if case.kind in (self.baseline or {}) and answer.failure is None and answer.content:
                scores = await self.client.prompt_logprobs(case.request, answer.content, timeout_s=self.plan.timeout_s)
                scored = (name, case, answer.model_copy(update={"prompt_logprobs": scores}))
                return [*triples[:place], scored, *triples[place + 1 :]]
        return triples

    def _prove(self, watched: Watched, *, width: int, cold: bool, together: bool = True) -> Proof:
        proof = prove(watched, width=width, cold=cold, together=together)
        doubts = [*_unreachable(watched.answers), *proof.doubts]
        if cold:
            doubts += _short(watched.answers, self.plan.prompt_tokens)
        start = None if watched.before is None else watched.before.process_start
        if start is not None and self.process_start not in (None, start):
            seen = "the engine was started anew since the run began"
            doubts.append(Doubt(code="restarted", observed=seen, expected="one process all through"))
        return proof.model_copy(update={"doubts": tuple(doubts)})

    def keep(self, result: BurstResult) -> None:
        self.bursts.append(result)
        self.folder.write("burst", **result.model_dump(mode="json", exclude_none=True), bad=result.bad)


def _unreachable(answers: Sequence[Answer]) -> list[Doubt]:
    failures = [answer.failure for answer in answers if answer.failure is not None]
    if failures and len(failures) == len(answers) and all(failure.kind == "connect" for failure in failures):
        seen = f"no request reached the server: {failures[0].message}"
        return [Doubt(code="unreachable", observed=seen, expected="a server that answers")]
    return []


def _short(answers: Sequence[Answer], wanted: int) -> list[Doubt]:
    """Prompts far below what the gate says it asks with: the faults that it looks for come with long ones."""
    told = [answer.usage.prompt_tokens for answer in answers if answer.usage is not None]
    if not told or sum(told) >= _LEAST_SHARE * wanted * len(told):
        return []
    seen = f"prompts of {sum(told) / len(told):.0f} tokens by the server's count"
    return [Doubt(code="short-prompts", observed=seen, expected=f"about {wanted}, at least {_LEAST_SHARE:.0%} of it")]


def _engine_reasons(watched: Watched, last: EngineCounters | None = None) -> tuple[Reason, ...]:
    """What the engine itself counts as corrupt; nothing where it does not count (it is an option of its own).

    last: a scrape after what followed the burst.
    """
    end = last or watched.after
    if watched.before is None or end is None:
        return ()
    before, after = watched.before.corrupted, end.corrupted
    if before is None or after is None or after <= before:
        return ()
    seen = f"the engine counted {after - before:g} requests with NaN in their logits"
    return (Reason(code="corrupted", observed=seen, expected="none"),)
