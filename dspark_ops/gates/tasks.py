"""The questions in words: what the user asks last, and what the one right answer is.

Every task names its answer's form: short, on a labelled line, so that a model follows it and a program reads it.
"""

from __future__ import annotations

import random
from itertools import accumulate
from typing import Any

from dspark_ops.gates import words
from dspark_ops.gates.case import (
    Expected,
    ExpectedJson,
    ExpectedOrder,
    ExpectedReport,
    ExpectedValue,
    TextKind,
)
from dspark_ops.gates.code_tasks import code_task
from dspark_ops.openai_api.model import Record

_PLACES = ("the west cabinet", "bay 4", "the cold store", "the annex", "rack 11", "the lower vault", "the map room")
_STATES = ("is waiting for a second reading", "was closed after the weekly check", "needs a new owner this month")
_EFFECTS = (
    "its counters stay within the agreed range",
    "no client has noticed any change",
    "the old path remains open",
)
_STEPS = ("compare both logs once more", "ask the night shift for a reading", "move the deadline by one day")


class Task(Record):
    """The last user message and its answer.

    fact: a sentence that must stand somewhere in the long text before it; quoted: what the answer gives back verbatim.
    tag: named to the model for a later turn. max_tokens: three times what a right answer takes, or more.
    """

    text: str
    expected: Expected
    max_tokens: int
    fact: str | None = None
    decoys: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    tag: str | None = None


def text_task(kind: TextKind, rng: random.Random) -> Task:
    """A task of this kind with values of its own."""
    return {
        "arithmetic": _arithmetic,
        "needle": _needle,
        "sorting": _sorting,
        "code": code_task_of,
        "json": _json,
        "report": _report,
        "second-turn": _remember,
    }[kind](rng)


def code_task_of(rng: random.Random) -> Task:
    """A function to be written, judged by running it."""
    text, expected = code_task(rng)
    return Task(text=text, expected=expected, max_tokens=700)


def _arithmetic(rng: random.Random) -> Task:
    numbers = [rng.randrange(100, 1000) for _ in range(6)]
    take = rng.randrange(100, min(900, sum(numbers)))
    totals = list(accumulate(numbers))
    steps = [f"{a} + {n} = {t}" for a, n, t in zip(totals, numbers[1:], totals[1:], strict=False)]
    result = totals[-1] - take
    text = (
        f"Add the numbers {', '.join(map(str, numbers))} one after the other, then subtract {take}. Do not call "
        "any tool. Write each step as one line of the form `a + b = c` or `a - b = c`. "
        "The last line is `RESULT: ` and the final number, nothing after it."
    )
    steps.append(f"{totals[-1]} - {take} = {result}")
    expected = ExpectedValue(label="RESULT", value=str(result), integer=True, steps=tuple(steps))
    return Task(text=text, expected=expected, max_tokens=400)


def _needle(rng: random.Random) -> Task:
    archive, *others = words.names(rng, 4)
    places = rng.sample(_PLACES, 4)
    fact, *decoys = (
        f"The access code of the archive {a} in {p} is {words.code(rng)}."
        for a, p in zip((archive, *others), places, strict=True)
    )
    value = fact.rsplit(" ", 1)[1].rstrip(".")
    text = (
        f"Somewhere above, the access code of the archive {archive} is written down. Do not call any tool. "
        "Answer with one line: `CODE: ` and that code, exactly as it is written, nothing else."
    )
    expected = ExpectedValue(label="CODE", value=value)
    return Task(text=text, expected=expected, max_tokens=160, fact=fact, decoys=tuple(decoys))


def _sorting(rng: random.Random) -> Task:
    numbers = rng.sample(range(100, 10000), 12)
    text = (
        f"Sort these numbers from the smallest to the largest: {', '.join(map(str, numbers))}. Do not call any tool. "
        "Answer with one line: `SORTED: ` and all the numbers, separated by commas, nothing else."
    )
    return Task(text=text, expected=ExpectedOrder(label="SORTED", values=tuple(sorted(numbers))), max_tokens=300)


def _json(rng: random.Random) -> Task:
    value = {
        "id": words.random_uuid(rng),
        "owner": words.name(rng, 3),
        "since": words.day(rng),
        "size_bytes": rng.randrange(2**33, 2**40),
        "share": rng.randrange(1, 1000) / 8,
        "open": rng.random() < 0.5,
        "parent": None,
        "labels": list(words.names(rng, 3)),
        "limits": {"low": rng.randrange(100), "high": rng.randrange(100, 1000)},
    }
    lines = "\n".join(f"- {key}: {_spoken(item)}" for key, item in value.items())
    text = (
        f"Write one JSON object with exactly these keys and values:\n{lines}\n"
        "Answer with the JSON document alone. Do not call any tool, and add no key of your own."
    )
    return Task(text=text, expected=ExpectedJson(value=value), max_tokens=500)


def _spoken(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value}"
        case list():
            return f"an array of the strings {', '.join(value)}, in this order"
        case _:
            return "an object with " + " and ".join(f"{k} the number {v}" for k, v in value.items())


def _report(rng: random.Random) -> Task:
    tickets = [f"{a.upper()[:4]}-{rng.randrange(1000, 10000)}" for a in words.names(rng, 6)]
    owners, value = words.names(rng, 6), words.code(rng)
    lines = [
        f"Ticket {t}, held by {o}, {rng.choice(_STATES)}, so that {rng.choice(_EFFECTS)}; {rng.choice(_STEPS)}."
        for t, o in zip(tickets, owners, strict=True)
    ]
    listed = "; ".join(f"{t} (owner {o})" for t, o in zip(tickets, owners, strict=True))
    text = (
        f"Write a short status report on six tickets: {listed}. Invent a plausible state and a next step for each. "
        "Write exactly six numbered lines (`1.` to `6.`), one ticket on each in the order given, with its number and "
        "its owner, as one sentence of 12 to 35 words. Do not call any tool, no headings. "
        f"After them, as the last line, write `REPORT: {value}`."
    )
    expected = ExpectedReport(subjects=tuple(tickets), sentences=tuple(lines), label="REPORT", value=value)
    return Task(text=text, expected=expected, max_tokens=700)


def _remember(rng: random.Random) -> Task:
    tag, ticket = words.code(rng), words.code(rng)
    text = (
        f"The tag of this session is {tag}. Keep it in mind, it is asked for later; do not repeat it now. "
        f"Do not call any tool. Answer with one line: `READY: {ticket}`."
    )
    return Task(text=text, expected=ExpectedValue(label="READY", value=ticket), max_tokens=120, tag=tag)


def second_question(tag: str) -> Task:
    """What the second turn asks: the tag that the first one gave."""
    text = (
        "Which tag did I give to this session at the start? Do not call any tool. "
        "Answer with one line: `TAG: ` and the tag, nothing else."
    )
    return Task(text=text, expected=ExpectedValue(label="TAG", value=tag), max_tokens=120)
