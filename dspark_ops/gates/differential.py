"""Two ways of serving, the same questions: are they equally good? Paired, and said with an exact test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from dspark_ops.errors import ConfigError
from dspark_ops.gates.case import CaseKind
from dspark_ops.gates.coldness import Doubt
from dspark_ops.gates.outcome import BurstResult, RunResult
from dspark_ops.gates.plan import DIFF_KINDS, GatePlan, burst_kinds
from dspark_ops.gates.record import read_run
from dspark_ops.gates.runner import Conduct, OutOfTimeError, VoidRunError
from dspark_ops.gates.sequential import fisher, mcnemar, percent
from dspark_ops.gates.verdict import failed, passed, void
from dspark_ops.openai_api.model import Record

#: Below this the two are said to differ.
SIGNIFICANT = 0.01
_PART = "diff"


class Arm(Record):
    """One way of serving: what each question came to. bad_of: by the question's name, True where it was bad."""

    title: str
    bad_of: dict[str, bool] = Field(default_factory=dict)

    @property
    def bad(self) -> int:
        return sum(self.bad_of.values())


class Difference(Record):
    """Two arms over the same questions. p: of McNemar's exact test over the pairs; p_fisher: as if they were not
    paired. seen_from: the least number of pairs that differ one way only which the test would call a difference.
    """

    first: str
    second: str
    pairs: int
    both_bad: int
    only_first: int
    only_second: int
    p: float
    p_fisher: float
    seen_from: int

    @property
    def differ(self) -> bool:
        return self.p < SIGNIFICANT

    @property
    def words(self) -> str:
        bad_first, bad_second = self.both_bad + self.only_first, self.both_bad + self.only_second
        counts = (
            f"{self.first}: {bad_first} of {self.pairs} bad; {self.second}: {bad_second} of {self.pairs} bad; "
            f"{self.only_first} in the first alone, {self.only_second} in the second alone (McNemar p = {self.p:.2g}, "
            f"Fisher p = {self.p_fisher:.2g})"
        )
        if self.differ:
            return f"they differ: {counts}"
        least = percent(self.seen_from / self.pairs) if self.pairs else "nothing"
        return f"no difference is shown: {counts}; of {self.pairs} pairs it takes {self.seen_from} ({least}) to see one"


def difference(first: Arm, second: Arm) -> Difference:
    """Compare two arms over the questions that both were asked."""
    names = sorted(first.bad_of.keys() & second.bad_of.keys())
    pairs = [(first.bad_of[name], second.bad_of[name]) for name in names]
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    bad_first, bad_second = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    return Difference(
        first=first.title,
        second=second.title,
        pairs=len(pairs),
        both_bad=sum(a and b for a, b in pairs),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
        p_fisher=fisher(bad_first, len(pairs), bad_second, len(pairs)),
        # 2 * 0.5^n < 0.01
        seen_from=math.floor(math.log2(2 / SIGNIFICANT)) + 1,
    )


def earlier_arm(folder: Path) -> tuple[Arm, Mapping[str, object]]:
    """The first arm out of the folder of an earlier `gate diff`, with that run's header.

    Raises:
        ConfigError: it holds none.
    """
    header: dict[str, object] = {}
    bad_of: dict[str, bool] = {}
    for entry in read_run(folder):
        if entry["record"] == "header":
            # Another run in the same folder asked other questions under the same names.
            header, bad_of = entry, {}
        elif entry["record"] == "burst" and entry.get("part") == f"{_PART}-1" and _counts(entry):
            burst = BurstResult.model_validate({key: entry[key] for key in BurstResult.model_fields if key in entry})
            bad_of.update({name.split("/", 1)[1]: bad for name, bad in _bad_of(burst).items()})
    if not bad_of or header.get("level") != "diff":
        raise ConfigError(f"{folder} holds no first half of a `gate diff`", hint="name the folder of such a run")
    return Arm(title=f"earlier run ({header.get('target', '?')})", bad_of=bad_of), header


def _counts(entry: Mapping[str, Any]) -> bool:
    """Whether a burst of an earlier run may be compared: proven, or bad and no more than late by our own clock."""
    doubts = entry["proof"]["doubts"]
    late = all(doubt.get("client", False) for doubt in doubts)
    return bool(entry.get("counted", True) and (not doubts or (late and entry.get("bad"))))


def paired_plan(plan: GatePlan, header: Mapping[str, object]) -> GatePlan:
    """The same questions as an earlier run: its seed, its length, its number."""
    asked = header.get("plan")
    if not isinstance(asked, dict):
        raise ConfigError("the earlier run does not say what it asked")
    kept = {key: asked[key] for key in ("seed", "prompt_tokens", "pairs", "width")}
    return GatePlan.model_validate(plan.model_dump() | kept)


async def diff_endpoints(
    first: Conduct, second: Conduct | None, earlier: Arm | None, titles: Sequence[str]
) -> RunResult:
    """Two servers, or one server and an earlier run; without either, one arm alone to be compared later."""
    arms: list[Arm] = [] if earlier is None else [earlier]
    runs = [first] if second is None else [first, second]
    try:
        for number, run in enumerate(runs):
            await run.first_look()
            arms.append(await _arm(run, f"{_PART}-{number + 1}", titles[number]))
    except VoidRunError as reason:
        return void(first, reason.doubts)
    except OutOfTimeError:
        return void(first, (), why="the time was up before all pairs were asked")
    if len(arms) < 2:
        why = f"one arm is kept: {arms[0].bad} of {len(arms[0].bad_of)} bad"
        return void(first, (), why=f"{why}; serve the other way and run again with --against-run {first.folder.path}")
    return _judge(first, arms[0], arms[1])


async def diff_warm(run: Conduct) -> RunResult:
    """Each question twice with one salt: cold, then warm. Bursts are proven cold; their repeats must hit the cache."""
    cold, warm = Arm(title="cold"), Arm(title="warm")
    began = run.clock()
    try:
        await run.first_look()
        for index in range(_bursts(run.plan)):
            kinds = _kinds(index, run.plan)
            names = [f"{_PART}/{index}/{slot}" for slot in range(len(kinds))]
            cases = [run.case(name, kind) for name, kind in zip(names, kinds, strict=True)]
            run.say(index, _bursts(run.plan), "cold and warm")
            run.in_time()
            for arm, is_cold in ((cold, True), (warm, False)):
                result = await run.asked(f"{_PART}-{arm.title}", index, names, cases, cold=is_cold)
                run.keep(result)
                doubts = [*result.proof.doubts, *([] if is_cold else _not_warm(result))]
                if doubts:
                    raise VoidRunError(doubts)
                arm.bad_of.update(_bad_of(result))
    except VoidRunError as reason:
        return void(run, reason.doubts)
    except OutOfTimeError:
        return void(run, (), why="the time was up before all pairs were asked")
    for arm in (cold, warm):
        run.part(f"{_PART}-{arm.title}", f"{arm.title} requests", began)
    return _judge(run, cold, warm)


async def _arm(run: Conduct, part: str, title: str) -> Arm:
    began = run.clock()
    arm = Arm(title=title)
    for index in range(_bursts(run.plan)):
        run.say(index, _bursts(run.plan), title)
        result = await run.burst(part, index, _kinds(index, run.plan))
        arm.bad_of.update({name.split("/", 1)[1]: bad for name, bad in _bad_of(result).items()})
    run.part(part, title, began)
    return arm


def _judge(run: Conduct, first: Arm, second: Arm) -> RunResult:
    found = difference(first, second)
    run.folder.write("difference", **found.model_dump())
    if found.pairs == 0:
        return void(run, (), why="the two have no question in common")
    document = found.model_dump(mode="json")
    if found.differ:
        return failed(run, found.words, difference=document)
    return passed(run, found.words, difference=document)


def _bad_of(result: BurstResult) -> dict[str, bool]:
    later = {judged.name.removesuffix("+2") for judged in result.later if judged.bad}
    found = {judged.name: judged.bad or judged.name in later for judged in result.judged}
    if result.engine and found and not any(found.values()):
        # NaN in the logits of one of them, and the counter does not say of which: one pair is bad, as in the burst.
        found[next(iter(found))] = True
    return found


def _not_warm(result: BurstResult) -> list[Doubt]:
    """The repeats are warm only where the cache says so."""
    if result.proof.hits:
        return []
    seen = "no token came out of the prefix cache"
    return [Doubt(code="not-warm", observed=seen, expected="a warm repeat: is prefix caching on?")]


def _bursts(plan: GatePlan) -> int:
    return math.ceil(plan.pairs / plan.width)


def _kinds(index: int, plan: GatePlan) -> tuple[CaseKind, ...]:
    """The next kinds in turn, those with the longest answers first, as in every cold burst."""
    if plan.texts_only:
        return burst_kinds(index, plan.width, texts_only=True)
    places = sorted((index * plan.width + slot) % len(DIFF_KINDS) for slot in range(plan.width))
    return tuple(DIFF_KINDS[place] for place in places)
