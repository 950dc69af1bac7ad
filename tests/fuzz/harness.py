"""One input: no exception, no hang, memory within bounds, and the answer is a typed fact or None."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from random import Random

from pydantic import BaseModel

from tests.fuzz.parser import Parser, Pieces
from tests.processor_time import limited

#: Processor seconds that one input may take; the clock of a busy machine would accuse the innocent.
LIMIT_S = 1.0
_PLAIN = (str, bytes, bool, int, float, Enum, PurePath, type(None))
_ADDRESSES = (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)


class HangError(BaseException):
    """The parser did not end in time. No Exception: what a parser catches must not swallow it."""


class UntypedError(Exception):
    """The answer is no fact, or one that JSON does not give back."""


@dataclass(frozen=True)
class Failure:
    """One way in which a parser failed. where: file and line of the innermost frame of ours."""

    parser: str
    error: str
    where: str
    number: int
    pieces: Pieces

    @property
    def kind(self) -> tuple[str, str, str]:
        return self.parser, self.error.split(":")[0], self.where


def attempt(parser: Parser, pieces: Pieces, *, number: int = -1, round_trip: bool = True) -> Failure | None:
    """Feed one input; None when all is well."""
    try:
        with limited(LIMIT_S, HangError):
            answer = parser.call(pieces)
            assert_typed(answer, round_trip=round_trip)
    except HangError as error:
        return Failure(parser.name, f"HangError: longer than {LIMIT_S:g} s", _where(error), number, pieces)
    except Exception as error:  # that is what is looked for
        return Failure(parser.name, f"{type(error).__name__}: {str(error)[:200]}", _where(error), number, pieces)
    return None


def input_of(parser: Parser, seed: int, number: int) -> Pieces:
    """The input of that number: the same on every machine and after every pause."""
    return parser.draw(Random(f"{seed}/{parser.name}/{number}"))  # noqa: S311


def assert_typed(answer: object, *, round_trip: bool) -> None:
    """Facts all the way down; a model comes back from JSON as it was.

    Raises:
        UntypedError: it is not so.
    """
    if isinstance(answer, BaseModel):
        if round_trip:
            _assert_round_trip(answer)
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            assert_typed(key, round_trip=False)
            assert_typed(value, round_trip=round_trip)
    elif isinstance(answer, tuple | list | set | frozenset):
        for item in answer:
            assert_typed(item, round_trip=round_trip)
    elif is_dataclass(answer) and not isinstance(answer, type):
        for part in fields(answer):
            assert_typed(getattr(answer, part.name), round_trip=round_trip)
    elif not isinstance(answer, _PLAIN + _ADDRESSES):
        raise UntypedError(f"the answer is a {type(answer).__name__}")


def _assert_round_trip(answer: BaseModel) -> None:
    try:
        again = type(answer).model_validate_json(answer.model_dump_json())
    except Exception as error:
        raise UntypedError(f"the fact does not survive JSON: {type(error).__name__}: {str(error)[:150]}") from error
    # What a fact never writes down, as a text with an environment in it, does not come back by design.
    unwritten = [name for name, field in type(answer).model_fields.items() if field.exclude]
    if again != answer.model_copy(update={name: getattr(again, name) for name in unwritten}):
        raise UntypedError("the fact is another one after JSON")


def minimised(parser: Parser, failure: Failure, seconds: float = 15.0) -> Failure:
    """The same failure from as little input as can be found within so many seconds."""
    until = time.monotonic() + seconds

    def still(pieces: Pieces) -> bool:
        found = attempt(parser, pieces) if time.monotonic() < until else None
        return found is not None and found.kind == failure.kind

    pieces = dict(failure.pieces)
    for key in list(pieces):
        without = {k: v for k, v in pieces.items() if k != key}
        if without and still(without):
            pieces = without
    for key in list(pieces):
        for unit in (_by_lines, _by_characters):
            pieces = _shrunk(pieces, key, unit, still)
    found = attempt(parser, pieces, number=failure.number)
    return found if found is not None and found.kind == failure.kind else failure


def _shrunk(pieces: Pieces, key: str, unit: Callable[[str], list[str]], still: Callable[[Pieces], bool]) -> Pieces:
    """Leave out ever smaller runs of units of one piece while it still fails (delta debugging)."""
    units = unit(pieces[key])
    size = max(1, len(units) // 2)
    while True:
        at = 0
        while at < len(units):
            fewer = units[:at] + units[at + size :]
            if still({**pieces, key: "".join(fewer)}):
                units = fewer
            else:
                at += size
        if size == 1:
            return {**pieces, key: "".join(units)}
        size //= 2


def _by_lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _by_characters(text: str) -> list[str]:
    return list(text) if len(text) <= 4000 else [text[i : i + 50] for i in range(0, len(text), 50)]


def _where(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/dspark_ops/" in f.filename]
    if not frames:
        return "the answer"
    return f"{frames[-1].filename.rsplit('/dspark_ops/', 1)[1]}:{frames[-1].lineno}"
