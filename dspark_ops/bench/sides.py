"""What is compared or reported as one: the runs of one server, over one boot of it or several, and its headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import Field

from dspark_ops.bench.measure import LEAST_SPAN_S, too_short
from dspark_ops.bench.plan import BlockClass, CacheState, Load
from dspark_ops.bench.records import Block, Run, Sample, Server
from dspark_ops.bench.statistics import Clusters, Interval, Unit, mix, unit_of
from dspark_ops.bench.summary import Cell, CellSummary, cell_of, summarise
from dspark_ops.openai_api.model import Record

#: The declared mix of the headline: shares of the tokens that an agent's answers have.
HEADLINE_MIX: dict[BlockClass, float] = {"code": 0.40, "prose": 0.25, "reasoning": 0.20, "tool-json": 0.15}
HEADLINE_STREAMS = 1
HEADLINE_CACHE: CacheState = "cold"


class Place(Record):
    """A cell without its arm: what two servers can be compared at."""

    content_class: BlockClass
    concurrency: int
    cache: CacheState
    load: Load = "closed"
    prompt_tokens: int | None = None

    @property
    def words(self) -> str:
        """For people."""
        load = "open loop" if self.load == "open" else f"{self.concurrency} stream{'s' * (self.concurrency > 1)}"
        long = f" of {self.prompt_tokens} tokens" if self.prompt_tokens else ""
        return f"{self.content_class}{long}, {load}, {self.cache}"


class Headline(Record):
    """The one figure of a server: the mix's decode tok/s of one stream, cold. rate None: why_not says why.

    parts: each class's mean rate. left_out: answers that were measured and not used for their text was predictable.
    """

    mix: dict[str, float]
    concurrency: int = HEADLINE_STREAMS
    cache: CacheState = HEADLINE_CACHE
    rate: Interval | None = None
    parts: dict[str, Interval] = Field(default_factory=dict)
    left_out: int = 0
    why_not: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One sample with what it belongs to. run: which of the side's. prompt: by its hash, the same in every run. boot:
    None, not known.
    """

    run: int
    place: Place
    sample: Sample
    prompt: str
    boot: str | None


def _boot_of(block: Block) -> str | None:
    """The boot that a block met: a server that is started anew within a run is another one from then on."""
    start = None if block.before is None else block.before.process_start
    return None if start is None else f"{start:.0f}"


@dataclass(frozen=True)
class Side:
    """Runs of one server. arm: which of a run's. only: the blocks that count; None: all that are not void."""

    name: str
    runs: tuple[Run, ...]
    arm: str = ""
    only: frozenset[int] | None = field(default=None, compare=False)

    def server(self, run: Run) -> Server:
        """The arm's server in one of the runs."""
        found = [server for server in run.header.servers if server.arm == self.arm]
        return found[0] if found else Server(arm=self.arm, base_url="", model="")

    @cached_property
    def boots(self) -> tuple[str | None, ...]:
        """The boot of each run."""
        known = (self.server(run).boot for run in self.runs)
        return tuple(None if boot is None else f"{boot:.0f}" for boot in known)

    @cached_property
    def unit(self) -> Unit:
        """What the intervals draw."""
        return unit_of(self.boots)

    @cached_property
    def measured(self) -> tuple[Measured, ...]:
        """Every sample that may be used, failed and invalid ones among them."""
        found = []
        for number, (run, boot) in enumerate(zip(self.runs, self.boots, strict=True)):
            blocks = {block.index: block for block in run.blocks if self._counts(block)}
            hashes = {line.key: line.sha256 for line in run.header.prompts}
            found += [
                Measured(
                    number,
                    place_of(cell_of(blocks[sample.block])),
                    sample,
                    hashes.get(sample.prompt, sample.prompt),
                    _boot_of(blocks[sample.block]) or boot,
                )
                for sample in run.samples
                if sample.block in blocks
            ]
        return tuple(found)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where there is anything, in the order in which it was first measured."""
        return tuple(dict.fromkeys(one.place for one in self.measured))

    @cached_property
    def summaries(self) -> dict[Place, tuple[CellSummary, ...]]:
        """The plain figures of each run by place, those of places with void blocks alone among them."""
        found: dict[Place, list[CellSummary]] = {}
        for run in self.runs:
            for cell in summarise(run):
                if cell.cell.arm == self.arm:
                    found.setdefault(place_of(cell.cell), []).append(cell)
        return {place: tuple(cells) for place, cells in found.items()}

    def _counts(self, block: Block) -> bool:
        mine = block.arm == self.arm and block.state != "void"
        return mine and (self.only is None or block.index in self.only)

    def at(self, place: Place) -> tuple[Measured, ...]:
        """The samples of one place."""
        return tuple(one for one in self.measured if one.place == place)

    def rates(self, place: Place, *, realistic: bool = False, by: Unit | None = None) -> Clusters:
        """Decode rates of the valid answers. realistic: without answers whose own text is predictable."""
        unit = by or self.unit
        return Clusters(
            (str(one.boot) if unit == "boot" else one.prompt, one.sample.decode_rate)
            for one in self.at(place)
            if one.sample.outcome == "valid"
            and one.sample.decode_rate is not None
            and not (realistic and _flagged(one.sample))
        )

    def aggregates(self, place: Place) -> Clusters:
        """All tokens of a block's whole answers / its wall time: one figure for each block.

        A block of which every request failed made 0; one whose answers tell no count is not known and has no figure.
        """
        tokens: dict[tuple[int, int], int] = {}
        untold: set[tuple[int, int]] = set()
        for one in self.at(place):
            key = one.run, one.sample.block
            whole = one.sample.outcome != "failed"
            tokens[key] = tokens.get(key, 0) + (one.sample.n or 0) * whole
            if whole and one.sample.n is None:
                untold.add(key)
        walls = {(i, block.index): block.wall_s for i, run in enumerate(self.runs) for block in run.blocks}
        return Clusters(
            (f"{run}/{block}", n / walls[run, block])
            for (run, block), n in tokens.items()
            if walls[run, block] > 0 and (n or (run, block) not in untold)
        )

    def flagged(self, place: Place) -> tuple[str, ...]:
        """Why a place's content is predictable; empty: it is not."""
        reasons = (
            f"{reason.code} {reason.value:g} against {reason.threshold:g}"
            for cell in self.summaries.get(place, ())
            for reason in cell.predictable.reasons
        )
        return tuple(dict.fromkeys(reasons))


def place_of(cell: Cell) -> Place:
    """A cell without its arm."""
    return Place.model_validate(cell.model_dump(exclude={"arm"}))


def headline_place(name: BlockClass) -> Place:
    """Where the headline takes a class from."""
    return Place(content_class=name, concurrency=HEADLINE_STREAMS, cache=HEADLINE_CACHE)


def headline(side: Side, *, seed: int = 0) -> Headline:
    """The mix's rate with its interval, or why there is none. A class is never left out of the mix."""
    parts: dict[str, Clusters] = {}
    why: list[str] = []
    left_out = 0
    for name in HEADLINE_MIX:
        place = headline_place(name)
        if reason := why_no_rate(side, place):
            why.append(reason)
            continue
        parts[name] = side.rates(place, realistic=True)
        left_out += side.rates(place).n - parts[name].n
    weights: dict[str, float] = {str(name): share for name, share in HEADLINE_MIX.items()}
    single = {name: mix({name: part}, weights, by=side.unit, seed=seed) for name, part in parts.items()}
    return Headline(
        mix=weights,
        rate=None if why else mix(parts, weights, by=side.unit, seed=seed),
        parts={name: found for name, found in single.items() if found is not None},
        left_out=left_out,
        why_not=tuple(why),
    )


def why_no_rate(side: Side, place: Place) -> str | None:
    """Why a place has no rate that could be a headline's; None: it has one."""
    here = [one.sample for one in side.at(place)]
    if not here:
        void = sum(cell.void_blocks for cell in side.summaries.get(place, ()))
        return f"{place.words}: " + (_all_void(void) if void else "was not measured")
    if reasons := side.flagged(place):
        return f"{place.words}: its content is predictable ({'; '.join(reasons)})"
    if side.rates(place, realistic=True).n:
        return None
    valid = [sample for sample in here if sample.outcome == "valid"]
    if not valid:
        return f"{place.words}: none of {len(here)} answers is valid"
    if any(too_short(sample) for sample in valid):
        return f"{place.words}: its answers came within {LEAST_SPAN_S:g} s, too short for a rate"
    if any(sample.decode_rate_at_most is not None for sample in valid):
        return f"{place.words}: the server does not say how many tokens its first chunks have"
    return f"{place.words}: no answer has a rate"


def sides_of(runs: Sequence[Run]) -> tuple[Side, ...]:
    """One side for each arm of the runs."""
    arms = dict.fromkeys(server.arm for run in runs for server in run.header.servers)
    return tuple(Side(arm or _name(runs), tuple(runs), arm) for arm in arms)


def _name(runs: Sequence[Run]) -> str:
    models = dict.fromkeys(server.model for run in runs for server in run.header.servers)
    return ", ".join(models)


def _all_void(count: int) -> str:
    return "its one block is void" if count == 1 else f"all {count} blocks are void"


def _flagged(sample: Sample) -> bool:
    return sample.predictable is not None and sample.predictable.predictable
