"""Facts under another name: what a mutant reads in place of an attribute, and whether it ever did."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from dspark_ops.facts.model import Fact

MISSING = "__mutant_missing__"
SIBLING = "__mutant_sibling__"


@dataclass
class Seen:
    """What one mutant met. evaluated: its expression ran. replaced: and it read a fact that has such a stand-in."""

    evaluated: bool = False
    replaced: bool = False


seen = Seen()


def missing(owner: Any, name: str) -> Any:
    """None in place of a fact, as if the reading had it under another name."""
    seen.evaluated = True
    if isinstance(owner, Fact) and name in readable(type(owner)):
        seen.replaced = True
        return None
    return getattr(owner, name)


def sibling(owner: Any, name: str) -> Any:
    """The next fact of the same type on the same model."""
    seen.evaluated = True
    other = sibling_name(type(owner), name) if isinstance(owner, Fact) else None
    if other is None:
        return getattr(owner, name)
    seen.replaced = True
    return getattr(owner, other)


@cache
def readable(model: type[BaseModel]) -> frozenset[str]:
    """The fields and properties of a model."""
    properties = {n for kind in model.__mro__ for n, value in vars(kind).items() if isinstance(value, property)}
    return frozenset(model.model_fields) | (properties - {"model_extra", "model_fields_set"})


@cache
def sibling_name(model: type[BaseModel], name: str) -> str | None:
    """The field after `name` (in a circle) that is annotated alike, or None."""
    fields = list(model.model_fields)
    if name not in fields:
        return None
    kind, at = model.model_fields[name].annotation, fields.index(name)
    later = [*fields[at + 1 :], *fields[:at]]
    return next((other for other in later if model.model_fields[other].annotation == kind), None)


@cache
def fact_names() -> frozenset[str]:
    """Every name under which some fact can be read."""
    found: set[str] = set()
    waiting: list[type[Fact]] = [Fact]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found |= readable(kind)
    return frozenset(found)
