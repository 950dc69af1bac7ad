"""Every kind of garble that was seen in the field, planted in a right answer at every place where it was seen."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Literal

from dspark_ops.gates.case import Case, ExpectedOrder, ExpectedReport, ExpectedValue

Place = Literal["instead", "front", "middle", "end"]
_ANY: tuple[Place, ...] = ("instead", "front", "middle", "end")

_BAR = "\uff5c"
_CJK = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动"
_SALAD = """
gradient umbrella thereof quickly bishop notwithstanding oblique tuning mauve hence porcelain fetch downstream
vortex whom barely syntax lantern precisely moreover kernel yet harvest between octave render sideways although
amber protocol sing threshold furthermore velvet cache river compile sorrow under matrix gallop theorem bread
"""
_PROSE = """
the report lists each host with its load and the owner of the shift adds a note before the copy is kept for a year while
the second reading of the meter is sent to the office and a new entry stands below the first one in the list
"""

Make = Callable[[Case, random.Random], str]


def _loop(words: int, copies: int) -> Make:
    return lambda _, rng: " ".join(rng.sample(_PROSE.split(), words) * copies)


def _xml(case: Case, rng: random.Random) -> str:
    name = rng.choice(case.request.tools)["function"]["name"] if case.request.tools else "lookup"
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"path": "a"}}}}\n</tool_call>'


def _schemas(case: Case, rng: random.Random) -> str:
    first = rng.randrange(max(1, len(case.request.tools) - 2))
    return json.dumps(list(case.request.tools[first : first + 2]), indent=rng.choice((None, 2)))


def _narration(case: Case, rng: random.Random) -> str:
    words = case.request.messages[0]["content"].split()
    start = rng.randrange(1, max(2, len(words) - 60))
    return f"As an assistant I am told the following about my work. {' '.join(words[start : start + 60])}"


def _salad(_: Case, rng: random.Random) -> str:
    return " ".join(rng.choices(_SALAD.split(), k=rng.randrange(24, 60))).capitalize()


#: Name -> what is planted, where.
ROWS: dict[str, tuple[Make, tuple[Place, ...]]] = {
    "char run x40": (lambda _, rng: rng.choice("!?0aZ") * 40, _ANY),
    "8-word loop x6": (_loop(8, 6), _ANY),
    "30-word loop x5": (_loop(30, 5), _ANY),
    "30 CJK characters": (lambda _, rng: "".join(rng.choices(_CJK, k=30)), _ANY),
    "6 CJK characters": (lambda _, rng: "".join(rng.choices(_CJK, k=6)), _ANY),
    "DSML close-tag leak": (lambda _, __: f"</{_BAR}DSML{_BAR}parameter>\n</{_BAR}DSML{_BAR}invoke>", _ANY),
    "tool-call XML leak": (_xml, _ANY),
    "leading BOS token": (lambda _, __: f"<{_BAR}begin\u2581of\u2581sentence{_BAR}>", ("front",)),
    'opening "\'s, and tools."': (lambda _, __: "'s, and tools.", ("front",)),
    "mid-word opening": (lambda _, rng: rng.choice(("tion of the", "ategory of", "mber of entries in")), ("front",)),
    "JSON schema dump": (_schemas, _ANY),
    "word salad": (_salad, _ANY),
    "prompt narration": (_narration, _ANY),
    "empty": (lambda _, __: "", ("instead",)),
    "wrong but fluent": (lambda _, __: "", ("middle",)),
}


def garble(row: str, place: Place, right: str, case: Case, rng: random.Random) -> str:
    """The right answer with this garble at this place."""
    if row == "wrong but fluent":
        return wrong_but_fluent(right, case)
    piece = ROWS[row][0](case, rng)
    if place == "instead":
        return piece
    if place == "front":
        return f"{piece}{rng.choice((' ', chr(10)))}{right}"
    if place == "end":
        return f"{right}{rng.choice((' ', chr(10)))}{piece}"
    gaps = [match.start() for match in re.finditer(r"\s", right)] or [len(right) // 2]
    at = rng.choice(gaps)
    return f"{right[:at]} {piece}{right[at:]}"


def wrong_but_fluent(right: str, case: Case) -> str:
    """Another value in the same form; in a text without an oracle nothing that anyone could see."""
    match case.expected:
        case ExpectedOrder():
            first, second = (str(value) for value in case.expected.values[3:5])
            return right.replace(first, "\0").replace(second, first).replace("\0", second)
        case ExpectedValue() | ExpectedReport():
            value = case.expected.value
            other = f"{value[:-1]}{(int(value[-1], 16) + 1) % 10}"
            return right.replace(f": {value}", f": {other}")
        case _:
            last = list(re.finditer(r"(?<![\w-])\d+(?![\w-])", right))[-1]
            return f"{right[: last.start()]}{int(last.group()) + 1}{right[last.end() :]}"
