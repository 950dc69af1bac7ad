"""Random identifiers, words and numbers: what keeps a prompt out of anything a model was trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _split_at_commas(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


_ONSETS = _listed("b br c cl d dr f fl g gr h j k kr l m n p pl qu r s sk st t tr v w z")
_VOWELS = _listed("a e i o u ai ea io ou")
_CODAS = ["", "", "l", "m", "n", "r", "s", "t", "nd", "rk", "st", "x"]

ROLES = _listed("pump valve ledger relay sensor parcel manifest vineyard turbine crate beacon granary furnace harbour")
FIELDS = _listed("weight voltage priority latency balance depth humidity rank torque volume span score budget width")
PLACES = _split_at_commas("north yard, lower dock, east hall, old mill, river gate, upper store, salt works, long barn")
DOINGS = _listed("checked moved sealed weighed cleaned counted opened repaired painted emptied logged signed tested")


class Names:
    """Draws from one generator; never the same name twice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._given: set[str] = set()

    def word(self, syllables: int = 2) -> str:
        """A made-up word in small letters."""
        for _ in range(6):
            word = "".join(
                self.rng.choice(_ONSETS) + self.rng.choice(_VOWELS) + self.rng.choice(_CODAS) for _ in range(syllables)
            )
            if word not in self._given:
                self._given.add(word)
                return word
        return self.word(syllables + 1)

    def words(self, count: int, syllables: int = 2) -> list[str]:
        """Several, all different."""
        return [self.word(syllables) for _ in range(count)]

    def name(self) -> str:
        """A made-up proper name."""
        return self.word().capitalize()

    def identifier(self) -> str:
        """As in a program: two parts and an underscore."""
        return f"{self.word()}_{self.word(1)}"

    def code(self) -> str:
        """A tag as on a crate, for example KRE-4821."""
        return f"{self.word(1)[:3].upper()}-{self.rng.randint(1000, 9999)}"

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self.rng.randint(low, high)

    def pick(self, items: Sequence[str]) -> str:
        """One of them."""
        return self.rng.choice(items)

    def several(self, items: Sequence[str], count: int) -> list[str]:
        """Some of them, all different."""
        return self.rng.sample(list(items), count)


def note(names: Names) -> str:
    """One sentence of a work log about things that do not exist."""
    shape = names.number(0, 5)
    who, thing = names.name(), names.pick(ROLES)
    where, did, code = names.pick(PLACES), names.pick(DOINGS), names.code()
    field, value = names.pick(FIELDS), names.number(3, 9800)
    return (
        f"{who} {did} {thing} {code} in the {where}; its {field} was {value}.",
        f"At the {where}, {thing} {code} waits for {who}, who wants its {field} above {value}.",
        f"Nobody {did} the {thing} called {names.word()} since {who} left the {where} on day {value}.",
        f"The {field} of {code} went from {value} to {names.number(3, 9800)} while {who} {did} another {thing}.",
        f"{who} asks why the {where} has {names.number(2, 40)} of them when {thing} {code} alone gives {value}.",
        f"Before {names.name()} {did} it, the {thing} {code} had a {field} of {value} and no label.",
    )[shape]


def notes(names: Names, chars: int) -> str:
    """Sentences in paragraphs, about as many characters as asked for."""
    paragraphs: list[str] = []
    made = 0
    while made < chars:
        sentences: list[str] = []
        for _ in range(6):
            if made >= chars:
                break
            sentences.append(note(names))
            made += len(sentences[-1]) + 1
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)
