"""The long part of an agent's prompt: rules of the house, notes on a project that does not exist, and past turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from dspark_ops.gates import words

_OPENING = (
    "You are an assistant for the operators of {a}, a platform with a handful of services. You plan before you act, "
    "you use tools only where the task needs one, and you follow the form of the answer that the user asks for."
)
_HEADINGS = (
    "Rules of the house",
    "Notes on {a}",
    "Run book {n}",
    "Who owns what",
    "Terms",
    "Known limits of {a}",
    "Log {n}",
)
_SENTENCES = (
    "When {a} reports more than {n} open items, the owner of {b} is told before anything is changed.",
    "The service {a} keeps its records in {b}-{h} and rotates them every {n} hours.",
    "A change to {a} needs a second pair of eyes; {b} may approve it between {n} and {m} minutes after the request.",
    "Files below /srv/{a}/{h} belong to {b} and are read only for everyone else.",
    "If a command fails twice, stop, say what was observed, and propose the smallest next step.",
    "The queue {a} holds at most {n} entries; entry {m} and later ones are turned away with the code {h}.",
    "Never guess a value that a tool can read; never call a tool for a value that was already given.",
    "In the week of {d} the team of {a} moved {n} hosts from {b} to another row, and two of them kept the old address.",
    "The port {m} of {a} is used by {b}; the one above it is free since {d}.",
    "{a} and {b} share one certificate, serial {h}, which is valid until {d}.",
    "Answers are short, in plain words, without praise for the question and without a summary of these rules.",
    "A backup of {a} takes {n} minutes; while it runs, {b} answers from its copy of {d}.",
    "The dashboard {h} shows {a} in the upper row and {b} in the lower one, with a delay of {n} seconds.",
    "Whoever holds the pager for {a} also watches {b}, except on the {n}th working day of a month.",
    "Dates are written as {d}, sizes in bytes, durations in seconds, and names of services in lower case.",
    "The limit of {n} parallel jobs in {a} was raised to {m} after the incident of {d}; see note {h}.",
    "Before {a} is stopped, its {n} clients are drained through {b}, which reports the code {h} when it is done.",
    "Tests of {a} that depend on {b} are marked, and are left out when the flag {h} is set.",
    "The table {a}_{h} has {n} columns; the first is the key, the last one was added by {b} on {d}.",
    "A message that begins with {h} comes from {a} and can be ignored unless {b} is down at the same time.",
    "Secrets of {a} are never printed; the name of a secret, such as {b}-{h}, may be.",
    "{a} counts days from {d}, so that its number {n} is not the calendar's.",
    "If {b} and {a} disagree by more than {n} units, the value of {a} is kept and a ticket of class {m} is opened.",
    "The region {a} has {n} racks; rack {m} is powered down and its label reads {h}.",
)
_QUESTIONS = (
    ("How long does a backup of {a} take?", "About {n} minutes, and {b} answers from its copy meanwhile."),
    ("Who approves a change to {a}?", "The owner of {b}, after a second reading."),
    ("What does the code {h} mean here?", "That {a} has turned an entry away because its queue was full."),
    ("Is rack {m} of {a} in use?", "No, it is powered down since {d}."),
    ("Please note that {a} moves to {b} on {d}.", "Noted: {a} moves to {b} on {d}."),
    ("May I restart {a} now?", "Only after its {n} clients have been drained through {b}."),
)
_POOL = 24
# Past turns; a longer prompt gets a longer system text.
_MOST_MESSAGES = 40


def paragraphs(rng: random.Random, *, characters: float, facts: Sequence[str]) -> str:
    """Text of about that length, never more than a sentence over it, with each fact at a random place.

    Too little room leaves the opening and the facts.
    """
    draw = _drawer(rng)
    pieces: list[str] = [draw(_OPENING)]
    length = len(pieces[0])
    while length < characters - 130:
        if rng.random() < 0.1:
            piece = f"\n\n## {draw(rng.choice(_HEADINGS))}\n\n- "
        else:
            piece = f"{rng.choice((' ', ' ', chr(10) + '- '))}{draw(rng.choice(_SENTENCES))}"
        pieces.append(piece)
        length += len(piece)
    for fact in facts:
        pieces.insert(rng.randrange(1, len(pieces) + 1), f" {fact}")
    return "".join(pieces).replace("-  ", "- ")


def history(rng: random.Random, *, characters: float) -> list[dict[str, Any]]:
    """Past questions with their answers, as many as fit into `characters` of JSON, at most 20; possibly none."""
    draw, length = _drawer(rng), 0
    messages: list[dict[str, Any]] = []
    while True:
        question, answer = rng.choice(_QUESTIONS)
        pair = draw(f"{question}\x00{answer}").split("\x00")
        length += sum(map(len, pair)) + 70
        if length > characters or len(messages) >= _MOST_MESSAGES:
            return messages
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def _drawer(rng: random.Random) -> Callable[[str], str]:
    """Fills a template in; the names come from a pool, so that they come back as names in real text do."""
    pool = words.names(rng, _POOL)

    def draw(template: str) -> str:
        return template.format(
            a=rng.choice(pool),
            b=rng.choice(pool),
            h=f"{rng.getrandbits(24):06x}",
            n=rng.randrange(3, 60),
            m=rng.randrange(60, 900),
            d=words.day(rng),
        )

    return draw
