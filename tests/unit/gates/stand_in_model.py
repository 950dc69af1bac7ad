"""A language model of pocket size in place of the one under test: words after words, and words of the prompt.

It stands in for an engine's own re-scoring: an interpolated trigram of right answers of one kind, with a share for
copying. It is far weaker than any real model, and it knows the form of the answers far better than its size deserves.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_TOKEN = re.compile(r"\w+|[^\w\s]|\n")
_BEGIN = ("<1>", "<2>")
_SHARES = (0.55, 0.2, 0.09, 0.15, 0.01)
_VOCABULARY = 50_000


class StandIn:
    """Learns texts, then scores others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._ones: Counter[str] = Counter()
        self._twos: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._threes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for text in texts:
            before = list(_BEGIN)
            for token in map(shape, _TOKEN.findall(text)):
                self._ones[token] += 1
                self._twos[before[1]][token] += 1
                self._threes[before[0], before[1]][token] += 1
                before = [before[1], token]
        self._total = sum(self._ones.values())

    def score(self, text: str, prompt: str = "") -> tuple[float, ...]:
        """The log-probability of each token of `text`, after a prompt whose words it may copy."""
        known = Counter(map(str.lower, _TOKEN.findall(prompt)))
        before, values = list(_BEGIN), []
        copies = sum(known.values())
        for raw in _TOKEN.findall(text):
            token = shape(raw)
            three, two = self._threes.get((before[0], before[1])), self._twos.get(before[1])
            parts = (
                three[token] / three.total() if three else 0.0,
                two[token] / two.total() if two else 0.0,
                self._ones[token] / self._total,
                # A word of the prompt is copied in one go by a model that attends; two hundred places to choose from.
                min(1.0, max(known[raw.lower()] / copies, 0.2)) if copies and known[raw.lower()] else 0.0,
                1 / _VOCABULARY,
            )
            values.append(math.log(sum(share * part for share, part in zip(_SHARES, parts, strict=True))))
            before = [before[1], token]
        return tuple(values)


def shape(token: str) -> str:
    """Numbers and codes are alike to it; a model copies them from its prompt."""
    return "<number>" if any(c.isdigit() for c in token) else token
