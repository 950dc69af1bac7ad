"""The parts of the API's documents, each taken for what it is or refused; no value of a server raises anything else."""

from __future__ import annotations

import json
from typing import Any

from dspark_ops.openai_api.model import Usage

# Above it a count is no count: it could not be told from its neighbour as a float.
_MOST_TOKENS = 1 << 53


class ShapeError(Exception):
    """A part of a document is not what the API says."""


def parsed(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in a text; None for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def object_of(value: Any, name: str) -> dict[str, Any]:
    """The value as an object; ShapeError for another type."""
    if not isinstance(value, dict):
        raise ShapeError(f"{name} is not an object")
    return value


def text_of(value: Any, name: str) -> str:
    """The value as a text, the empty one for null and for nothing; ShapeError for another type."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ShapeError(f"{name} is not a text")
    return value


def sound(text: str) -> str:
    """The same text with its surrogate pairs joined, so that it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def error_text(what: dict[str, Any] | str) -> str:
    """What an error document says, in whichever of the known shapes; else the document itself."""
    if isinstance(what, str):
        return what or "an error without a text"
    inner = what.get("error") or what.get("detail") or what
    if isinstance(inner, dict) and isinstance(message := inner.get("message"), str) and message:
        return message
    if isinstance(inner, str):
        return inner
    try:
        return json.dumps(inner)[:4096]
    except RecursionError:
        return "an error nested too deep to be read"


def error_code(what: dict[str, Any] | str) -> int | None:
    """The HTTP status that an error document gives itself."""
    inner = what if isinstance(what, str) else what.get("error") or what
    code = inner.get("code") if isinstance(inner, dict) else None
    return code if type(code) is int and 100 <= code <= 599 else None


def usage_of(given: Any) -> Usage | None:
    """A usage object; None where one of its two counts is missing or is no count."""
    if not isinstance(given, dict):
        return None
    prompt, completion = _number_of(given, "prompt_tokens"), _number_of(given, "completion_tokens")
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=_number_of(given.get("completion_tokens_details"), "reasoning_tokens"),
        cached_tokens=_number_of(given.get("prompt_tokens_details"), "cached_tokens"),
    )


def prompt_logprobs_of(given: Any, token_ids: list[int] | None = None) -> tuple[float, ...] | None:
    """vLLM's `prompt_logprobs`: one entry a token of the prompt, without the first, which has nothing before it.

    An entry holds the log-probability of the prompt's own token by its id, and of likelier ones where they were asked
    for; token_ids (the prompt's) tells which is which. None: absent, or not one finite number for every token.
    """
    if not isinstance(given, list) or not given or (token_ids is not None and len(token_ids) != len(given)):
        return None
    found: list[float] = []
    for place, entry in enumerate(given[1:], start=1):
        if not isinstance(entry, dict) or not entry:
            return None
        if token_ids is not None:
            own = entry.get(str(token_ids[place]))
        else:
            own = next(iter(entry.values())) if len(entry) == 1 else None
        value = own.get("logprob") if isinstance(own, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 <= value <= 1e-3:
            return None
        found.append(float(value))
    return tuple(found)


def _number_of(given: Any, name: str) -> int | None:
    value = given.get(name) if isinstance(given, dict) else None
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
