"""Whether a content is one that a drafter guesses: measured, not declared. Such content is never in the headline.

Rules in order; any one is enough: (1) the drafter's acceptance, or its rate at the last position; (2) tokens per step
near the most that speculation can give; then the text alone, so that a server without counters is judged too: (3) it
compresses, (4) its lines repeat when digits are masked (counting), or have the same shape (CSV), (5) few distinct
3-grams, (6) it copies what it was given. `benchmarks/predictable_flag.py` prints how the text rules do on a set that
the thresholds were not chosen on.
"""

from __future__ import annotations

import re
import statistics
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from dspark_ops.openai_api.model import Record

Code = Literal[
    "acceptance",
    "last-position",
    "tokens-per-step",
    "compresses",
    "same-lines",
    "same-shapes",
    "few-trigrams",
    "copies-prompt",
    "declared",
    "samples",
]

ACCEPTANCE = 0.90
LAST_POSITION = 0.85
TOKENS_PER_STEP_SHARE = 0.90
ZLIB_RATIO = 0.24
SAME_LINES = 0.60
SAME_SHAPES = 0.60
DISTINCT_TRIGRAMS = 0.30
COPIED = 0.60
#: A class of which this share of answers is predictable by its text is predictable.
SAMPLE_SHARE = 0.5

#: A ratio falls as a text grows: it is taken over windows of about 512 tokens, and the median counts.
WINDOW_CHARS = 2048
_LEAST_CHARS = 400
_LEAST_LINES = 8
_LEAST_WORDS = 60
_GRAM = 8

_SPACES = re.compile(r"[ \t]+")
_DIGITS = re.compile(r"\d+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
# A name of two words is as good as a name of one, an address as good as another; "1. " keeps its dot.
_FIELD = re.compile(r"[-+]?\w+(?:(?:[ '_-]+|\.(?=\w))\w+)*")


class TextSignals(Record):
    """What a text shows. None: too short to say.

    zlib_ratio: compressed / plain bytes. same_lines: share of lines that are the previous one once digits are masked;
    same_shapes: once words are masked too. distinct_trigrams: of masked tokens. copied: share of the text's 8-grams
    that stand in what the model was given, or stood in the text before.
    """

    chars: int
    zlib_ratio: float | None = None
    same_lines: float | None = None
    same_shapes: float | None = None
    distinct_trigrams: float | None = None
    copied: float | None = None


class FlagReason(Record):
    """One rule that held: what was seen and from where on it holds."""

    code: Code
    value: float
    threshold: float

    def __str__(self) -> str:
        return f"{self.code} {self.value:.2f} ({self.threshold:g})"


class PredictableFlag(Record):
    """The verdict; reasons in the order of the rules."""

    predictable: bool
    reasons: tuple[FlagReason, ...] = ()


def text_signals(text: str, prompt: str | None = None) -> TextSignals:
    """Measure an answer's text. prompt: what the model was given; None: copying is not looked for."""
    windows = _windows(text)
    return TextSignals(
        chars=len(text),
        zlib_ratio=_median(_zlib_ratio, windows),
        same_lines=_median(lambda window: _repeats(window, _masked_line), windows),
        same_shapes=_median(lambda window: _repeats(window, _shape), windows),
        distinct_trigrams=_median(_distinct_trigrams, windows),
        copied=None if prompt is None else _copied(text, prompt),
    )


def flag(
    text: TextSignals | None = None,
    *,
    acceptance: float | None = None,
    last_position: float | None = None,
    tokens_per_step: float | None = None,
    depth: float | None = None,
) -> PredictableFlag:
    """Judge one answer, or a block by its counters. depth: tokens that the drafter proposes a step, k.

    What is None is not looked at: no counters, no text.
    """
    found: list[FlagReason] = []

    def at_least(code: Code, value: float | None, threshold: float) -> None:
        if value is not None and value >= threshold:
            found.append(FlagReason(code=code, value=round(value, 4), threshold=round(threshold, 4)))

    def below(code: Code, value: float | None, threshold: float) -> None:
        if value is not None and value < threshold:
            found.append(FlagReason(code=code, value=round(value, 4), threshold=threshold))

    at_least("acceptance", acceptance, ACCEPTANCE)
    at_least("last-position", last_position, LAST_POSITION)
    if depth is not None and depth > 0:
        at_least("tokens-per-step", tokens_per_step, TOKENS_PER_STEP_SHARE * (depth + 1))
    if text is not None:
        below("compresses", text.zlib_ratio, ZLIB_RATIO)
        at_least("same-lines", text.same_lines, SAME_LINES)
        at_least("same-shapes", text.same_shapes, SAME_SHAPES)
        below("few-trigrams", text.distinct_trigrams, DISTINCT_TRIGRAMS)
        at_least("copies-prompt", text.copied, COPIED)
    return PredictableFlag(predictable=bool(found), reasons=tuple(found))


def _windows(text: str) -> list[str]:
    """Consecutive windows of the same length; the rest is dropped unless it is all there is."""
    whole = [text[i : i + WINDOW_CHARS] for i in range(0, len(text) - WINDOW_CHARS + 1, WINDOW_CHARS)]
    return whole or [text]


def _median(measure: Callable[[str], float | None], windows: Sequence[str]) -> float | None:
    values = [value for value in map(measure, windows) if value is not None]
    return round(statistics.median(values), 4) if values else None


def _zlib_ratio(window: str) -> float | None:
    # Indentation is a token or none: without this, deeply nested code compresses like a table.
    data = _SPACES.sub(" ", window).encode()
    return len(zlib.compress(data, 6)) / len(data) if len(data) >= _LEAST_CHARS else None


def _masked_line(line: str) -> str:
    return _DIGITS.sub("0", line)


def _shape(line: str) -> str | None:
    """What stands between words and numbers; None for a line of words alone, which says nothing of its shape."""
    shape = _FIELD.sub("a", line)
    return shape if len(shape) >= 3 else None


def _repeats(window: str, form: Callable[[str], str | None]) -> float | None:
    lines = [form(line.strip()) for line in window.splitlines() if line.strip()]
    if len(lines) < _LEAST_LINES:
        # A long text of few lines has none that repeat; of a short one nothing can be said.
        return 0.0 if len(window) >= _LEAST_CHARS else None
    same = sum(now is not None and now == before for before, now in pairwise(lines))
    return same / (len(lines) - 1)


def _distinct_trigrams(window: str) -> float | None:
    tokens = _TOKEN.findall(_DIGITS.sub("0", window))
    if len(tokens) < _LEAST_WORDS:
        return None
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return len(set(grams)) / len(grams)


def _copied(text: str, prompt: str) -> float | None:
    words = text.split()
    if len(words) < _LEAST_WORDS // 2:
        return None
    given = _grams(prompt.split())
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return round(sum(gram in given for gram in grams) / len(grams), 4)


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)}
