"""The reports as text: what was measured and under which conditions, before any figure of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dspark_ops.bench.article import ArticleLine
from dspark_ops.bench.compare import Comparison, Cut, Line, SideOf
from dspark_ops.bench.foreign import ForeignRun
from dspark_ops.bench.report import ArmReport, BenchReport, CellReport, RunReport
from dspark_ops.bench.sides import Headline
from dspark_ops.bench.statistics import Interval, Share

LIKE = {"yes": "comparable", "no": "cannot be compared", "unknown": "may not be comparable"}


def render_report(report: BenchReport) -> str:
    """The whole report."""
    lines: list[str] = []
    for run in report.runs:
        lines += [*_run(run), ""]
    for pooled in report.pooled:
        files = ", ".join(pooled.files)
        lines += [f"{pooled.boots} boots of {pooled.model} together ({files})", *_headline(pooled.headline), ""]
    for foreign in report.foreign:
        lines += [*_foreign(foreign), ""]
    if report.runs:
        lines += ["definitions", *(f"  {name}: {text}" for name, text in report.definitions.items())]
    return "\n".join(lines).rstrip()


def render_comparison(found: Comparison) -> str:
    """The comparison as text."""
    how = "interleaved, A B and B A in turn" if found.order == "interleaved" else "one after the other"
    pairing = "; the same prompts on both sides" if found.paired else ""
    lines = [f"A {_side_name(found.a)}", f"B {_side_name(found.b)}", f"measured {how}{pairing}"]
    for side in (found.a, found.b):
        lines += [f"PARTIAL {reason}" for reason in side.partial]
        lines += [f"  {file.name}  sha256 {file.sha256}" for file in side.files]
    lines += [f"differs in {text}" for text in found.differs]
    lines += [f"note: {text}" for text in found.notes]
    if found.pairs_left_out:
        are = "is" if found.pairs_left_out == 1 else "are"
        lines.append(
            f"note: {_count(found.pairs_left_out, 'block')} {are} left out: the counterpart is missing or void"
        )
    lines += ["", *_headline_cut(found), ""]
    rows = [_compared(line) for line in found.lines if not line.predictable]
    lines += _table(("B against A, tok/s a stream", "A", "B", "B / A", "B is", "in all", "failed"), rows)
    if apart := [_compared(line) for line in found.lines if line.predictable]:
        lines += [
            "",
            "predictable, in no headline",
            *_table(("", "A", "B", "B / A", "B is", "in all", "failed"), apart),
        ]
    lines += [
        f"  {line.place.words}: steps/s {_plain(line.steps_per_s_a)} and {_plain(line.steps_per_s_b)}, "
        f"tokens/step {_plain(line.tokens_per_step_a, 2)} and {_plain(line.tokens_per_step_b, 2)}"
        for line in found.lines
        if line.tokens_per_step_a is not None or line.tokens_per_step_b is not None
    ]
    lines += [f"only in A: {text}" for text in found.only_in_a] + [f"only in B: {text}" for text in found.only_in_b]
    return "\n".join(lines).rstrip()


def amount(found: Interval | None, digits: int = 1, scale: float = 1.0) -> str:
    """The estimate with its interval; without one it says that there is none."""
    if found is None:
        return "-"
    shown = f"{found.estimate * scale:.{digits}f}"
    if found.low is None or found.high is None:
        return f"{shown} [one {found.by}]"
    return f"{shown} [{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"


def share_text(found: Share | None) -> str:
    """How many of how many, and up to what share it may be."""
    return "-" if found is None else f"{found.count} of {found.of} (<= {found.high:.0%})"


def conditions(run: RunReport) -> Iterator[tuple[str, str]]:
    """What a run was made under, name and value; what nobody told is said to be so."""
    header = run.header
    if header is None:
        return
    plan = header.plan
    yield "began", f"{header.began:%Y-%m-%d %H:%M:%S} UTC by {header.tool}, profile {plan.profile}, seed {plan.seed}"
    for server in header.servers:
        name = f"server {server.arm}".strip()
        boot = "boot not told" if server.boot is None else f"boot {server.boot:.0f}"
        window = "window not told" if server.max_model_len is None else f"window {server.max_model_len} tokens"
        yield name, f"{server.model} at {server.base_url}, vLLM {server.version or 'not told'}, {window}, {boot}"
        yield f"{name} image", f"{server.image_digest or 'not told'}, release {server.release or 'not told'}"
        if server.flags:
            yield f"{name} flags", " ".join(server.flags)
    yield "client", ", ".join(f"{key} {value}" for key, value in sorted(header.client.items())) or "not told"
    yield "sampling", f"temperature {plan.temperature:g}, top_p {plan.top_p:g}, extra {plan.extra or 'none'}"
    yield "answers", f"at most {plan.max_tokens} tokens; prompts begin with {plan.preamble_tokens} tokens of notes"
    hashes = {line.content_class for line in header.prompts}
    yield "prompts", f"{len(header.prompts)} of {len(hashes)} classes, each by its sha256 in the file"
    for warm in run.warm_ups:
        yield f"warm-up {warm.arm}".strip(), f"{'stable' if warm.stable else 'NOT STABLE'}: {warm.why}"
    for text in header.skipped:
        yield "skipped", text


def headline_words(found: Headline) -> str:
    """What the headline is of."""
    mix = ", ".join(f"{share:.0%} {name}" for name, share in found.mix.items())
    return f"decode tok/s of {found.concurrency} stream, {found.cache}; of the tokens {mix}"


def caveats(run: RunReport) -> Iterator[str]:
    """What weakens every figure of a run."""
    if run.header is None:
        return
    if any(not warm.stable for warm in run.warm_ups):
        yield "the server was not steady when the measuring began"
    if not run.warm_ups:
        yield "the server was not warmed up"
    if run.header.plan.profile == "quick":
        yield "profile quick: a first look, not a figure to publish"
    if unchecked := sum(block.state == "unchecked" for block in run.blocks):
        yield f"{_count(unchecked, 'block')} could not be checked against the engine's counters"


def left_out(found: Headline) -> str:
    """The answers that were measured and not used."""
    return f"{_count(found.left_out, 'answer')} left out for a predictable text"


def dangling(run: RunReport) -> str:
    """The answers of a block that the run did not finish."""
    are = "is" if run.dangling == 1 else "are"
    return f"{_count(run.dangling, 'answer')} of a block that was not finished {are} not used"


def _run(run: RunReport) -> Iterator[str]:
    yield f"{run.file.name}  sha256 {run.file.sha256}"
    if run.partial is not None:
        torn = "; its last line is cut off" if run.torn and run.header is not None else ""
        yield f"PARTIAL: {run.partial}{torn}"
    if run.header is None:
        return
    if run.dangling:
        yield f"PARTIAL: {dangling(run)}"
    for name, value in conditions(run):
        yield f"  {name}: {value}"
    yield from (f"  note: {text}" for text in caveats(run))
    for arm in run.arms:
        yield ""
        if arm.arm:
            yield f"server {arm.arm}"
        yield from _arm(arm)
    for block in run.blocks:
        yield f"{block.state.upper()} block {block.index} ({block.place}, {block.requests} requests): " + "; ".join(
            block.reasons
        )


def _arm(arm: ArmReport) -> Iterator[str]:
    yield from _headline(arm.headline)
    realistic = [cell for cell in arm.cells if not cell.figures.predictable.predictable]
    apart = [cell for cell in arm.cells if cell.figures.predictable.predictable]
    for title, cells in (("", realistic), ("predictable, in no headline", apart)):
        if not cells:
            continue
        yield ""
        if title:
            yield title
        yield from _table(
            (
                "tok/s a stream",
                "mean",
                "median",
                "TTFT median s",
                "in all tok/s",
                "goodput",
                "accepted",
                "tok/step",
                "valid",
                "correct",
                "failed",
            ),
            [_cell(cell) for cell in cells],
        )
        for cell in cells:
            yield from _cell_notes(cell)
    yield ""
    yield from _article(arm.article)


def _headline(found: Headline) -> Iterator[str]:
    if found.rate is None:
        yield f"no headline ({headline_words(found)}):"
        yield from (f"  {reason}" for reason in found.why_not)
        return
    rate = found.rate
    yield f"headline: {amount(rate)} {headline_words(found)}"
    interval = "no interval" if rate.low is None else f"{rate.level:.0%} interval by bootstrap of whole {rate.by}s"
    yield f"  {interval}, {rate.units} {rate.by}s at least, {rate.n} answers" + (
        f"; {left_out(found)}" if found.left_out else ""
    )


def _cell(cell: CellReport) -> tuple[str, ...]:
    f = cell.figures
    right = f"{f.correct} of {f.correct + f.incorrect}" + (f", {f.untold} untold" if f.untold else "")
    bound = "" if f.rate_at_most is None else f"<= {f.rate_at_most.mean:.1f}"
    return (
        cell.place.words,
        amount(cell.mean_rate) if cell.mean_rate is not None else bound or "-",
        amount(cell.median_rate),
        amount(cell.median_ttft, 2),
        amount(cell.aggregate),
        _plain(f.goodput),
        "-" if f.acceptance is None else f"{f.acceptance:.1%}",
        _plain(f.tokens_per_step, 2),
        f"{f.valid} of {f.requests}",
        right,
        share_text(cell.failed),
    )


def _cell_notes(cell: CellReport) -> Iterator[str]:
    f, words = cell.figures, cell.place.words
    if f.predictable.predictable:
        why = (f"{r.code} {r.value:g} against {r.threshold:g}" for r in f.predictable.reasons)
        yield f"  {words}: predictable for {'; '.join(why)}"
    elif cell.flagged:
        yield f"  {words}: {cell.flagged} of {f.valid} answers have a predictable text"
    if f.void_blocks:
        yield f"  {words}: void: {_count(f.void_blocks, 'block')} with {_count(f.void_requests, 'request')}"
    if f.unchecked_blocks:
        yield f"  {words}: {_count(f.unchecked_blocks, 'block')} could not be checked"
    yield from (f"  {words}: invalid: {reason}" for reason in f.invalid_reasons)
    yield from (f"  {words}: failed: {reason}" for reason in f.failures)


def _article(lines: Sequence[ArticleLine]) -> Iterator[str]:
    yield "against the article (Flowtivity, 3 July 2026)"
    for figure in dict.fromkeys(line.what for line in lines):
        here = [line for line in lines if line.what == figure]
        common = [why for why in here[0].why if all(why in line.why for line in here)]
        yield f"  {figure}: {'; '.join(common)}"
        for line in here:
            ours = "none of ours" if line.ours is None else f"ours {amount(line.ours)}, {line.times or 0:.2f} times"
            own = "; ".join(why for why in line.why if why not in common)
            yield f"    {line.place}: {ours}; {LIKE[line.like]}" + (f": {own}" if own else "")


def _foreign(found: ForeignRun) -> Iterator[str]:
    yield f"{found.name}  sha256 {found.sha256}"
    yield f"  {found.tool} of {found.date or 'no date'}: {found.model or 'model not told'}"
    yield (
        f"  {found.completed} of {_whole(found.prompts)} requests, failed {_whole(found.failed)}, at most "
        f"{_whole(found.max_concurrency)} at once, {_plain(found.request_rate, 2)} a second (-: no limit)"
    )
    yield f"  output throughput {found.output_throughput:.1f} tok/s over {found.duration_s:.1f} s"
    for name, one in (("TTFT", found.ttft), ("TPOT", found.tpot), ("ITL", found.itl), ("latency", found.latency)):
        yield f"  {name} ms: mean {_ms(one.mean)}, median {_ms(one.median)}, p99 {_ms(one.p99)}"
    yield f"  1 / mean TPOT: {_plain(found.rate_of_mean_tpot)} tok/s of one stream"
    if found.acceptance is not None:
        yield f"  accepted {found.acceptance:.1%}, tokens/step {_plain(found.tokens_per_step, 2)}"
    if found.detail is not None:
        yield f"  tokens for each event {_plain(found.detail.tokens_per_event, 2)}: its ITL is of events, not of tokens"
    yield from (f"  {name} there: {text}" for name, text in found.definitions.items())
    yield from (f"  it cannot tell {text}" for text in found.cannot_tell)


def _headline_cut(found: Comparison) -> Iterator[str]:
    cut = found.headline
    if cut.times is None:
        yield f"no headline ({headline_words(found.a.headline)}):"
        yield from (f"  {reason}" for reason in found.why_not)
        return
    yield f"headline: B is {_times(cut)} of A, {found.outcome}: {amount(cut.b)} against {amount(cut.a)}"
    yield f"  {headline_words(found.a.headline)}"
    yield f"  {cut.times.level:.0%} interval by bootstrap of whole {found.by}s, {cut.times.units} at least"


def _compared(line: Line) -> tuple[str, ...]:
    failed = f"{share_text(line.failed_a)}, {share_text(line.failed_b)}"
    return (
        line.place.words,
        amount(line.rate.a),
        amount(line.rate.b),
        _times(line.rate),
        line.outcome if line.why_not is None else line.why_not,
        f"{amount(line.aggregate.a)}, {amount(line.aggregate.b)}",
        failed,
    )


def _side_name(side: SideOf) -> str:
    return f"{side.name}, {side.boots or 'no known'} boot{'s' * (side.boots != 1)}"


def _times(cut: Cut) -> str:
    return amount(cut.times, 3)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _plain(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _whole(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def _ms(seconds: float | None) -> str:
    return _plain(None if seconds is None else 1000 * seconds, 2)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns set out by their widest text."""
    table = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table]
