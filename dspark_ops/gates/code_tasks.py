"""Functions to be written, each with a reference of our own and tests with random data.

The numbers and the name are drawn, so that the answer is no text that a model has seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from dspark_ops.gates import words
from dspark_ops.gates.case import ExpectedCode

# One task: its words, its source (both with {f} the name and {a}, {b} the drawn numbers), its meaning here, its data.
_Meaning = Callable[[int, int], Callable[..., Any]]
_Data = Callable[[random.Random, int, int], tuple[Any, ...]]


# So many that each edge is among them, nearly always.
_CALLS = 16


def _integers(rng: random.Random, a: int, b: int) -> tuple[Any, ...]:
    """Half of them lie where a slip of one shows: at the drawn numbers, their sum and their multiples."""
    edges = [n + d for n in (a, b, 2 * b, a + b) for d in (-1, 0, 1)]
    return ([rng.choice(edges) if rng.random() < 0.5 else rng.randrange(-50, 200) for _ in range(rng.randrange(15))],)


def _text(rng: random.Random, a: int, b: int) -> tuple[Any, ...]:  # noqa: ARG001 - one signature for all data
    return (" ".join(words.names(rng, rng.randrange(1, 7))),)


def _weigh(a: int, b: int) -> Callable[..., Any]:
    return lambda values: sum(v * a if v % b == 0 else v for v in values)


def _rotate(a: int, b: int) -> Callable[..., Any]:
    def meaning(values: Sequence[int]) -> list[int]:
        by = a % len(values) if values else 0
        return [*values[by:], *values[:by], b]

    return meaning


def _count(a: int, b: int) -> Callable[..., Any]:
    return lambda values: {"low": sum(v < a for v in values), "high": sum(v >= a + b for v in values)}


def _lengths(a: int, b: int) -> Callable[..., Any]:
    return lambda text: [len(w) * a + b for w in text.split()]


def _chunks(a: int, b: int) -> Callable[..., Any]:
    size = a % 4 + 2
    return lambda values: [sum(values[n : n + size]) + b for n in range(0, len(values), size)]


def _mask(a: int, b: int) -> Callable[..., Any]:
    return lambda text: "".join(str(b % 10) if n % a == a - 1 else c for n, c in enumerate(text))


_TASKS: tuple[tuple[str, str, _Meaning, _Data], ...] = (
    (
        "takes a list of integers and returns their sum, where each integer that is divisible by {b} counts {a} times",
        "def {f}(values):\n    return sum(v * {a} if v % {b} == 0 else v for v in values)\n",
        _weigh,
        _integers,
    ),
    (
        (
            "takes a list of integers and returns a new list: the values rotated to the left by {a} places (by {a} "
            "modulo the length; an empty list stays empty), with the integer {b} appended at the end"
        ),
        (
            "def {f}(values):\n    if not values:\n        return [{b}]\n    by = {a} % len(values)\n"
            "    return list(values[by:]) + list(values[:by]) + [{b}]\n"
        ),
        _rotate,
        _integers,
    ),
    (
        (
            "takes a list of integers and returns a dictionary with two keys: 'low', the number of values below {a}, "
            "and 'high', the number of values that are at least {a} plus {b}"
        ),
        (
            "def {f}(values):\n    low = sum(1 for v in values if v < {a})\n"
            "    high = sum(1 for v in values if v >= {a} + {b})\n    return {{'low': low, 'high': high}}\n"
        ),
        _count,
        _integers,
    ),
    (
        (
            "takes a string and returns a list with one integer per word (words are separated by blanks): the word's "
            "length times {a}, plus {b}"
        ),
        "def {f}(text):\n    return [len(word) * {a} + {b} for word in text.split()]\n",
        _lengths,
        _text,
    ),
    (
        (
            "takes a list of integers, cuts it from the left into runs of {size} values (the last may be shorter) and "
            "returns the list of the sums of the runs, {b} added to each sum; an empty list gives an empty list"
        ),
        (
            "def {f}(values):\n    size = {size}\n"
            "    return [sum(values[i:i + size]) + {b} for i in range(0, len(values), size)]\n"
        ),
        _chunks,
        _integers,
    ),
    (
        (
            "takes a string and returns it with every {a}th character (the {a}th, the {twice}th and so on, blanks "
            "counted) replaced by the digit {digit}"
        ),
        "def {f}(text):\n    return ''.join('{digit}' if i % {a} == {a} - 1 else c for i, c in enumerate(text))\n",
        _mask,
        _text,
    ),
)


def code_task(rng: random.Random) -> tuple[str, ExpectedCode]:
    """The user's words and the expectation: data for some calls with their results."""
    text, source, meaning, data = rng.choice(_TASKS)
    a, b, function = rng.randrange(4, 20), rng.randrange(3, 30), f"{words.name(rng)}_{words.hexadecimal(rng, 3)}"
    values = {"f": function, "a": a, "b": b, "size": a % 4 + 2, "twice": 2 * a, "digit": b % 10}
    drawn = tuple(data(rng, a, b) for _ in range(_CALLS))
    arguments = (tuple(type(value)() for value in drawn[0]), *drawn)
    right = meaning(a, b)
    expected = ExpectedCode(
        function=function,
        arguments=arguments,
        results=tuple(right(*given) for given in arguments),
        reference=source.format_map(values),
    )
    asked = (
        f"Write a Python function `{function}` that {text.format_map(values)}. It uses the standard library at most "
        "and does not print. Do not call any tool. Answer with one fenced Python block that holds the function, "
        "nothing else."
    )
    return asked, expected
