"""A parser with its seeds, and an input in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.clean import clean_text
from tests.fuzz import seeds
from tests.fuzz.mutators import mutate

SPLIT = "\x00"

#: An input in pieces, so that a failing one can be made small: parameter (and path below it) to text.
Pieces = dict[str, str]


@dataclass
class Parser:
    """One parser. texts, maps, documents, readings: the parameters that take those; fixed: what others are given."""

    name: str
    function: Callable[..., object]
    texts: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    readings: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    seeds: list[Pieces] = field(default_factory=list)

    def call(self, pieces: Pieces) -> object:
        """The parser's answer to an input."""
        given: dict[str, Any] = dict(self.fixed)
        pieces = {clean_text(key): clean_text(text) for key, text in pieces.items()}  # as transport.base does
        given |= {name: pieces.get(name, "") for name in self.texts}
        given |= {name: _document(pieces.get(name, "")) for name in self.documents}
        given |= {name: pieces.get(name, "").split() for name in self.words}
        for name in self.maps:
            given[name] = {k.split(SPLIT, 1)[1]: v for k, v in pieces.items() if k.startswith(name + SPLIT)}
        for name in self.readings:
            given[name] = _reading(pieces, name)
        return self.function(**given)

    def draw(self, rng: Random) -> Pieces:
        """An input: a seed with some of its pieces changed, or a text of another program altogether."""
        pieces = dict(rng.choice(self.seeds))
        keys = list(pieces)
        for key in rng.sample(keys, min(len(keys), rng.choice((1, 1, 2, 5)))):
            source = rng.choice(seeds.texts()) if rng.random() < 0.03 else pieces[key]
            pieces[key] = mutate(rng, source, seeds.texts())
        if len(keys) > 1 and rng.random() < 0.2:
            del pieces[rng.choice(keys)]
        if self.maps and rng.random() < 0.1:
            old = rng.choice(keys)
            pieces[mutate(rng, old).replace(SPLIT, "") if rng.random() < 0.5 else old + "x"] = "1"
        return pieces


def _reading(pieces: Pieces, name: str) -> NodeReading:
    parts: dict[str, dict[str, Any]] = {}
    for key, text in pieces.items():
        owner, probe, kind, *path = key.split(SPLIT)
        if owner != name:
            continue
        result = parts.setdefault(probe, {"id": probe})
        if kind == "files":
            result.setdefault("files", {})[path[0] if path else ""] = text
        elif kind == "numbers":
            result.setdefault("numbers", {})[path[0]] = _whole(text)
        elif kind == "rc":
            result["rc"] = _whole(text)
        elif kind in ("stdout", "stderr"):
            result[kind] = text
    results = {probe: ProbeResult.model_construct(**{"elapsed_s": 0.0, **part}) for probe, part in parts.items()}
    return NodeReading.model_construct(
        node="head", reachable=True, user="nvidia", sudo=True, hostname="spark", results=results, elapsed_s=0.5
    )


def _document(text: str) -> object:
    """What JSON makes of a text; the list of its lines where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.splitlines()


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
