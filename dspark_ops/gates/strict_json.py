"""JSON read as an agent's caller must read it: one document, no key twice, nothing after it, no NaN."""

from __future__ import annotations

import json
from typing import Any


class NotStrict(ValueError):  # noqa: N818 - it is a finding, not a failure of ours
    """The text is no strict JSON. code: `invalid`, `duplicate-key`, `trailing-bytes`, `constant` or `depth`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read(text: str) -> Any:
    """The value of the one document that `text` is; blanks around it are allowed. Raises NotStrict."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    begin = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        value, end = decoder.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        raise NotStrict("invalid", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise NotStrict("depth", "nested too deeply to be read") from None
    except NotStrict:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise NotStrict("invalid", str(error)) from None
    rest = text[end:].strip(" \t\r\n")
    if rest:
        raise NotStrict("trailing-bytes", f"{len(rest)} characters after the document: {rest[:60]!r}")
    return value


def same(a: Any, b: Any) -> bool:
    """Equal as JSON values: true is not 1, key order does not matter, 1 and 1.0 are the same number."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    return type(a) is type(b) and bool(a == b)


def difference(observed: Any, expected: Any, at: str = "$") -> tuple[str, str, str] | None:
    """The first place where two values differ: its path, what is there, what should be. None: they are the same."""
    if same(observed, expected):
        return None
    if isinstance(observed, dict) and isinstance(expected, dict):
        for key in expected:
            if key not in observed:
                return f"{at}.{key}", "absent", short(expected[key])
            found = difference(observed[key], expected[key], f"{at}.{key}")
            if found:
                return found
        extra = next(key for key in observed if key not in expected)
        return f"{at}.{extra}", short(observed[extra]), "absent"
    if isinstance(observed, list) and isinstance(expected, list | tuple):
        for n, (a, b) in enumerate(zip(observed, expected, strict=False)):
            found = difference(a, b, f"{at}[{n}]")
            if found:
                return found
        return at, f"{len(observed)} elements", f"{len(expected)} elements"
    if isinstance(observed, str) and isinstance(expected, str):
        return _text_difference(observed, expected, at)
    return at, short(observed), short(expected)


def _text_difference(observed: str, expected: str, at: str) -> tuple[str, str, str]:
    """Long texts are shown from where they part."""
    first = next((n for n, (a, b) in enumerate(zip(observed, expected, strict=False)) if a != b), None)
    place = min(len(observed), len(expected)) if first is None else first
    begin = max(0, place - 10)
    where = at if begin == 0 else f"{at} from character {begin}"
    return where, short(observed[begin:]), short(expected[begin:])


def short(value: Any, limit: int = 80) -> str:
    """A value on one line, cut."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotStrict("duplicate-key", f"the key {short(key)} occurs twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise NotStrict("constant", f"{name} is no JSON")
