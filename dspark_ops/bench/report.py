"""A run as a report: conditions, headline, every cell with its intervals, what is void or partial, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field

from dspark_ops import __version__
from dspark_ops.bench.article import ArticleLine, against_article, hardware_of
from dspark_ops.bench.foreign import ForeignRun, looks_foreign, read_foreign
from dspark_ops.bench.records import DEFINITIONS, Header, Run, WarmUp, read_run
from dspark_ops.bench.sides import Headline, Place, Side, headline, place_of, sides_of
from dspark_ops.bench.statistics import LEAST_BOOTS, Clusters, Interval, Share, interval, share
from dspark_ops.bench.summary import CellSummary, cell_of
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.openai_api.model import Record

SCHEMA: Literal["dspark-ops/bench-report/v1"] = "dspark-ops/bench-report/v1"
# A run's first line is its header; a file that ends within it holds nothing that could be read.
_HEADER_BEGINS = b'{"record":"header"'


class FileOf(Record):
    """The raw file. sha256: of its bytes as they were read."""

    name: str
    sha256: str
    bytes: int


class CellReport(Record):
    """One cell: the plain figures and the intervals. flagged: valid answers whose own text is predictable."""

    place: Place
    figures: CellSummary
    mean_rate: Interval | None = None
    median_rate: Interval | None = None
    mean_ttft: Interval | None = None
    median_ttft: Interval | None = None
    aggregate: Interval | None = None
    failed: Share | None = None
    flagged: int = 0


class VoidBlock(Record):
    """A block that was not used, or could not be checked, and why."""

    index: int
    state: Literal["void", "unchecked"]
    arm: str
    place: str
    requests: int
    reasons: tuple[str, ...]


class ArmReport(Record):
    """One server of a run."""

    arm: str
    headline: Headline
    cells: tuple[CellReport, ...]
    article: tuple[ArticleLine, ...]


class RunReport(Record):
    """One file of ours. partial: why it is no whole run; None: it is. header None: nothing of it can be read."""

    file: FileOf
    partial: str | None = None
    torn: bool = False
    header: Header | None = None
    ended: AwareDatetime | None = None
    arms: tuple[ArmReport, ...] = ()
    warm_ups: tuple[WarmUp, ...] = ()
    blocks: tuple[VoidBlock, ...] = ()
    dangling: int = 0


class PooledReport(Record):
    """Runs of several boots of one server as one: the boot is what the interval draws."""

    arm: str
    model: str
    files: tuple[str, ...]
    boots: int
    headline: Headline


class BenchReport(Record):
    """The whole document of `bench report`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/bench-report/v1"] = Field(default=SCHEMA, alias="schema")
    tool_version: str = __version__
    runs: tuple[RunReport, ...] = ()
    foreign: tuple[ForeignRun, ...] = ()
    pooled: tuple[PooledReport, ...] = ()
    definitions: dict[str, str] = DEFINITIONS

    @property
    def measured(self) -> bool:
        """Whether there is any rate in it."""
        ours = any(cell.figures.valid for run in self.runs for arm in run.arms for cell in arm.cells)
        return ours or any(run.completed for run in self.foreign)


def load(path: Path) -> tuple[FileOf, Run | ForeignRun | None]:
    """Read a file of ours or of `vllm bench serve`; None: a run of ours that was cut within its header.

    Raises:
        ConfigError: it cannot be read.
        NoVerdictError: it is neither, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    file = FileOf(name=path.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    if b"\n" not in data and (data.startswith(_HEADER_BEGINS) or _HEADER_BEGINS.startswith(data)):
        return file, None
    if looks_foreign(data):
        return file, read_foreign(path)
    return file, read_run(path)


def bench_report(paths: Sequence[Path], *, seed: int = 0) -> BenchReport:
    """The report of files of ours, of `vllm bench serve`, or of both beside each other.

    Raises:
        ConfigError, NoVerdictError: as `load`.
    """
    runs: list[RunReport] = []
    foreign: list[ForeignRun] = []
    whole: list[Run] = []
    for path in paths:
        file, found = load(path)
        if isinstance(found, ForeignRun):
            foreign.append(found)
        elif found is None:
            runs.append(RunReport(file=file, torn=True, partial="cut within its first line: nothing of it can be read"))
        else:
            whole.append(found)
            runs.append(run_report(found, file, seed=seed))
    # Files that were cut within their header are alike, and count for nothing.
    counted = [report.file.sha256 for report in runs if report.header is not None]
    if len(set(counted)) < len(counted):
        raise NoVerdictError("the same file is given twice; it would count twice")
    return BenchReport(runs=tuple(runs), foreign=tuple(foreign), pooled=_pooled(whole, seed))


def run_report(run: Run, file: FileOf, *, seed: int = 0) -> RunReport:
    """One run of ours."""
    known = {block.index for block in run.blocks}
    return RunReport(
        file=file,
        partial=run.partial_reason,
        torn=run.torn,
        header=run.header,
        ended=None if run.end is None else run.end.at,
        arms=tuple(_arm(side, run.header, seed) for side in sides_of((run,))),
        warm_ups=run.warm_ups,
        blocks=tuple(
            VoidBlock(
                index=block.index,
                state=block.state,
                arm=block.arm,
                place=place_of(cell_of(block)).words,
                requests=block.requests,
                reasons=block.reasons,
            )
            for block in run.blocks
            if block.state != "sound"
        ),
        dangling=sum(sample.block not in known for sample in run.samples),
    )


def cell_report(side: Side, place: Place, figures: CellSummary, *, seed: int = 0) -> CellReport:
    """One cell's figures with their intervals."""
    here = side.at(place)
    rates = side.rates(place)
    first = Clusters(
        (str(one.boot) if side.unit == "boot" else one.prompt, one.sample.ttft_s)
        for one in here
        if one.sample.outcome == "valid" and one.sample.ttft_s is not None
    )
    valid = [one.sample for one in here if one.sample.outcome == "valid"]
    return CellReport(
        place=place,
        figures=figures,
        mean_rate=interval(rates, "mean", by=side.unit, seed=seed),
        median_rate=interval(rates, "median", by=side.unit, seed=seed),
        mean_ttft=interval(first, "mean", by=side.unit, seed=seed),
        median_ttft=interval(first, "median", by=side.unit, seed=seed),
        aggregate=interval(side.aggregates(place), "mean", by="block", seed=seed),
        failed=share(figures.failed, figures.requests),
        flagged=sum(sample.predictable is not None and sample.predictable.predictable for sample in valid),
    )


def _arm(side: Side, header: Header, seed: int) -> ArmReport:
    cells = tuple(cell_report(side, place, found[0], seed=seed) for place, found in side.summaries.items())
    return ArmReport(
        arm=side.arm,
        headline=headline(side, seed=seed),
        cells=cells,
        article=against_article(side, header, seed=seed),
    )


def _pooled(runs: Sequence[Run], seed: int) -> tuple[PooledReport, ...]:
    """The headline over all files, where they are of one server under one plan and at least three boots."""
    found = []
    for side in sides_of(runs) if len(runs) >= LEAST_BOOTS else ():
        alike = {measured_alike(side, run) for run in side.runs}
        if side.unit == "boot" and len(alike) == 1:
            found.append(
                PooledReport(
                    arm=side.arm,
                    model=side.server(side.runs[0]).model,
                    files=tuple(Path(run.path).name for run in side.runs),
                    boots=len(set(side.boots)),
                    headline=headline(side, seed=seed),
                )
            )
    return tuple(found)


def measured_alike(side: Side, run: Run) -> str:
    """What must be the same of boots that are one server: all that is known of it but its boot, and what was asked."""
    plan = run.header.plan
    asked = plan.model_dump_json(include={"temperature", "top_p", "extra", "max_tokens", "preamble_tokens"})
    return f"{side.server(run).model_dump_json(exclude={'boot'})} {hardware_of(run.header, side.arm)} {asked}"
