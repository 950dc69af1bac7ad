"""Random identifiers and values: nothing that a model could know by heart."""

from __future__ import annotations

import random
import uuid
from datetime import date, timedelta

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "l", "n", "r", "s", "x", "nd", "rk")
_HEX = "0123456789abcdef"


def name(rng: random.Random, syllables: int = 2) -> str:
    """A pronounceable word that is in no dictionary, most likely."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))


def names(rng: random.Random, number: int, syllables: int = 2) -> tuple[str, ...]:
    """`number` different ones."""
    found: dict[str, None] = {}
    while len(found) < number:
        found[name(rng, syllables)] = None
    return tuple(found)


def hexadecimal(rng: random.Random, digits: int) -> str:
    """Lower-case digits."""
    return "".join(rng.choice(_HEX) for _ in range(digits))


def code(rng: random.Random) -> str:
    """A code in groups, as people read them out: `7f3a-09bd-c41e`."""
    return "-".join(hexadecimal(rng, 4) for _ in range(3))


def random_uuid(rng: random.Random) -> str:
    """A version 4 UUID of this generator, not of the machine."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def day(rng: random.Random) -> str:
    """An ISO date within some decades from 2027."""
    return (date(2027, 1, 1) + timedelta(days=rng.randrange(9000))).isoformat()
