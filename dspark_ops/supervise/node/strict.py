"""Reads documents strictly: one sentence says what stood where and what was expected. Nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from dspark_ops.supervise.core.document import DocumentError

__all__ = ["DocumentError", "Fields", "parse_object"]


def parse_object(text: str, what: str) -> dict[str, Any]:
    """The text as one JSON object.

    Raises:
        DocumentError: it is not one.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{what} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise DocumentError(f"{what} is {_kind(document)}, expected an object")
    return document


class Fields:
    """The fields of one object, each taken once; `done` refuses what nobody took."""

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, dict):
            raise DocumentError(f"{where} is {_kind(document)}, expected an object")
        self._left: dict[str, Any] = dict(document)
        self._where = where

    def has(self, name: str) -> bool:
        return name in self._left

    def raw(self, name: str) -> Any:
        if name not in self._left:
            raise DocumentError(f"{self._where} has no {name!r}")
        return self._left.pop(name)

    def text(self, name: str, default: str | None = None, *, one_of: Iterable[str] = ()) -> str:
        value = self._typed(name, default, str, "a text")
        allowed = tuple(one_of)
        if allowed and value not in allowed:
            raise DocumentError(f"{self._where}.{name} is {value!r}, expected one of {', '.join(allowed)}")
        return str(value)

    def text_or_none(self, name: str) -> str | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise DocumentError(f"{self._where}.{name} is {_kind(value)}, expected a text or null")
        return value

    def whole(self, name: str, default: int | None = None, *, low: int = 0, high: int = 1 << 62) -> int:
        value = int(self._typed(name, default, int, "a whole number"))
        if not low <= value <= high:
            raise DocumentError(f"{self._where}.{name} is {value}, expected {low} to {high}")
        return value

    def number(self, name: str, default: float | None = None, *, low: float = 0.0, high: float = 1e12) -> float:
        value = float(self._typed(name, default, (int, float), "a number"))
        if not low <= value <= high:
            raise DocumentError(f"{self._where}.{name} is {value:g}, expected {low:g} to {high:g}")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise DocumentError(f"{self._where}.{name} is {_kind(value)}, expected true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.raw(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DocumentError(f"{self._where}.{name} is not a list of texts")
        return tuple(value)

    def done(self) -> None:
        if self._left:
            raise DocumentError(f"{self._where} has unknown fields: {', '.join(sorted(map(str, self._left)))}")

    def _typed(self, name: str, default: Any, kind: Any, called: str) -> Any:
        value = self._left.pop(name, default)
        if value is None:
            raise DocumentError(f"{self._where} has no {name!r}")
        if isinstance(value, bool) or not isinstance(value, kind):
            raise DocumentError(f"{self._where}.{name} is {_kind(value)}, expected {called}")
        return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")
