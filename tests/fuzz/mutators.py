"""What happens to the output of a host: cut, reordered, in another language, of other types, hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

#: No input is longer than what a node may answer with.
LARGEST = 1 << 20
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORDS = {
    "yes": ("oui", "ja"),
    "no": ("non", "nein"),
    "Speed": ("Vitesse", "Geschwindigkeit"),
    "Unknown!": ("Inconnu!", "Unbekannt!"),
    "packets transmitted": ("paquets transmis", "Pakete übertragen"),
    "received": ("reçus", "empfangen"),
    "error": ("erreur", "Fehler"),
    "Available": ("Disponible", "Verfügbar"),
    "state": ("état", "Zustand"),
    "not found": ("introuvable", "nicht gefunden"),
    "Mar": ("mars", "Mär"),
    "Dec": ("déc.", "Dez"),
}
_ODD = ("\0", "�", "\x1e", "\x85", "\u2028", "\r", "\t", "\x1b[31m", "٣", "²", "½", "\ud800", "🦀", "\ufeff", '"', "=")
_HUGE = (
    "9" * 400,
    "9" * 5000,
    "-1",
    "0",
    "1e999",
    "NaN",
    "Infinity",
    "-0",
    "0x1f",
    "1_000",
    "\uff11\uff12",
    "٣",
    "18446744073709551616",
)
_SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    {},
)


def cut(rng: Random, text: str) -> str:
    """The end, the beginning or the middle is missing."""
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return rng.choice((text[:a], text[b:], text[:a] + text[b:], text[a:b]))


def line_ends(rng: Random, text: str) -> str:
    """The line ends of another system, or none."""
    return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", " ", "", "\\n", "\x0b")))


def other_locale(rng: Random, text: str) -> str:
    """Decimal commas, digits in groups, French or German words."""
    if rng.random() < 0.6:
        text = re.sub(r"(\d)\.(\d)", r"\1,\2", text)
    if rng.random() < 0.3:
        text = re.sub(r"(\d)(\d{3})\b", "\\1\u202f\\2", text)
    language = rng.randrange(2)
    for word, others in _WORDS.items():
        text = text.replace(word, others[language])
    return text


def rows(rng: Random, text: str) -> str:
    """Rows in another order, twice, missing, or their columns in another order."""
    lines = text.split("\n")
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(lines)
    elif how == 1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    elif how == 2:
        del lines[rng.randrange(len(lines))]
    else:
        at = rng.randrange(len(lines))
        words = lines[at].split(" " if how == 3 else rng.choice(",:=\t;|"))
        rng.shuffle(words)
        lines[at] = " ".join(words)
    return "\n".join(lines)


def odd_characters(rng: Random, text: str) -> str:
    """Characters that no program should print here, a few of them."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(_ODD) + text[at + rng.randrange(2) :]
    return text


def numbers(rng: Random, text: str) -> str:
    """A number is huge, negative, not finite, or no number."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text + rng.choice(_HUGE)
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(_HUGE) + text[match.end() :]


def words(rng: Random, text: str) -> str:
    """A word is missing, there twice, or another word of the same text."""
    parts = re.split(r"(\W+)", text[:8192])
    at = rng.randrange(len(parts))
    parts[at] = rng.choice(("", parts[at] * 2, rng.choice(parts)))
    return "".join(parts) + text[8192:]


def hostile(rng: Random, text: str) -> str:
    """Long, deep, or made to make a pattern or a reader of documents slow."""
    size = rng.choice((100, 2000, 20000))
    how = rng.randrange(9)
    if how == 0:
        return "[" * size + rng.choice(("", "]" * size))
    if how == 1:
        return '{"a":' * size
    if how == 2:
        at = rng.randrange(len(text) + 1)
        return text[:at] + rng.choice(" \t\n=:,.-0aA/") * size + text[at:]
    if how == 3:
        line = rng.choice(text.split("\n")) or "x"
        return (line + "\n") * (size // 20)
    if how == 4:
        return "a: &a [x]\n" + "".join(
            f"b{i}: &b{i} [*{'a' if i == 0 else f'b{i - 1}'}, *a]\n" for i in range(min(size, 60))
        )
    if how == 5:
        return "a: &a\n  b: *a\n"
    if how == 6:
        return text.replace(" ", " " * min(size, 400))
    return text * rng.randrange(2, 6) if len(text) < 4096 else text[:1]


def nothing(rng: Random, text: str) -> str:
    """Nothing, or next to nothing."""
    return rng.choice(
        ("", "\n", " ", "\0", "null", "[]", "{}", "0", '""', "[[]]", "[null]", text[:1], text.strip()[:2])
    )


def other_types(rng: Random, text: str) -> str:
    """JSON of another shape: one value of another type, a key away, a value twice. One object a line is understood."""
    lines = text.split("\n") if text.count("\n{") else [text]
    at = rng.randrange(len(lines))
    try:
        document = json.loads(lines[at])
    except (ValueError, RecursionError):
        return odd_characters(rng, text)
    lines[at] = json.dumps(_changed(rng, document, text))
    return "\n".join(lines)


def _changed(rng: Random, document: Any, text: str) -> Any:
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        here = waiting.pop()
        items = (
            list(here.items()) if isinstance(here, dict) else list(enumerate(here)) if isinstance(here, list) else []
        )
        places += [(here, key) for key, _ in items]
        waiting += [value for _, value in items]
    if not places:
        return rng.choice(_SCALARS)
    for _ in range(rng.randrange(1, 3)):
        owner, key = rng.choice(places)
        how = rng.randrange(4)
        try:
            if how == 0 and isinstance(owner, dict):
                del owner[key]
            elif how == 1 and isinstance(owner, list):
                owner.append(owner[key])
            elif how == 2:
                owner[key] = rng.choice(([owner[key]], {"x": owner[key]}, str(owner[key]), text[:20]))
            else:
                owner[key] = rng.choice(_SCALARS)
        except (KeyError, IndexError):
            continue
    try:
        json.dumps(document)
    except (ValueError, RecursionError):  # an object within itself
        return rng.choice(_SCALARS)
    return document


MUTATORS: tuple[tuple[int, Callable[[Random, str], str]], ...] = (
    (5, cut),
    (2, line_ends),
    (2, other_locale),
    (4, rows),
    (4, odd_characters),
    (4, numbers),
    (4, words),
    (1, hostile),
    (1, nothing),
    (6, other_types),
)
_WEIGHTS = [weight for weight, _ in MUTATORS]
_CHANGES = [change for _, change in MUTATORS]


def mutate(rng: Random, seed: str, others: Sequence[str] = ()) -> str:
    """A seed with one to three changes, now and then spliced with another seed."""
    text = seed[:LARGEST]
    if others and rng.random() < 0.05:
        other = rng.choice(others)
        text = text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choices(_CHANGES, _WEIGHTS)[0](rng, text)[:LARGEST]
    return text
