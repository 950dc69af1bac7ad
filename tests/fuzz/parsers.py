"""Every parser of what a host prints, found by its name and called by its signature: a new one is fuzzed unasked."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from dspark_ops import facts
from dspark_ops.facts.snapshot import parse_node
from dspark_ops.transport.base import (
    Command,
    Files,
    Filesystem,
    ForEach,
    Http,
    Links,
    LogScan,
    NodeReading,
    ProbeResult,
)
from tests.fuzz import seeds, special
from tests.fuzz.parser import SPLIT, Parser, Pieces
from tests.unit.doctor.pair_fixture import load_case_site

#: Beside dspark_ops.facts: what reads the text of a host elsewhere.
OTHERS = ("dspark_ops.kv.bootlog", "dspark_ops.weights.meter", "dspark_ops.doctor.foreign.command_line")
_SEEDS = 8
_GIVEN: dict[str, Any] = {
    "path": "/etc/netplan/50-x.yaml",
    "rail": "p0a",
    "device": "enp1s0f0np0",
    "netdev": "enp1s0f0np0",
    "name": "dspark",
    "role": "head",
    "host": "node-a",
    "uid": 1000,
    "user": "nvidia",
    "unit": "dspark",
    "site": load_case_site().site,
}
_TEXT = ("str", "str | None")
_MAPPING = ("Mapping[str, str]", "Mapping[str, str] | None", "dict[str, str]", "dict[str, str] | None")
_DOCUMENT = "object"
_WORDS = "Sequence[str]"
_NUMBER = ("int", "int | None", "float", "float | None")


@cache
def every_parser() -> tuple[tuple[Parser, ...], tuple[str, ...]]:
    """The parsers with their seeds, by name, and the names of those whose signature is not understood."""
    found, strange = [*special.every()], []
    for module in _modules():
        for name, function in vars(module).items():
            if not name.startswith(("parse_", "read_")) or not inspect.isfunction(function):
                continue
            if function.__module__ != module.__name__ or function is parse_node:
                continue
            title = f"{module.__name__.removeprefix('dspark_ops.').removeprefix('facts.')}.{name}"
            parser = _understood(title, function)
            if parser is None:
                strange.append(title)
            else:
                found.append(parser)
    for parser in found:
        parser.seeds = _best_seeds(parser)
    return tuple(sorted(found, key=lambda p: p.name)), tuple(sorted(strange))


def _modules() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(facts.__path__):
        yield import_module(f"dspark_ops.facts.{info.name}")
    for name in OTHERS:
        yield import_module(name)


def _understood(name: str, function: Callable[..., object]) -> Parser | None:
    parser = Parser(name, function)
    for parameter in inspect.signature(function).parameters.values():
        kind = str(parameter.annotation)
        if parameter.name in _GIVEN:
            parser.fixed[parameter.name] = _GIVEN[parameter.name]
        elif kind in _TEXT:
            parser.texts += (parameter.name,)
        elif kind in _MAPPING:
            parser.maps += (parameter.name,)
        elif kind == _DOCUMENT:
            parser.documents += (parameter.name,)
        elif kind == _WORDS:
            parser.words += (parameter.name,)
        elif kind == "NodeReading":
            parser.readings += (parameter.name,)
        elif parameter.default is inspect.Parameter.empty:
            if kind not in _NUMBER:
                return None
            parser.fixed[parameter.name] = 7
    return parser


def _best_seeds(parser: Parser) -> list[Pieces]:
    """The seeds that the parser understands most of; any, where it understands none."""
    if parser.readings:
        parser.probes = _asked(parser)
        return [_pieces_of(parser, reading) for reading in seeds.readings()]
    if parser.maps:
        drafts = [{f"{name}{SPLIT}{k}": v for name in parser.maps for k, v in m.items()} for m in seeds.mappings()]
        for draft in drafts:
            draft.update(dict.fromkeys(parser.texts, "1"))
    else:
        drafts = [dict.fromkeys(parser.texts + parser.documents + parser.words, text) for text in seeds.texts()]
    ranked = sorted(drafts, key=lambda draft: _richness(parser, draft), reverse=True)
    return ranked[:_SEEDS]


def _richness(parser: Parser, draft: Pieces) -> int:
    try:
        said = repr(parser.call(draft))
    except Exception:  # a seed that fails is found again, and reported, by the run itself
        return 1 << 20
    return min(len(said), 4000) - said.count("None") * 8


class _Spy(NodeReading):
    """A reading that notes which results are asked for."""

    def get(self, probe_id: str) -> ProbeResult:
        _ASKED.append(probe_id)
        return super().get(probe_id)


_ASKED: list[str] = []


def _asked(parser: Parser) -> tuple[str, ...]:
    """The probes whose results the parser looks at; of its module where it looks at no one by name."""
    _ASKED.clear()
    for reading in seeds.readings():
        spy = _Spy.model_validate(reading.model_dump())
        try:
            parser.function(**{**parser.fixed, **dict.fromkeys(parser.readings, spy)})
        except Exception:  # noqa: S112  as above
            continue
    prefix = parser.name.split(".")[-2] + "."
    known = [p for r in seeds.readings() for p in r.results if p.startswith(prefix)]
    return tuple(dict.fromkeys([*_ASKED, *known]))


@cache
def _probes() -> dict[str, object]:
    found: dict[str, object] = {}
    for module in _modules():
        for value in vars(module).values():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Command | ForEach | Files | Links | Http | Filesystem | LogScan):
                    found[item.id] = item
    return found


def _pieces_of(parser: Parser, reading: NodeReading) -> Pieces:
    """The results that the parser looks at, in pieces; what was not recorded is made up from the probe's patterns."""
    pieces: Pieces = {}
    for name in parser.readings:
        for probe in parser.probes:
            result = reading.results.get(probe) or _made_up(probe)
            key = f"{name}{SPLIT}{probe}{SPLIT}"
            if result.files is not None:
                pieces |= {f"{key}files{SPLIT}{path}": text for path, text in list(result.files.items())[:40]}
            elif result.numbers is not None:
                pieces |= {f"{key}numbers{SPLIT}{word}": str(number) for word, number in result.numbers.items()}
            else:
                pieces[f"{key}stdout"] = result.stdout or ""
                pieces[f"{key}stderr"] = result.stderr or ""
                pieces[f"{key}rc"] = str(result.rc or 0)
    return pieces or {f"{parser.readings[0]}{SPLIT}none{SPLIT}stdout": "x"}


def _made_up(probe: str) -> ProbeResult:
    asked = _probes().get(probe)
    if isinstance(asked, Files | Links):
        stands = [p.replace("**", "x").replace("*", "p1") for p in asked.patterns]
        return ProbeResult(id=probe, files=dict.fromkeys(stands, "1\n"))
    if isinstance(asked, ForEach):
        return ProbeResult(id=probe, files={name: _likely(probe) for name in ("enp1s0f0np0", "1")})
    return ProbeResult(id=probe, rc=0, stdout=_likely(probe), stderr="")


def _likely(probe: str) -> str:
    """A text for a probe that was never recorded."""
    texts: Sequence[str] = seeds.texts()
    return texts[sum(probe.encode()) % len(texts)]
