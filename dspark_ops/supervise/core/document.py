"""Frozen dataclasses to JSON documents and back, strictly: an unknown or missing key or a wrong type is an error."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class DocumentError(ValueError):
    """A document is not what it should be. The message names the place, what was seen and what was expected."""


def to_document(value: Any) -> Any:
    """A dataclass as plain JSON values; tuples become lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_document(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_document(item) for key, item in value.items()}
    return value


def from_document(kind: type[T], document: object, at: str = "") -> T:
    """Read one dataclass.

    Raises:
        DocumentError: with the path of the value that is wrong.
    """
    place = at or kind.__name__
    if not isinstance(document, Mapping):
        raise DocumentError(f"{place}: expected an object, found {_shown(document)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in document if key not in known)
    if unknown:
        raise DocumentError(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    hints = _hints(typing.cast("Any", kind))
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name in document:
            values[name] = _value(hints[name], document[name], f"{place}.{name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise DocumentError(f"{place}: {name} is missing")
    try:
        return kind(**values)
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"{place}: {error}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Reading the annotations takes long, and a memory is read and written all the time."""
    return typing.get_type_hints(kind)


def _value(hint: Any, value: object, at: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        return _value(options[0], value, at)
    if origin is typing.Literal:
        if value not in typing.get_args(hint) or isinstance(value, bool):
            raise DocumentError(f"{at}: expected one of {', '.join(typing.get_args(hint))}, found {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DocumentError(f"{at}: expected a list, found {_shown(value)}")
        (item_hint, *_) = typing.get_args(hint)
        return tuple(_value(item_hint, item, f"{at}[{index}]") for index, item in enumerate(value))
    if is_dataclass(hint):
        return from_document(typing.cast("type[Any]", hint), value, at)
    return _scalar(hint, value, at)


def _scalar(hint: Any, value: object, at: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise DocumentError(f"{at}: expected a finite number, found {value}")
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    raise DocumentError(f"{at}: expected {names.get(hint, str(hint))}, found {_shown(value)}")


def _shown(value: object) -> str:
    return f"{value!r}"[:60]
