"""The fault matrix as a table: one line a row, over all its trials, the goals beside. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from tests.lab.serving_timeline import Expect, Measured

_HEAD = ("fault", "expected", "as expected", "p <=", "detected by", "detect s", "serve s", "beyond load s", "outage s",
         "lost", "cloud", "wrong", "false actions")  # fmt: skip
_CONFIDENCE = 0.95


def upper_bound(failures: int, trials: int, confidence: float = _CONFIDENCE) -> float:
    """The exact one-sided upper bound (Clopper-Pearson) of a share of failures. 0 of 20: 0.139.

    Raises:
        ValueError: no trials, or more failures than trials.
    """
    if not 0 <= failures <= trials or trials < 1:
        raise ValueError(f"{failures} of {trials}; expected 0 <= failures <= trials, and trials of 1 or more")
    if failures == trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, trials: int, share: float) -> float:
    """The chance of so few failures where each trial fails by this share."""
    total, term = 0.0, (1 - share) ** trials
    for count in range(failures + 1):
        total += term
        term *= (trials - count) / (count + 1) * share / (1 - share)
    return total


def spread(values: Sequence[float | None], goal: float | None, trials: int) -> str:
    """`median (most) <= goal`; how many trials had none is told, and a goal that was missed is marked."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{median(known):.1f} ({max(known):.1f})"
    if len(known) < trials:
        text += f" {len(known)}/{trials}"
    if goal is None:
        return text
    return f"{text} {'<=' if max(known) <= goal else 'OVER'} {goal:g}"


def line_of(name: str, expect: Expect, trials: Sequence[Measured]) -> tuple[str, ...]:
    """The cells of one row that was run at least once."""
    count, failures = len(trials), sum(bool(trial.problems) for trial in trials)
    ways = Counter(trial.detected_by or "-" for trial in trials)
    by = ", ".join(f"{way} {times}" if len(ways) > 1 else way for way, times in ways.most_common())
    return (
        name,
        expect.kind,
        f"{count - failures}/{count}",
        f"{100 * upper_bound(failures, count):.0f} %",
        by,
        spread([trial.detect_s for trial in trials], expect.detect_goal_s, count),
        spread([trial.serve_s for trial in trials], expect.serve_goal_s, count),
        spread([trial.beyond_load_s for trial in trials], expect.beyond_load_goal_s, count),
        spread([trial.outage_s for trial in trials], None, count),
        str(sum(trial.lost for trial in trials)),
        str(sum(trial.cloud for trial in trials)),
        str(sum(trial.wrong for trial in trials)),
        str(sum(trial.false_actions for trial in trials)),
    )


def render(rows: Mapping[str, tuple[Expect, Sequence[Measured]]], not_run: Mapping[str, str]) -> str:
    """The table in Markdown, then what was wrong, then what was not run and why."""
    cells = [_HEAD, *(line_of(name, expect, trials) for name, (expect, trials) in rows.items() if trials)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_joined(line, widths) for line in cells]
    lines.insert(1, _joined(["-" * width for width in widths], widths))
    lines += ["", f"Times: median (most) over the trials. p <=: {100 * _CONFIDENCE:g} % bound of a trial that fails."]
    for name, (_, trials) in rows.items():
        lines += [f"- {name}, trial {n}: {text}" for n, trial in enumerate(trials, 1) for text in trial.problems]
    lines += [f"- {name}: not run: {reason}" for name, reason in not_run.items()]
    return "\n".join(lines)


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
