"""Small wrongs of a PromQL expression: a comparison turned round, a bound moved, a term left out. Pure.

No parser: the expression is cut into words, and words into groups by their brackets. That is enough for rules that are
written one term a line, and what is cut wrongly does not load, which a test of the mutants would show as noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WORD = re.compile(
    r"""
    "(?:\\.|[^"\\])*"            # text
    | \[[^\]]*\]                  # a range
    | [A-Za-z_:][A-Za-z0-9_:]*    # a name, an operator in words
    | \d+(?:\.\d+)?(?:e[+-]?\d+)? # a number
    | =~|!~|==|!=|>=|<=|[<>=(){},+\-*/]
    """,
    re.VERBOSE,
)
_TURNED = {">": "<", "<": ">", ">=": "<", "<=": ">", "==": "!=", "!=": "=="}
_SWAPPED = {"+": "-", "-": "+", "*": "/", "/": "*"}
_SETS = {"and": "or", "or": "and", "unless": "and"}
_MODIFIERS = ("on", "ignoring", "group_left", "group_right")


@dataclass(frozen=True)
class Mutant:
    """One wrong expression and what is wrong with it."""

    what: str
    expr: str


def mutants(expr: str) -> list[Mutant]:
    """All of them, each once; none is the expression itself."""
    words = _WORD.findall(expr)
    found = [
        Mutant("it always fires", "vector(1)"),
        Mutant("it never fires", "vector(1) > 1"),
        *_comparisons(words),
        *_operators(words),
        *_terms(words),
        *_matchers(words),
    ]
    own = " ".join(words)
    unique = {mutant.expr: mutant for mutant in found if mutant.expr not in (own, expr.strip())}
    return list(unique.values())


def _comparisons(words: Sequence[str]) -> Iterator[Mutant]:
    for place in _outside_braces(words):
        word = words[place]
        if word not in _TURNED:
            continue
        yield Mutant(f"{word} is {_TURNED[word]}", _with(words, place, _TURNED[word]))
        bound = words[place + 1]
        if not re.fullmatch(r"[\d.e+-]+", bound):
            continue
        value = float(bound)
        if value == 0 and word == ">":
            yield Mutant("> 0 is >= 0", _with(words, place, ">="))
        if value != 0:
            for factor in (2, 0.5):
                yield Mutant(f"{word} {bound} is {value * factor:g}", _with(words, place + 1, f"{value * factor!r}"))


def _operators(words: Sequence[str]) -> Iterator[Mutant]:
    for place in _outside_braces(words):
        word = words[place]
        for other in (_SWAPPED.get(word), _SETS.get(word)):
            if other is not None:
                yield Mutant(f"{word} (word {place}) is {other}", _with(words, place, other))


def _terms(words: Sequence[str]) -> Iterator[Mutant]:
    """Each operand of and, or, unless left out. What stands before unless is what is told, and stays."""
    for begin, end in _groups(words):
        cuts = [i for i in _level(words, begin, end) if words[i] in _SETS]
        if not cuts:
            continue
        for number, cut in enumerate(cuts):
            stop = cuts[number + 1] if number + 1 < len(cuts) else end
            said = " ".join(words[cut:stop])
            yield Mutant(f"left out: {said}", " ".join([*words[:cut], *words[stop:]]))
        first = cuts[0]
        if words[first] != "unless":
            rest = _after_modifiers(words, first + 1)
            yield Mutant(f"left out: {' '.join(words[begin:first])}", " ".join([*words[:begin], *words[rest:]]))


def _matchers(words: Sequence[str]) -> Iterator[Mutant]:
    """Each matcher between braces left out."""
    for place, word in enumerate(words):
        if word in ("=", "=~", "!~") and place + 1 < len(words) and words[place + 1].startswith('"'):
            begin, end = place - 1, place + 2
            if words[end] == ",":
                end += 1
            elif words[begin - 1] == ",":
                begin -= 1
            kept = " ".join([*words[:begin], *words[end:]]).replace("{ }", "")
            yield Mutant(f"left out: {' '.join(words[place - 1 : place + 2])}", kept)


def _outside_braces(words: Sequence[str]) -> Iterator[int]:
    depth = 0
    for place, word in enumerate(words):
        depth += (word == "{") - (word == "}")
        if depth == 0:
            yield place


def _groups(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The whole, and what stands between each pair of parentheses: first word, and the one after the last."""
    yield 0, len(words)
    open_at: list[int] = []
    for place, word in enumerate(words):
        if word == "(":
            open_at.append(place + 1)
        elif word == ")":
            yield open_at.pop(), place


def _level(words: Sequence[str], begin: int, end: int) -> Iterator[int]:
    """The words of a group that stand in no inner bracket."""
    depth = 0
    for place in range(begin, end):
        depth += (words[place] in "({") - (words[place] in ")}")
        if depth == 0:
            yield place


def _after_modifiers(words: Sequence[str], place: int) -> int:
    while words[place] in _MODIFIERS:
        place += 1
        if words[place] == "(":
            place = words.index(")", place) + 1
    return place


def _with(words: Sequence[str], place: int, word: str) -> str:
    return " ".join([*words[:place], word, *words[place + 1 :]])
