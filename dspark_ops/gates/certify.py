"""Certify: what a published claim rests on. One boot of the engine a call; two boots make the certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dspark_ops.errors import ConfigError
from dspark_ops.gates.baseline import judge_likelihood
from dspark_ops.gates.case import CaseKind, Reason, Verdict
from dspark_ops.gates.outcome import Judged, RunResult
from dspark_ops.gates.plan import SOAK_KINDS, TOOL_BATTERY, GatePlan, burst_kinds, case_rng
from dspark_ops.gates.record import FILE, read_run
from dspark_ops.gates.runner import Conduct, OutOfTimeError, VoidRunError
from dspark_ops.gates.sequential import bound
from dspark_ops.gates.verdict import failed, passed, void
from dspark_ops.openai_api.model import Answer, EngineCounters, Record

# One bad answer decides. A server that refuses at once would fill the disk until the soak is over.
_SOAK_BAD = 60
# What two boots must have in common, for one bound over both.
_ALIKE = {"prompt_tokens", "width", "bursts", "certify_bursts", "tool_cases", "soak_s", "long_probes"}
_PARTS = ("bursts", "tools", "soak", "long")


class Boot(Record):
    """One boot of the engine in a run's folder: when it started, its bursts' bad requests, and what else was done."""

    process_start: float
    bad_of_burst: tuple[int, ...]
    bad: int
    complete: bool


def boots_of(folder: Path, model: str, plan: GatePlan | None = None) -> tuple[Boot, ...]:
    """The boots that earlier calls certified in this folder, of this model alone. A call that came to no end with bad
    answers in bursts that were proven is one that is not complete: asking again does not undo them.

    Raises:
        ConfigError: a boot was asked otherwise than `plan` does, so that the two are no certificate together.
    """
    if not (folder / FILE).is_file():
        return ()
    header: dict[str, Any] = {}
    found: list[Boot] = []
    bursts: list[dict[str, Any]] = []
    for entry in read_run(folder):
        if entry["record"] == "header":
            found += _unfinished(bursts)
            header, bursts = entry, []
        elif header.get("model") != model:
            continue
        elif entry["record"] == "burst" and entry.get("counted", True) and not entry["proof"]["doubts"]:
            bursts.append({"part": entry["part"], "bad": entry["bad"]})
        elif entry["record"] == "boot":
            _asked_alike(folder, header, plan)
            found.append(Boot.model_validate({key: entry[key] for key in Boot.model_fields}))
            bursts = []
    return (*found, *_unfinished(bursts))


def _unfinished(bursts: Sequence[dict[str, Any]]) -> list[Boot]:
    bad = sum(burst["bad"] for burst in bursts)
    of_bursts = tuple(burst["bad"] for burst in bursts if burst["part"] == "bursts")
    return [Boot(process_start=0.0, bad_of_burst=of_bursts, bad=bad, complete=False)] if bad else []


def _asked_alike(folder: Path, header: dict[str, Any], plan: GatePlan | None) -> None:
    was = header.get("plan")
    if plan is None or not isinstance(was, dict):
        return
    for name, value in plan.model_dump(mode="json", include=_ALIKE).items():
        if was.get(name) != value:
            raise ConfigError(
                f"{folder} holds a boot with {name} {was.get(name)}, and this call has {value}",
                hint="ask both boots the same, or name another --out",
            )


async def certify(run: Conduct, earlier: Sequence[Boot], *, window: int | None) -> RunResult:
    """This boot's bursts, tool calls in both modes, soak and long prompts, then the verdict over all boots.

    window: the model's longest prompt and answer, in tokens; None: not said, then no long prompt is asked.
    """
    try:
        first = await run.first_look()
        if first.process_start is not None and any(boot.process_start == first.process_start for boot in earlier):
            why = "this boot of the engine is in the folder already"
            return void(run, (), why=f"{why}; restart the pair, then run again with the same --out")
        if run.plan.rescore:
            await judge_likelihood(run)
        await _bursts(run)
        await _tools(run)
        await soak(run)
        await _long(run, window)
    except VoidRunError as reason:
        return void(run, reason.doubts)
    except OutOfTimeError:
        done = [part.name for part in run.parts if part.done]
        left = [name for name in _PARTS if name not in done]
        return void(run, (), why=f"the time was up; not done: {', '.join(left)}")
    return _over_all_boots(run, earlier, first)


def _over_all_boots(run: Conduct, earlier: Sequence[Boot], first: EngineCounters) -> RunResult:
    boot = Boot(
        process_start=first.process_start or 0.0,
        bad_of_burst=tuple(b.bad for b in run.bursts if b.part == "bursts" and b.counted),
        bad=sum(part.bad for part in run.parts),
        complete=all(part.done for part in run.parts),
    )
    run.folder.write("boot", **boot.model_dump())
    boots = [kept for kept in earlier if kept.complete] + [boot]
    counted = bound([bad for kept in (*earlier, boot) for bad in kept.bad_of_burst], run.plan.width)
    before = sum(kept.bad for kept in earlier)
    bad = before + boot.bad
    others = [part for part in run.parts if part.name != "bursts" and part.asked]
    told = "; ".join(f"{part.title}: {part.bad} of {part.asked} bad" for part in others)
    words = f"{counted.words}; {len(boots)} boot{'s' if len(boots) > 1 else ''}; {told}"
    if before:
        words = f"{words}; {before} bad in earlier calls of this folder"
    if bad:
        return failed(run, words, bound=counted)
    if len(boots) < run.plan.boots:
        why = f"{len(boots)} of {run.plan.boots} boots are certified so far, all good: {counted.words}"
        return void(run, (), why=f"{why}; restart the pair, then run again with the same --out", bound=counted)
    return passed(run, words, bound=counted)


async def _bursts(run: Conduct) -> None:
    began, total = run.clock(), run.plan.bursts or run.plan.certify_bursts
    for index in range(total):
        run.say(index, total, "cold bursts")
        await run.burst("bursts", index, burst_kinds(index, run.plan.width, texts_only=run.plan.texts_only))
    run.part("bursts", f"bursts of {run.plan.width} cold requests", began)


async def _tools(run: Conduct) -> None:
    """Each tool case streamed and whole, cold; what both modes say must be of one structure."""
    from dspark_ops.gates.tool_rules import compare_structure

    began, total = run.clock(), run.plan.tool_cases
    for index in range(total):
        run.in_time()
        kind = TOOL_BATTERY[index % len(TOOL_BATTERY)]
        run.say(index, total, f"tool calls, streamed and whole: {kind}")

        async def both(index: int = index, kind: CaseKind = kind) -> tuple[list[Answer], list[Judged]]:
            name = f"tools/{index}/0"
            cases = {
                "streamed": run.case(name, kind, stream=True),
                "whole": run.case(name, kind, stream=False),
            }
            answers = {
                mode: await run.client.chat(case.request, timeout_s=run.plan.timeout_s) for mode, case in cases.items()
            }
            judged = [run.judged(f"tools/{index}/{mode}", cases[mode], answers[mode]) for mode in cases]
            if kind != "tool-truncated" and not any(one.bad for one in judged):
                differs: tuple[Reason, ...] = compare_structure(answers["streamed"], answers["whole"])
                if differs:
                    for mode in cases:
                        verdict = Verdict(outcome="fail", reasons=differs)
                        run.keep_exchange(f"tools/{index}/{mode}", cases[mode], answers[mode], verdict)
                    judged[1] = judged[1].model_copy(update={"outcome": "fail", "reasons": differs})
            return list(answers.values()), judged

        await run.watched("tools", index, 1, both)
    run.part("tools", "tool calls, streamed and whole", began)


async def soak(run: Conduct) -> None:
    """A mix of everything, cold and warm, as many at a time as a burst has, for as long as the plan says."""
    began, length = run.clock(), run.plan.soak_s
    if length <= 0:
        run.part("soak", "soak", began, why="not asked for")
        return

    async def mix() -> tuple[list[Answer], list[Judged]]:
        answers: list[Answer] = []
        judged: list[Judged] = []

        def bad() -> int:
            return sum(one.bad for one in judged)

        async def worker(number: int) -> None:
            turn = 0
            while run.clock() - began < length and not run.time_is_up and bad() < _SOAK_BAD:
                name = f"soak/{number}/{turn}"
                rng = case_rng(run.plan.seed, f"{name}/kind")
                case = run.case(name, rng.choice(SOAK_KINDS), stream=rng.random() < 0.8)
                # Every third question is asked again, with a warm prefix.
                for again in range(2 if turn % 3 == 0 else 1):
                    answer = await run.client.chat(case.request, timeout_s=run.plan.timeout_s)
                    answers.append(answer)
                    judged.append(run.judged(f"{name}/{again}", case, answer))
                turn += 1
                run.say(int(run.clock() - began), int(length), f"soak: {len(judged)} answers")

        await asyncio.gather(*(worker(number) for number in range(run.plan.width)))
        return answers, judged

    soaked = await run.watched("soak", 0, run.plan.width, mix)
    if soaked.bad >= _SOAK_BAD:
        run.part("soak", "soak", began, done=False, why=f"it ended early, after {soaked.bad} bad answers")
        return
    if run.clock() - began < length:
        run.part("soak", "soak", began, done=False, why="the time was up")
        raise OutOfTimeError
    run.part("soak", "soak", began)


async def _long(run: Conduct, window: int | None) -> None:
    """A needle in long cold prompts, as long as the window allows."""
    began = run.clock()
    room = 0 if window is None else window - 1024
    lengths = [tokens for tokens in run.plan.long_probes if tokens <= room]
    left_out = [str(tokens) for tokens in run.plan.long_probes if tokens not in lengths]
    for index, tokens in enumerate(lengths):
        run.in_time()
        run.say(index, len(lengths), f"a prompt of {tokens} tokens")
        name = f"long/{index}/0"
        # Our own measure of tokens is an estimate: a little less than the window stays a prompt of that length.
        case = run.case(name, "needle", prompt_tokens=int(tokens * 0.95))
        result = await run.asked("long", index, [name], [case], cold=True)
        run.keep(result)
        if not result.proof.proven:
            raise VoidRunError(result.proof.doubts)
    said = "the server does not say its window" if window is None else f"the window is {window} tokens"
    why = f"not asked: {', '.join(left_out)} tokens ({said})" if left_out else None
    run.part("long", "long prompts", began, why=why)
