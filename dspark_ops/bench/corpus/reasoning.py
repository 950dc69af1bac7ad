"""Class `reasoning`: problems with one number as their answer, by a longer way, with random operands."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import FIELDS, PLACES, ROLES, Names
from dspark_ops.bench.corpus.template import Asked

_WAY = (
    "Work it out in small steps with every intermediate figure and a sentence on why each step is right, then check "
    "the result by a second way. End with a line `ANSWER: ` and the whole number."
)


def _asked(text: str, answer: int) -> Asked:
    return Asked(f"{text} {_WAY}", Expected(kind="final", values=(str(answer),)), length=1.6)


def stock(names: Names) -> Asked:
    """Additions and removals over several days."""
    level = start = names.number(400, 2000)
    lines = []
    for day in range(1, 9):
        come, gone = names.number(20, 300), names.number(10, 200)
        level += come - gone
        lines.append(f"on day {day} {come} came and {gone} went")
    who = names.name()
    return _asked(
        f"{who} begins with {start} {names.pick(ROLES)}s in the {names.pick(PLACES)}; {'; '.join(lines)}. How many are "
        "there in the end?",
        level,
    )


def product(names: Names) -> Asked:
    """A product and a sum."""
    a, b, c, d = names.number(123, 987), names.number(34, 97), names.number(12, 88), names.number(101, 999)
    return _asked(
        f"A {names.pick(ROLES)} of the kind {names.word()} has a {names.pick(FIELDS)} of {a}, one of the kind "
        f"{names.word()} of {d}. There are {b} of the first and {c} of the second. What is the sum over all of them?",
        a * b + c * d,
    )


def remainder(names: Names) -> Asked:
    """A linear recurrence, modulo something."""
    value, times, plus, modulo = names.number(3, 90), names.number(3, 9), names.number(5, 60), names.number(97, 499)
    begin = value
    for _ in range(10):
        value = (value * times + plus) % modulo
    return _asked(
        f"The counter {names.identifier()} starts at {begin}. In each round it is multiplied by {times}, {plus} is "
        f"added, and the remainder by {modulo} is kept. What does it hold after 10 rounds?",
        value,
    )


def order(names: Names) -> Asked:
    """A constraint puzzle with one solution, asked as a number."""
    people = [names.name() for _ in range(6)]
    ages = names.rng.sample(range(21, 80), 6)
    gaps = [
        f"{people[i + 1]} is {abs(ages[i + 1] - ages[i])} years {'older' if ages[i + 1] > ages[i] else 'younger'} than "
        f"{people[i]}"
        for i in range(5)
    ]
    names.rng.shuffle(gaps)
    return _asked(
        f"{people[0]} is {ages[0]}. {'; '.join(gaps)}. What is the sum of the ages of all six?",
        sum(ages),
    )


def paths(names: Names) -> Asked:
    """Lattice paths past one closed crossing."""
    width, height = names.number(4, 7), names.number(4, 7)
    x, y = names.number(1, width - 1), names.number(1, height - 1)
    ways = [[1] * (width + 1) for _ in range(height + 1)]
    for row in range(height + 1):
        for column in range(width + 1):
            if (column, row) == (x, y):
                ways[row][column] = 0
            elif row or column:
                ways[row][column] = (ways[row - 1][column] if row else 0) + (ways[row][column - 1] if column else 0)
    return _asked(
        f"{names.name()} walks from (0, 0) to ({width}, {height}), always one step east or one step north. The "
        f"crossing ({x}, {y}), called {names.word()}, is closed. How many ways are there?",
        ways[height][width],
    )


def prices(names: Names) -> Asked:
    """Costs with a rebate."""
    items = [(names.word(), names.number(3, 40), names.number(15, 400)) for _ in range(5)]
    limit, off = names.number(40, 200), names.number(2, 14)
    total = sum(count * (price - off if price > limit else price) for _, count, price in items)
    listed = "; ".join(f"{count} of {name} at {price}" for name, count, price in items)
    return _asked(
        f"{names.name()} buys {listed}. For every single piece whose price is above {limit}, {off} is taken off. What "
        "is paid in all?",
        total,
    )


TEMPLATES = (stock, product, remainder, order, paths, prices)
