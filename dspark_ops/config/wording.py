"""From a schema violation to a sentence: the key, what was expected in words, what was there."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dspark_ops.config.yaml_source import Mark, dotted, shorten

_PATTERNS = {
    "^[a-z0-9-]+$": "lower-case letters, digits and dashes",
    "^[a-z0-9_]+$": "lower-case letters, digits and underscores",
    "^[A-Za-z0-9._/-]+$": "letters, digits, dots, dashes, underscores and slashes",
}
_FORMS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$": "a repository, as OWNER/NAME",
    "^[0-9a-f]{40}$": "a commit, 40 hexadecimal digits in lower case",
    r"^https?://[^\s]+$": "the http or https URL of a hub",
    r"^https?://\S+/$": "an http or https URL that ends with a slash",
    r"^[A-Za-z0-9.-]+:[0-9]{1,5}$": "HOST:PORT",
    r"^[^\s@]+@[^\s@]+$": "a mail address",
    r"^((head|worker)/)?[a-z-]+:\S+$": "a tenant as `tenants list` prints it, as container:comfyui or head/unit:NAME",
}
_PLAIN = {
    bool: "true or false",
    Path: "a path",
    PurePosixPath: "an absolute path",
    IPv4Address: "an IPv4 address, as 127.0.0.1",
    IPv4Interface: "an IPv4 address with its prefix, as 10.77.0.1/24",
}


def annotation_at(model: type[BaseModel], key: Sequence[str | int]) -> Any | None:
    """The (Annotated) type that the model wants at a key path; None where the path leads out of the model."""
    current: Any = model
    for part in key:
        current = _bare(current)
        if isinstance(part, int):
            if get_origin(current) is not tuple:
                return None
            current = get_args(current)[0]
        elif get_origin(current) is dict:
            current = get_args(current)[1]
        elif isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            info = current.model_fields[part]
            current = Annotated[info.annotation, info]
        else:
            return None
    return current


def section_at(model: type[BaseModel], key: Sequence[str | int]) -> type[BaseModel] | None:
    """The model class at a key path when a section stands there, else None."""
    found = _bare(annotation_at(model, key))
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def is_optional(model: type[BaseModel], key: Sequence[str | int]) -> bool:
    """Whether null is a value of its own at a key path: `X | None`."""
    return _takes_none(annotation_at(model, key))


def _takes_none(annotation: Any) -> bool:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_takes_none(arg) for arg in get_args(annotation))
    return annotation is type(None)


def leaf_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every leaf key of the model; the items of a list stand under `[]`."""
    for name, info in model.model_fields.items():
        inner = _bare(info.annotation)
        if get_origin(inner) is tuple and _is_model(get_args(inner)[0]):
            yield from leaf_keys(get_args(inner)[0], (*prefix, name, "[]"))
        elif _is_model(inner):
            yield from leaf_keys(inner, (*prefix, name))
        else:
            yield (*prefix, name)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bare(annotation: Any) -> Any:
    """The type without Annotated and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _bare(inner[0]) if len(inner) == 1 else annotation
    return annotation


def _constraints(annotation: Any) -> dict[str, Any]:
    """ge, gt, le, lt, min_length, max_length and pattern, wherever Annotated or a union hides them."""
    found: dict[str, Any] = {}
    pending = [annotation]
    while pending:
        current = pending.pop()
        if get_origin(current) is Annotated:
            pending.append(get_args(current)[0])
            for extra in get_args(current)[1:]:
                for item in extra.metadata if isinstance(extra, FieldInfo) else [extra]:
                    for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
                        if getattr(item, name, None) is not None:
                            found.setdefault(name, getattr(item, name))
        elif get_origin(current) in (Union, types.UnionType):
            pending.extend(get_args(current))
    return found


def expected(annotation: Any) -> str:
    """What a value must be, in words."""
    bare, limits = _bare(annotation), _constraints(annotation)
    if get_origin(bare) is Literal:
        options = [str(option) for option in get_args(bare)]
        return options[0] if len(options) == 1 else "one of " + ", ".join(options)
    if bare in (int, float):
        return _number("a whole number" if bare is int else "a number", limits)
    if bare is str:
        return _text(limits)
    if get_origin(bare) is dict:
        return _mapping(_bare(get_args(bare)[1]))
    if get_origin(bare) is tuple and _bare(get_args(bare)[0]) is str:
        return "a list of words"
    if get_origin(bare) is tuple:
        return f"a list of {limits.get('min_length', 0)} to {limits.get('max_length', 'many')} items"
    if _is_model(bare):
        return "a section with the keys " + ", ".join(bare.model_fields)
    return _PLAIN.get(bare, "another type")


def _text(limits: dict[str, Any]) -> str:
    pattern = limits.get("pattern")
    if pattern in _FORMS:
        return _FORMS[pattern]
    words = _PATTERNS.get(pattern) if pattern is not None else None
    text = "text" if pattern is None else f"text of {words}" if words else f"text that matches {pattern}"
    return text + (f", at most {limits['max_length']} characters" if "max_length" in limits else "")


def _mapping(below: Any) -> str:
    if below is object:
        return "a section with keys of the site"
    return "a section of names with " + ("text beside them" if below is str else "a section below each")


def _number(noun: str, limits: dict[str, Any]) -> str:
    def plain(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    if "ge" in limits and "le" in limits:
        return f"{noun} from {plain(limits['ge'])} to {plain(limits['le'])}"
    parts = [
        f"{word} {plain(limits[name])}"
        for name, word in (("ge", "of at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if name in limits
    ]
    return " ".join([noun, " and ".join(parts)]).strip()


def observed(value: object, mark: Mark | None, annotation: Any) -> str:
    """What was there, with the usual YAML surprise explained."""
    bare = _bare(annotation)
    raw = mark.raw if mark is not None else None
    if isinstance(value, bool) and raw is not None and raw.lower() not in {"true", "false"}:
        return f"{raw} (YAML reads it as {shorten(value)}; put quotes around text)"
    if bare is str and isinstance(value, int | float) and raw is not None:
        return f"the {'boolean' if isinstance(value, bool) else 'number'} {raw} (put quotes around text)"
    if bare in (int, float) and isinstance(value, str) and value.strip().lstrip("-").replace(".", "", 1).isdigit():
        return f"text {shorten(value)}" + ("" if raw is not None else " (remove the quotes)")
    return shorten(value)


def schema_sentence(model: type[BaseModel], error: Any, value: object, mark: Mark | None) -> str:
    """One sentence for one entry of `ValidationError.errors()`; never the validator's own jargon."""
    key = tuple(error["loc"])
    kind = str(error["type"])
    name = dotted(key) or "the file"
    if kind == "extra_forbidden":
        return f"{name}: unknown key; {suggestion(model, key)}"
    annotation = annotation_at(model, key)
    if kind == "missing":
        return f"{name}: missing; expected {expected(annotation)}"
    if kind in {"value_error", "assertion_error"}:
        reason = str(error.get("ctx", {}).get("error", ""))
        if not reason.startswith("expected "):  # the words of a standard type, as ipaddress
            reason = f"expected {expected(annotation)}"
        return f"{name}: {reason}, got {observed(value, mark, annotation)}"
    return f"{name}: expected {expected(annotation)}, got {observed(value, mark, annotation)}"


def suggestion(model: type[BaseModel], key: Sequence[str | int]) -> str:
    """The nearest known key: first in the same section, then the same name anywhere, else the section's keys."""
    parent, wrong = key[:-1], str(key[-1])
    section = section_at(model, parent)
    known = list(section.model_fields) if section is not None else []
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {dotted((*parent, close[0]))}?"
    elsewhere = [leaf for leaf in leaf_keys(model) if leaf[-1] == wrong]
    if elsewhere:
        return f"did you mean {dotted(elsewhere[0])}?"
    return "the keys here are " + (", ".join(known) if known else "none")
