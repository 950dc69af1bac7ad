"""How large a request is, where it fits and what it may cost at most. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .settings import Cloud

#: A byte-level tokenizer makes no token of less than one byte; what the chat template adds is bounded generously.
_PER_MESSAGE, _TEMPLATE = 16, 2048
_BYTES_PER_TOKEN = 2.5
_MARGIN = 0.02
_BECOMES_PROMPT = ("messages", "prompt", "suffix", "tools", "functions", "response_format")


@dataclass(frozen=True)
class Size:
    """prompt: tokens. answer: tokens reserved for one of so many choices. exact: counted, not estimated."""

    prompt: int
    answer: int
    choices: int
    exact: bool


@dataclass(frozen=True)
class BadRequestError(Exception):
    """The client's own mistake, in words, with the field's name."""

    message: str
    param: str | None = None


def usable(limit: int) -> int:
    """What of a declared limit is used: 2 % stay free, since two tokenizers do not count alike."""
    return limit - math.ceil(limit * _MARGIN)


def fits(size: Size, limit: int) -> bool:
    """Whether prompt and answer stay below the declared limit with its margin."""
    return size.prompt + size.answer <= usable(limit)


def most_bytes(body: Mapping[str, Any]) -> int:
    """No tokenizer makes more tokens of this request: an upper bound that needs no tokenizer."""
    messages = body.get("messages")
    count = len(messages) if isinstance(messages, list) else 1
    return prompt_bytes(body) + _PER_MESSAGE * count + _TEMPLATE


def prompt_bytes(body: Mapping[str, Any]) -> int:
    """UTF-8 bytes of all that becomes prompt."""
    parts = [body[name] for name in _BECOMES_PROMPT if body.get(name)]
    return sum(len(json.dumps(part, ensure_ascii=False).encode("utf-8", "surrogatepass")) for part in parts)


def estimated(body: Mapping[str, Any]) -> int:
    """Tokens of a prompt that nobody can count at the moment: bytes / 2.5, and token ids by their number."""
    ids = token_ids(body)
    return ids if ids is not None else math.ceil(prompt_bytes(body) / _BYTES_PER_TOKEN)


def token_ids(body: Mapping[str, Any]) -> int | None:
    """The length of a prompt that is given as token ids (the longest, of several); None for text."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or not prompt:
        return None
    if all(isinstance(part, int) for part in prompt):
        return len(prompt)
    if all(isinstance(part, list) for part in prompt):
        return sum(len(part) for part in prompt)
    return None


def answer_tokens(body: Mapping[str, Any], default: int) -> int:
    """What a request reserves for one answer: the larger of two limits, since a provider may heed either.

    Raises:
        BadRequestError: a limit that is no positive whole number.
    """
    found = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadRequestError(f"{name} is {_short(value)}; expected a whole number of at least 1", name)
        found.append(value)
    return max(found, default=default)


def choices(body: Mapping[str, Any]) -> int:
    """Answers asked for: n, best_of, and the number of prompts of a text completion.

    Raises:
        BadRequestError: n or best_of is no positive whole number.
    """
    most = 1
    for name in ("n", "best_of"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 128:
            raise BadRequestError(f"{name} is {_short(value)}; expected a whole number from 1 to 128", name)
        most = max(most, value)
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not all(isinstance(part, int) for part in prompt)
    return most * (len(prompt) if several and isinstance(prompt, Sequence) else 1)


def cost_micro_usd(cloud: Cloud, prompt: int, answer: int) -> int:
    """Price of so many tokens, rounded up. USD per million tokens are millionths of a USD per token."""
    return math.ceil(prompt * cloud.input_usd_per_million + answer * cloud.output_usd_per_million)


def most_micro_usd(cloud: Cloud, size: Size) -> int:
    """What a request can cost at most."""
    return cost_micro_usd(cloud, size.prompt, size.answer * size.choices)


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
