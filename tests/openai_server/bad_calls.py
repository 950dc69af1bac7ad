"""Tool calls that are wrong, each in one way."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.openai_server.answers import Call, Solution
from tests.openai_server.setup import CallFault


@dataclass(frozen=True)
class SpoiltCalls:
    """The answer after the fault. finish: what the server says in place of the engine's reason. same_ids: all calls
    carry one id."""

    solution: Solution
    finish: str | None = None
    same_ids: bool = False


def applies(kind: CallFault, solution: Solution, body: dict[str, Any]) -> bool:
    """Whether the fault can touch this answer at all."""
    if kind == "needless-call":
        return bool(body.get("tools")) and not solution.tool_calls
    if kind == "unary-differs":
        return bool(solution.tool_calls) and not body.get("stream")
    if kind == "duplicate-ids":
        return len(solution.tool_calls) > 1
    return bool(solution.tool_calls)


def spoil_calls(kind: CallFault, solution: Solution, body: dict[str, Any], rng: random.Random) -> SpoiltCalls:
    """The answer with one call spoilt; the last one where there are several."""
    if kind == "needless-call":
        function = rng.choice(body["tools"])["function"]
        return SpoiltCalls(Solution(tool_calls=(Call(function["name"], "{}"),)))
    if kind == "duplicate-ids":
        return SpoiltCalls(solution, same_ids=True)
    *others, last = solution.tool_calls
    if kind == "lost-call":
        return SpoiltCalls(_with(solution, tuple(others)), finish=None if others else "tool_calls")
    if kind == "unary-differs":
        changed = wrong_value(last.arguments, rng)
        return SpoiltCalls(_with(solution, (*others, Call(last.name, changed))))
    if kind == "wrong-name":
        return SpoiltCalls(_with(solution, (*others, Call(f"{last.name}_v2", last.arguments))))
    raw = _ARGUMENTS[kind](last.arguments, rng)
    finish = "tool_calls" if kind == "truncated-call" else None
    return SpoiltCalls(_with(solution, (*others, Call(last.name, raw))), finish=finish)


def wrong_value(raw: str, rng: random.Random) -> str:
    """The arguments with one letter or digit of one value changed; still valid JSON, and still of the same types."""
    places = [m.start() for m in re.finditer(r"(?<![\\u0-9a-fA-F])[0-9](?=[0-9])|(?<=[0-9])[0-9]", raw)]
    if places:
        at = rng.choice(places)
        return raw[:at] + str((int(raw[at]) + 1) % 10 or 1) + raw[at + 1 :]
    try:
        value = json.loads(raw)
    except ValueError:
        return raw + " "
    return json.dumps(_bent(value), ensure_ascii=False)


def _bent(value: Any) -> Any:
    """The value with its first leaf changed."""
    if isinstance(value, dict):
        for key, inner in value.items():
            return {**value, key: _bent(inner)}
        return {"unasked_for": 1}
    if isinstance(value, list):
        return [_bent(value[0]), *value[1:]] if value else [1]
    if isinstance(value, bool) or value is None:
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}s"


def _with(solution: Solution, calls: tuple[Call, ...]) -> Solution:
    return Solution(solution.text, calls, solution.reasoning, solution.acceptance, solution.finish)


def _edited(raw: str, more: dict[str, Any]) -> str:
    try:
        return json.dumps(json.loads(raw) | more, ensure_ascii=False)
    except (TypeError, ValueError):
        return raw + "}"


def _doubled(raw: str) -> str:
    """The first key said twice, the second time with its own value: readers that keep the last one see nothing."""
    try:
        value = json.loads(raw)
        key = next(iter(value))
    except (StopIteration, TypeError, ValueError):
        return '{"a": 1, "a": 1}'
    first = json.dumps({key: None}, ensure_ascii=False)[1:-1]
    return "{" + first + ", " + json.dumps(value, ensure_ascii=False)[1:]


def _leaked(raw: str) -> str:
    """DSML inside the last string value, as a parser that misses a close tag leaves it; still valid JSON."""
    leak = '</｜DSML｜parameter>\\n<｜DSML｜parameter name=\\"next\\">'  # noqa: RUF001
    strings = list(re.finditer(r':\s*"(?:[^"\\]|\\.)*"', raw))
    if not strings:
        return _edited(raw, {"next": "</｜DSML｜parameter>"})  # noqa: RUF001
    at = strings[-1].end() - 1
    return raw[:at] + leak + raw[at:]


_ARGUMENTS: dict[CallFault, Callable[[str, random.Random], str]] = {
    "truncated-call": lambda raw, _: raw[: max(1, int(len(raw) * 0.6))],
    "malformed-arguments": lambda raw, _: re.sub(r'"(\s*:)', r"'\1", raw, count=1) if '":' in raw else raw + "}",
    "trailing-bytes": lambda raw, rng: raw + rng.choice(["}", "\n```", ' {"a": 1}']),
    "duplicate-keys": lambda raw, _: _doubled(raw),
    "extra-property": lambda raw, rng: _edited(raw, {"unasked_for": rng.randrange(1000)}),
    "wrong-value": wrong_value,
    "dsml-in-arguments": lambda raw, _: _leaked(raw),
}
