"""Class `code`: functions and modules after specifications that nobody has written before."""

from __future__ import annotations

from dspark_ops.bench.corpus.model import Expected
from dspark_ops.bench.corpus.names import FIELDS, ROLES, Names
from dspark_ops.bench.corpus.template import Asked

_LONG = (
    "Write the whole of it: at least 120 lines with type hints, docstrings and error handling, and then unit tests for "
    "the ordinary and the awkward cases. Give code only, in one block."
)


def state_machine(names: Names) -> Asked:
    """A class with transitions and guards."""
    cls, states = names.name() + names.name(), names.words(5)
    event, other = names.identifier(), names.identifier()
    field, limit = names.pick(FIELDS), names.number(7, 900)
    return Asked(
        f"In Python, write a class `{cls}` that is a state machine with the states {', '.join(states)}. The method "
        f"`{event}(self, {field}: float)` goes from {states[0]} to {states[1]}, and to {states[2]} when {field} is "
        f"above {limit}; `{other}(self)` goes back unless the state is {states[3]}, which is left only after "
        f"{names.number(2, 6)} calls. Every transition is kept with its reason, and a forbidden one raises "
        f"`{cls}Error` with both states' names. {_LONG}",
        Expected(kind="mentions", values=(cls, event)),
    )


def parser(names: Names) -> Asked:
    """A parser of a made-up line format."""
    function, keys = names.identifier(), names.words(4)
    mark, cut = names.pick(["~", "%", "^", "&"]), names.pick(["||", "::", "->", "<>"])
    return Asked(
        f"Write a Rust function `{function}` and its types. It parses lines such as "
        f"`{mark}{keys[0]} {names.number(10, 99)}{cut}{keys[1]}:{names.number(1, 9)}`, where {keys[2]} and {keys[3]} "
        f"may follow in any order, each at most once, {keys[3]} only when {keys[1]} is above {names.number(2, 8)}. "
        f"Errors name the column and what was expected. No dependencies. {_LONG}",
        Expected(kind="mentions", values=(function,)),
    )


def scheduler(names: Names) -> Asked:
    """An algorithm with several constraints."""
    function, kind = names.identifier(), names.pick(ROLES)
    a, b = names.several(FIELDS, 2)
    return Asked(
        f"Write Python: `{function}(items: list[{kind.capitalize()}], slots: int) -> list[list[{kind.capitalize()}]]`. "
        f"Each {kind} has a {a}, a {b} and a name. Spread them over slots so that the sum of {a} per slot stays below "
        f"{names.number(90, 4000)}, no two with the same {b} modulo {names.number(3, 11)} share a slot, and the "
        f"fullest slot is as empty as you can make it; explain the bound in the docstring. Use heapq. {_LONG}",
        Expected(kind="mentions", values=(function,)),
    )


def cache(names: Names) -> Asked:
    """A data structure with an unusual eviction rule."""
    struct, touch = names.name() + "Store", names.identifier()
    return Asked(
        f"In Go, write a package with a type `{struct}`: a shared cache of at most {names.number(50, 5000)} entries: "
        f"`{touch}` raises an entry's rank by {names.number(2, 9)}; every {names.number(20, 300)} operations all ranks "
        f"are halved; the entry of the lowest rank goes first, and of equal ones the oldest. Add a method that "
        f"reports hits, misses and evictions as {names.word()}, {names.word()} and {names.word()}. {_LONG}",
        Expected(kind="mentions", values=(struct,)),
    )


def service(names: Names) -> Asked:
    """A small HTTP service."""
    path, model, field = names.word(), names.name(), names.pick(FIELDS)
    return Asked(
        f"Write a TypeScript module for an HTTP service without a framework. `POST /{path}` takes a {model} with a "
        f"{field} between {names.number(1, 9)} and {names.number(10, 9000)}, a tag like {names.code()} and a list of "
        f"at most {names.number(3, 30)} parts; `GET /{path}/summary` groups by the tag's letters. Requests with the "
        f"header x-{names.word()} are answered from memory for {names.number(5, 90)} s. {_LONG}",
        Expected(kind="mentions", values=(path, model)),
    )


def refactor(names: Names) -> Asked:
    """A given function to be made better."""
    f, a, b, c = names.identifier(), names.word(), names.word(), names.word()
    limit, step = names.number(20, 800), names.number(2, 19)
    given = (
        f"def {f}({a}, {b}=None):\n    {c} = []\n    for i in range(len({a})):\n        if {a}[i] != None:\n"
        f"            if {a}[i] > {limit}:\n                {c}.append({a}[i] - {step})\n            else:\n"
        f"                try:\n                    {c}.append({b}[i])\n                except:\n"
        f"                    {c}.append({limit})\n        i = i + {step}\n    return {c}\n"
    )
    return Asked(
        f"Here is a Python function:\n\n{given}\nSay in comments what is wrong with it, then rewrite it as a small "
        f"module with a class, a generator and a command line, keeping the name `{f}` and what it returns. {_LONG}",
        Expected(kind="mentions", values=(f,)),
    )


TEMPLATES = (state_machine, parser, scheduler, cache, service, refactor)
