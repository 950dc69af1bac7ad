"""Class `prose`: connected text about things that do not exist."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import DOINGS, FIELDS, PLACES, ROLES, Names
from dspark_ops.bench.corpus.template import Asked

_LONG = "Write at least 900 words in full paragraphs, without headings, lists or code."


def _mentions(*values: str) -> Expected:
    return Expected(kind="mentions", values=values)


def story(names: Names) -> Asked:
    """A story with given people."""
    a, b, town = names.name(), names.name(), names.name()
    return Asked(
        f"Tell the story of {a}, who keeps the {names.pick(ROLES)} of a town called {town}, and of {b}, who has "
        f"{names.pick(DOINGS)} something that both of them need. It ends in the {names.pick(PLACES)}. {_LONG}",
        _mentions(a, b),
    )


def letter(names: Names) -> Asked:
    """A letter about a dispute."""
    to, sender, thing = names.name(), names.name(), names.code()
    return Asked(
        f"Write the letter that {sender} sends to {to} about delivery {thing}: {names.number(3, 90)} of the "
        f"{names.pick(ROLES)}s came with the wrong {names.pick(FIELDS)}, {to} has denied it twice, and {sender} still "
        f"wants to keep the friendship. {_LONG}",
        _mentions(to, thing),
    )


def explain(names: Names) -> Asked:
    """An explanation of a made-up procedure."""
    craft, tool = names.word(3), names.word()
    return Asked(
        f"The craft of {craft} was practised in the {names.pick(PLACES)} until a {tool} did it faster. Invent it: "
        f"explain to a new apprentice how {craft} is done, what goes wrong at a {names.pick(FIELDS)} above "
        f"{names.number(20, 800)}, and why the {tool} never quite replaced it. {_LONG}",
        _mentions(craft, tool),
    )


def minutes(names: Names) -> Asked:
    """A meeting with several positions."""
    people = [names.name() for _ in range(3)]
    code = names.code()
    return Asked(
        f"{people[0]}, {people[1]} and {people[2]} met about the {names.pick(ROLES)} {code}. Write what was said as a "
        f"reporter would, with the reasons each of them gave and what was left open; one of them changes sides because "
        f"of a {names.pick(FIELDS)} of {names.number(30, 7000)}. {_LONG}",
        _mentions(people[0], code),
    )


def review(names: Names) -> Asked:
    """A critic's view of a book that there is not."""
    title, author = f"The {names.name()} of {names.name()}", f"{names.name()} {names.name()}"
    return Asked(
        f"Review the novel '{title}' by {author}, of {names.number(140, 900)} pages. Its narrator is a "
        f"{names.pick(ROLES)} keeper who lies about a {names.pick(FIELDS)}. Praise what deserves it, quote two "
        f"sentences that you make up, and say for whom it is. {_LONG}",
        _mentions(author.split()[1]),
    )


def history(names: Names) -> Asked:
    """A chronicle of a made-up place."""
    town, founder = names.name(), names.name()
    return Asked(
        f"Write the chronicle of {town} from its founding by {founder} in the year {names.number(900, 1700)}: the "
        f"quarrel over the {names.pick(PLACES)}, the winter of the {names.pick(ROLES)}s, the {names.number(2, 9)} "
        f"families who left and what they took. {_LONG}",
        _mentions(town, founder),
    )


TEMPLATES = (story, letter, explain, minutes, review, history)
