"""The report's plots as SVG: one figure each, without a script, the same bytes for the same run."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dspark_ops.bench.records import Run, Sample
from dspark_ops.bench.report import ArmReport, CellReport

_WIDTH_IN = 9.0
# Told apart with any sight, and in print (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SOFT = "#888888"
_VOID = "#f3c6c6"
# From the shortest to the longest; on one linear axis the short ones would be a wall at its left end.
_WIDE = 30.0


def rates(arm: ArmReport) -> str | None:
    """Mean decode rate by class with its interval, a colour for each number of streams; None: nothing to draw."""
    cells = [cell for cell in arm.cells if cell.mean_rate is not None and cell.place.prompt_tokens is None]
    if not cells:
        return None
    names = list(dict.fromkeys(_label(cell) for cell in cells))
    series = list(dict.fromkeys((cell.place.concurrency, cell.place.load, cell.place.cache) for cell in cells))
    figure, axes = _figure(0.9 + 0.22 * len(names) * (len(series) + 1))
    height = 0.8 / len(series)
    for number, key in enumerate(sorted(series)):
        mine = [c for c in cells if (c.place.concurrency, c.place.load, c.place.cache) == key]
        streams, load, cache = key
        for i, cell in enumerate(mine):
            found = cell.mean_rate
            if found is None:
                continue
            at = names.index(_label(cell)) - 0.4 + height * (number + 0.5)
            label = (f"open loop, {cache}" if load == "open" else f"{streams} at once, {cache}") if i == 0 else None
            colour = _COLOURS[number % len(_COLOURS)]
            flagged = cell.figures.predictable.predictable
            axes.barh(
                at,
                found.estimate,
                height * 0.9,
                color="white" if flagged else colour,
                edgecolor=colour,
                hatch="///" if flagged else None,
                label=label,
            )
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [at, at], color="#222222", linewidth=1.2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("decode tokens/s of one stream, mean and 95 % interval; hatched: predictable, in no headline")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "rates")


def acceptance(arm: ArmReport) -> str | None:
    """Share of drafts accepted at each position, a line for each class; None: the engine does not say."""
    cells = [cell for cell in arm.cells if cell.figures.per_position and cell.place.cache == "cold"]
    best: dict[str, CellReport] = {}
    for cell in sorted(cells, key=lambda one: one.place.concurrency):
        best.setdefault(_label(cell), cell)
    if not best:
        return None
    figure, axes = _figure(3.2)
    for number, (name, cell) in enumerate(best.items()):
        shares = cell.figures.per_position
        axes.plot(
            range(1, len(shares) + 1),
            shares,
            marker="o",
            linestyle="--" if cell.figures.predictable.predictable else "-",
            color=_COLOURS[number % len(_COLOURS)],
            label=name,
        )
    axes.set_ylim(0, 1)
    axes.set_xticks(range(1, max(len(cell.figures.per_position) for cell in best.values()) + 1))
    axes.set_xlabel("position in the draft")
    axes.set_ylabel("accepted / drafts")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "acceptance")


def first_tokens(run: Run, arm: str) -> str | None:
    """How TTFT is distributed, a step line for each length of prompt, number of streams and cache state.

    A long prompt takes its prefill's time by right: in one line with short ones it would look like their slow tenth.
    None: no answer has one.
    """
    aims = {block.index: block.prompt_tokens for block in run.blocks}
    groups: dict[tuple[str, int, str, str], list[float]] = {}
    for sample in run.used_samples():
        if sample.arm == arm and sample.outcome == "valid" and sample.ttft_s is not None:
            key = (_length(sample, aims[sample.block]), sample.concurrency, sample.load, sample.cache)
            groups.setdefault(key, []).append(sample.ttft_s)
    if not groups:
        return None
    figure, axes = _figure(max(3.2, 0.6 + 0.2 * len(groups)))
    for number, ((length, streams, load, cache), values) in enumerate(sorted(groups.items())):
        ordered = sorted(values)
        shares = [(i + 1) / len(ordered) for i in range(len(ordered))]
        name = "open loop" if load == "open" else f"{streams} at once"
        axes.step(
            [ordered[0], *ordered],
            [0.0, *shares],
            where="post",
            color=_COLOURS[number % len(_COLOURS)],
            linestyle="--" if cache == "warm" else "-",
            label=f"{length}{name}, {cache} ({len(ordered)})",
        )
    axes.set_ylim(0, 1)
    seen = [value for values in groups.values() for value in values]
    if min(seen) > 0 and max(seen) > _WIDE * min(seen):
        axes.set_xscale("log")
        axes.set_xlabel("TTFT in s, logarithmic; long prompts have lines of their own")
    else:
        axes.set_xlim(left=0)
        axes.set_xlabel("TTFT in s; long prompts have lines of their own")
    axes.set_ylabel("share of valid answers")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "first-tokens")


def _length(sample: Sample, aim: int | None) -> str:
    """What a line of long prompts is called; nothing for the usual length. aim: tokens that its block was to ask."""
    if aim is not None:
        return f"{aim:,} tokens, "
    return "long-context, " if sample.content_class == "long-context" else ""


def timeline(run: Run) -> str | None:
    """Every answer's rate at its time, void blocks shaded, failures at the bottom; None: nothing was asked."""
    if not run.samples:
        return None
    figure, axes = _figure(3.2)
    for block in run.blocks:
        if block.state == "void":
            axes.axvspan(block.began_s, block.ended_s, color=_VOID, linewidth=0)
    names = list(dict.fromkeys(sample.content_class for sample in run.samples))
    for number, name in enumerate(names):
        mine = [s for s in run.samples if s.content_class == name and s.outcome == "valid" and s.decode_rate]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot([s.sent_s for s in mine], [s.decode_rate or 0 for s in mine], ".", color=colour, label=name)
    bad = [sample for sample in run.samples if sample.outcome != "valid"]
    axes.plot(
        [s.sent_s for s in bad], [0.0 for _ in bad], "x", color="#c2202b", label="failed or invalid", clip_on=False
    )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the run began; shaded: void blocks")
    axes.set_ylabel("decode tokens/s")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "timeline")


def for_run(run: Run, arms: Sequence[ArmReport]) -> list[tuple[str, str]]:
    """Every plot of a run that has anything in it: title and SVG."""
    drawn: list[tuple[str, str | None]] = []
    for arm in arms:
        of = f", server {arm.arm}" if arm.arm else ""
        drawn += [
            (f"Rates by class{of}", rates(arm)),
            (f"Acceptance by position{of}", acceptance(arm)),
            (f"Time to the first token{of}", first_tokens(run, arm.arm)),
        ]
    drawn.append(("Timeline", timeline(run)))
    return [(title, svg) for title, svg in drawn if svg is not None]


def _label(cell: CellReport) -> str:
    return str(cell.place.content_class)


def _figure(height_in: float) -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(figsize=(_WIDTH_IN, max(2.2, height_in)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors="#333333")
    axes.grid(color=_SOFT, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """The element alone; its ids are its own, for there are several on one page."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
