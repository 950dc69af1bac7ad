"""Smoke and release: how much is asked, and when it is enough."""

from __future__ import annotations

from collections.abc import Sequence

from dspark_ops.gates.baseline import judge_likelihood
from dspark_ops.gates.case import CaseKind
from dspark_ops.gates.outcome import RunResult
from dspark_ops.gates.plan import SMOKE_ORACLES, SMOKE_PROMPTS, SMOKE_TOOLS, SMOKE_WHOLE, burst_kinds
from dspark_ops.gates.runner import Conduct, OutOfTimeError, VoidRunError
from dspark_ops.gates.sequential import RELEASE, Decision, SequentialPlan, bound, percent
from dspark_ops.gates.verdict import failed, passed, void

_SMOKE: tuple[tuple[str, str, tuple[CaseKind, ...]], ...] = (
    ("prompts", "cold agent prompts, one after the other", SMOKE_PROMPTS),
    ("tools", "tool calls, streamed and whole", SMOKE_TOOLS),
    ("oracles", "questions of known answer", SMOKE_ORACLES),
)


async def smoke(run: Conduct) -> RunResult:
    """Ten cold requests one after the other; none may be bad."""
    total = sum(len(kinds) for _, _, kinds in _SMOKE)
    done = 0
    try:
        await run.first_look()
        for name, title, kinds in _SMOKE:
            began = run.clock()
            for index, kind in enumerate(kinds):
                run.say(done, total, f"{title}: {kind}")
                await run.burst(name, index, (kind,), stream=kind != SMOKE_WHOLE)
                done += 1
            run.part(name, title, began)
    except VoidRunError as reason:
        return void(run, reason.doubts)
    except OutOfTimeError:
        return void(run, (), why=f"the time was up after {done} of {total} requests")
    run.say(done, total, "done")
    counted = bound([burst.bad for burst in run.bursts if burst.counted], 1)
    if counted.bad_bursts:
        return failed(run, f"{counted.bad_requests} of {total} cold requests were bad", bound=counted)
    return passed(run, counted.words.replace("requests were bad", "cold requests were bad"), bound=counted)


async def release(run: Conduct, plan: SequentialPlan = RELEASE) -> RunResult:
    """Bursts until the sequential test decides, or a fixed number of which none may be bad."""
    began = run.clock()
    title = f"bursts of {run.plan.width} cold requests"
    try:
        await run.first_look()
        if run.plan.rescore:
            await judge_likelihood(run)
        decision: Decision = "go-on"
        index = 0
        while decision == "go-on":
            counts = _counts(run)
            left = _left(run, plan, counts)
            run.say(len(counts), len(counts) + left, _so_far(counts))
            await run.burst("bursts", index, burst_kinds(index, run.plan.width, texts_only=run.plan.texts_only))
            index += 1
            decision = _decide(run, plan, _counts(run))
    except VoidRunError as reason:
        return void(run, reason.doubts)
    except OutOfTimeError:
        run.part("bursts", title, began, done=False, why="the time was up")
        return void(run, (), why=f"the time was up after {len(_counts(run))} bursts, before the test decided")
    run.part("bursts", title, began)
    counts = _counts(run)
    run.say(len(counts), len(counts), "done")
    counted = bound(counts, run.plan.width)
    if decision == "accept":
        return passed(run, counted.words, bound=counted)
    if decision == "undecided":
        rates = f"{percent(plan.healthy)} nor {percent(plan.broken)}"
        why = f"after {len(counts)} bursts it is neither {rates}: {counted.words}"
        return void(run, (), why=why, bound=counted)
    return failed(run, counted.words, bound=counted)


def _decide(run: Conduct, plan: SequentialPlan, counts: Sequence[int]) -> Decision:
    bad = sum(count > 0 for count in counts)
    if run.plan.bursts is None:
        return plan.decide(bad, len(counts) - bad)
    if bad:
        return "reject"
    return "accept" if len(counts) >= run.plan.bursts else "go-on"


def _left(run: Conduct, plan: SequentialPlan, counts: Sequence[int]) -> int:
    bad = sum(count > 0 for count in counts)
    if run.plan.bursts is not None:
        return run.plan.bursts - len(counts)
    return plan.still_to_go(bad, len(counts) - bad)


def _counts(run: Conduct) -> list[int]:
    return [burst.bad for burst in run.bursts if burst.part == "bursts" and burst.counted]


def _so_far(counts: Sequence[int]) -> str:
    return f"{sum(count > 0 for count in counts)} of {len(counts)} bursts bad so far"
