"""Two servers beside each other: ratios with intervals, by prompt or by boot, and what else differs between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.bench.article import hardware_of
from dspark_ops.bench.records import Block, Run
from dspark_ops.bench.report import FileOf, measured_alike
from dspark_ops.bench.sides import HEADLINE_MIX, Headline, Place, Side, headline, headline_place
from dspark_ops.bench.statistics import LEAST_BOOTS, Clusters, Interval, Share, Unit, interval, ratio, share
from dspark_ops.bench.summary import Cell, cell_of, told
from dspark_ops.errors import NoVerdictError
from dspark_ops.openai_api.model import Record

SCHEMA: Literal["dspark-ops/bench-comparison/v1"] = "dspark-ops/bench-comparison/v1"
Outcome = Literal["faster", "slower", "no difference shown", "not comparable"]


class Cut(Record):
    """One figure of both. times: B / A with its interval."""

    a: Interval | None = None
    b: Interval | None = None
    times: Interval | None = None


class Line(Record):
    """One place of both servers. predictable: it is in no headline. rate: mean decode tok/s of one stream.

    goodput: tokens of valid and correct answers per second of the blocks' wall time. failed, wrong: of all requests;
    an answer whose rightness cannot be told is not wrong.
    """

    place: Place
    predictable: tuple[str, ...] = ()
    rate: Cut
    outcome: Outcome
    ttft: Cut = Cut()
    aggregate: Cut = Cut()
    goodput_a: float | None = None
    goodput_b: float | None = None
    failed_a: Share | None = None
    failed_b: Share | None = None
    wrong_a: Share | None = None
    wrong_b: Share | None = None
    acceptance_a: float | None = None
    acceptance_b: float | None = None
    tokens_per_step_a: float | None = None
    tokens_per_step_b: float | None = None
    steps_per_s_a: float | None = None
    steps_per_s_b: float | None = None
    why_not: str | None = None


class SideOf(Record):
    """One side's runs. boots: how many different ones are known."""

    name: str
    arm: str
    files: tuple[FileOf, ...]
    boots: int
    partial: tuple[str, ...] = ()
    headline: Headline


class Comparison(Record):
    """The whole document of `bench compare`. by: what the intervals draw; order: how the two were measured.

    pairs_left_out: blocks of ABBA runs whose counterpart is missing or void. differs: conditions that are not alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/bench-comparison/v1"] = Field(default=SCHEMA, alias="schema")
    tool_version: str = __version__
    a: SideOf
    b: SideOf
    order: Literal["interleaved", "apart"]
    paired: bool
    by: Unit
    headline: Cut
    outcome: Outcome
    why_not: tuple[str, ...] = ()
    lines: tuple[Line, ...]
    only_in_a: tuple[str, ...] = ()
    only_in_b: tuple[str, ...] = ()
    pairs_left_out: int = 0
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def compare_arms(run: Run, file: FileOf, *, seed: int = 0) -> Comparison:
    """The two arms of one interleaved run, block against block.

    Raises:
        NoVerdictError: it has one arm.
    """
    arms = run.header.plan.arms
    if len(arms) != 2:
        raise NoVerdictError(
            f"{file.name} has one server in it, a comparison needs two", hint="give a second file, or run with --abba"
        )
    kept, left_out = complete_pairs(run)
    a, b = (Side(arm, (run,), arm, kept) for arm in arms)
    return _compared(a, b, ((file,), (file,)), "interleaved", left_out, seed)


def compare_runs(
    first: Sequence[tuple[FileOf, Run]], second: Sequence[tuple[FileOf, Run]], *, seed: int = 0
) -> Comparison:
    """Runs of one server against runs of another.

    Raises:
        NoVerdictError: a run has two arms, or one is on both sides.
    """
    hashes = [[file.sha256 for file, _ in side] for side in (first, second)]
    if set(hashes[0]) & set(hashes[1]) or any(len(set(side)) < len(side) for side in hashes):
        raise NoVerdictError("the same file is given twice")
    for file, run in (*first, *second):
        if len(run.header.plan.arms) != 1:
            raise NoVerdictError(f"{file.name} has two servers in it", hint="compare it by itself")
    sides = [
        Side(", ".join(file.name for file, _ in side), tuple(run for _, run in side), side[0][1].header.plan.arms[0])
        for side in (first, second)
    ]
    files = tuple(file for file, _ in first), tuple(file for file, _ in second)
    return _compared(sides[0], sides[1], files, "apart", 0, seed)


def complete_pairs(run: Run) -> tuple[frozenset[int], int]:
    """Blocks of a run with two arms whose counterpart of the same round counts as well, and how many are left out.

    A drift of the machine falls on both alike only where both are there.
    """
    pairs: dict[tuple[int, Cell], list[Block]] = {}
    for block in run.blocks:
        pairs.setdefault((block.round, cell_of(block).model_copy(update={"arm": ""})), []).append(block)
    kept = {
        block.index
        for blocks in pairs.values()
        if len({block.arm for block in blocks if block.state != "void"}) == len(run.header.plan.arms)
        for block in blocks
        if block.state != "void"
    }
    return frozenset(kept), sum(block.state != "void" and block.index not in kept for block in run.blocks)


def _compared(
    a: Side,
    b: Side,
    files: tuple[tuple[FileOf, ...], tuple[FileOf, ...]],
    order: Literal["interleaved", "apart"],
    left_out: int,
    seed: int,
) -> Comparison:
    by: Unit = "boot" if a.unit == b.unit == "boot" else "prompt"
    places = [place for place in a.places if place in b.places]
    # Both sides were asked the same where they share prompts everywhere: a class of fixed texts may share some of two
    # runs that share nothing else. Boots are never the same on both.
    paired = (
        by == "prompt"
        and bool(places)
        and all({one.prompt for one in a.at(place)} & {one.prompt for one in b.at(place)} for place in places)
    )
    head_a, head_b = headline(a, seed=seed), headline(b, seed=seed)
    why = tuple(dict.fromkeys(f"{side.name}: {r}" for side, h in ((a, head_a), (b, head_b)) for r in h.why_not))
    times = None
    if not why:
        parts = [
            {str(name): side.rates(headline_place(name), realistic=True, by=by) for name in HEADLINE_MIX}
            for side in (a, b)
        ]
        weights = {str(name): part for name, part in HEADLINE_MIX.items()}
        times = ratio(parts[0], parts[1], weights, paired=paired, by=by, seed=seed)
    return Comparison(
        a=_side(a, files[0], head_a),
        b=_side(b, files[1], head_b),
        order=order,
        paired=paired,
        by=by,
        headline=Cut(a=head_a.rate, b=head_b.rate, times=times),
        outcome=outcome_of(times),
        why_not=why,
        lines=tuple(_line(a, b, place, paired, by, seed) for place in places),
        only_in_a=tuple(place.words for place in a.places if place not in b.places),
        only_in_b=tuple(place.words for place in b.places if place not in a.places),
        pairs_left_out=left_out,
        differs=tuple(_differences(a, b)),
        notes=tuple(_notes(a, b, order, paired)),
    )


def outcome_of(times: Interval | None) -> Outcome:
    """What a ratio's interval says of B; one that holds 1 says nothing."""
    if times is None or times.low is None or times.high is None:
        return "not comparable"
    if times.low > 1:
        return "faster"
    return "slower" if times.high < 1 else "no difference shown"


def _side(side: Side, files: tuple[FileOf, ...], head: Headline) -> SideOf:
    partial = (f"{file.name}: {run.partial_reason}" for file, run in zip(files, side.runs, strict=True) if run.partial)
    return SideOf(
        name=side.name,
        arm=side.arm,
        files=files,
        boots=len({boot for boot in side.boots if boot is not None}),
        partial=tuple(partial),
        headline=head,
    )


def _line(a: Side, b: Side, place: Place, paired: bool, by: Unit, seed: int) -> Line:
    sides = (a, b)
    rates = [side.rates(place, by=by) for side in sides]
    times = _ratio(rates, paired, by, seed)
    first = [
        Clusters(
            (str(one.boot) if by == "boot" else one.prompt, one.sample.ttft_s)
            for one in side.at(place)
            if one.sample.outcome == "valid" and one.sample.ttft_s
        )
        for side in sides
    ]
    aggregates = [side.aggregates(place) for side in sides]
    flagged = tuple(dict.fromkeys(f"{side.name}: {reason}" for side in sides for reason in side.flagged(place)))
    pooled = [_pooled(side, place) for side in sides]
    missing = next((side.name for side, rate in zip(sides, rates, strict=True) if not rate.n), None)
    return Line(
        place=place,
        predictable=flagged,
        rate=Cut(a=_mean(rates[0], by, seed), b=_mean(rates[1], by, seed), times=times),
        outcome=outcome_of(times),
        ttft=Cut(a=_mean(first[0], by, seed), b=_mean(first[1], by, seed), times=_ratio(first, paired, by, seed)),
        aggregate=Cut(
            a=_mean(aggregates[0], "block", seed),
            b=_mean(aggregates[1], "block", seed),
            times=_ratio(aggregates, False, "block", seed),
        ),
        goodput_a=_goodput(a, place),
        goodput_b=_goodput(b, place),
        failed_a=_failed(a, place),
        failed_b=_failed(b, place),
        wrong_a=_wrong(a, place),
        wrong_b=_wrong(b, place),
        acceptance_a=pooled[0][0],
        acceptance_b=pooled[1][0],
        tokens_per_step_a=pooled[0][1],
        tokens_per_step_b=pooled[1][1],
        steps_per_s_a=pooled[0][2],
        steps_per_s_b=pooled[1][2],
        why_not=f"{missing} has no valid rate there" if missing is not None else None,
    )


def _mean(clusters: Clusters, by: Unit, seed: int) -> Interval | None:
    return interval(clusters, "mean", by=by, seed=seed)


def _ratio(both: Sequence[Clusters], paired: bool, by: Unit, seed: int) -> Interval | None:
    return ratio({"": both[0]}, {"": both[1]}, {"": 1.0}, paired=paired, by=by, seed=seed)


def _goodput(side: Side, place: Place) -> float | None:
    here = side.at(place)
    blocks = {(one.run, one.sample.block) for one in here}
    wall_s = sum(b.wall_s for i, run in enumerate(side.runs) for b in run.blocks if (i, b.index) in blocks)
    valid = [one.sample for one in here if one.sample.outcome == "valid"]
    tokens = sum(sample.n or 0 for sample in valid if sample.correct)
    return tokens / wall_s if wall_s > 0 and told(valid) else None


def _failed(side: Side, place: Place) -> Share | None:
    here = side.at(place)
    return share(sum(one.sample.outcome == "failed" for one in here), len(here))


def _wrong(side: Side, place: Place) -> Share | None:
    here = side.at(place)
    return share(sum(one.sample.correct is False for one in here), len(here))


def worse(found: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where B fails or errs more often than A: shown by intervals apart, and seen without being shown.

    All places are counted together as well: what is too rare in each of them may be plain in the whole.
    """
    shown: list[str] = []
    seen: list[str] = []
    for kind, both in (
        ("failed", [(line.place.words, line.failed_a, line.failed_b) for line in found.lines]),
        ("wrong", [(line.place.words, line.wrong_a, line.wrong_b) for line in found.lines]),
    ):
        pairs = [(name, a, b) for name, a, b in both if a is not None and b is not None]
        whole_a = share(sum(a.count for _, a, _ in pairs), sum(a.of for _, a, _ in pairs))
        whole_b = share(sum(b.count for _, _, b in pairs), sum(b.of for _, _, b in pairs))
        if whole_a is not None and whole_b is not None:
            pairs.append(("all requests", whole_a, whole_b))
        for name, a, b in pairs:
            words = f"{name}: {b.count} of {b.of} {kind}, A had {a.count} of {a.of}"
            if b.low > a.high:
                shown.append(words)
            elif b.share > a.share:
                seen.append(words)
    return tuple(shown), tuple(seen)


def _pooled(side: Side, place: Place) -> tuple[float | None, float | None, float | None]:
    """Acceptance, tokens per step, steps per second, of the side's first run; of several, their means."""
    cells = side.summaries.get(place, ())

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return (
        mean(cell.acceptance for cell in cells),
        mean(cell.tokens_per_step for cell in cells),
        mean(cell.steps_per_s for cell in cells),
    )


def _differences(a: Side, b: Side) -> Iterable[str]:
    """Conditions that are not alike; what one side does not tell is named as well."""
    facts = []
    for side in (a, b):
        run = side.runs[0]
        server, plan = side.server(run), run.header.plan
        facts.append(
            {
                "model": server.model,
                "server version": server.version,
                "image digest": server.image_digest,
                "release": server.release,
                "flags": " ".join(server.flags) or None,
                "max_model_len": server.max_model_len,
                "hardware": hardware_of(run.header, side.arm),
                "temperature": plan.temperature,
                "top_p": plan.top_p,
                "extra": plan.extra or None,
                "max_tokens": plan.max_tokens,
                "preamble": plan.preamble_tokens,
                "seed": plan.seed,
                "tool": run.header.tool,
            }
        )
    for name, ours in facts[0].items():
        theirs = facts[1][name]
        if ours != theirs:
            yield f"{name}: {'not told' if ours is None else ours} and {'not told' if theirs is None else theirs}"


def _notes(a: Side, b: Side, order: str, paired: bool) -> Iterable[str]:
    if order == "apart":
        yield "measured at different times: what changed of the machine meanwhile counts as a difference of the servers"
    if not paired and not (a.unit == b.unit == "boot"):
        yield "the two were not asked the same prompts"
    for side in (a, b):
        if len({measured_alike(side, run) for run in side.runs}) > 1:
            yield f"the runs of {side.name} are not of one server measured in one way: what differs is in its figure"
    boots = min(len({boot for boot in side.boots if boot is not None}) for side in (a, b))
    if boots < LEAST_BOOTS:
        yield (
            f"{boots or 'no known'} boot{'s' * (boots != 1)} of a side: how much the servers differ from boot to boot "
            f"is not in the intervals; {LEAST_BOOTS} of each would show it"
        )
