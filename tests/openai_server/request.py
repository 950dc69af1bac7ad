"""One request inside the engine, and the script of what it will generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.openai_server.answers import Call, Solution
from tests.openai_server.tokens import pieces

Field = Literal["content", "reasoning", "call", "arguments", "markup"]


@dataclass(frozen=True)
class Token:
    """One token to generate: where its text goes (markup goes nowhere) and, of a call, which."""

    field: Field
    text: str
    call: int = -1


@dataclass
class Script:
    """All that one answer will be. finish: the engine's own reason (`stop` or `length`) or what a fault says instead.

    stop_at: after so many tokens the trouble in `trouble` happens.
    """

    tokens: list[Token]
    calls: tuple[Call, ...]
    call_ids: tuple[str, ...]
    engine_finish: Literal["stop", "length"]
    finish: str | None = None
    acceptance: tuple[float, ...] | None = None
    trouble: Literal["cut", "hang", "in-band", "bad-json"] | None = None
    stop_at: int = 0

    @property
    def content(self) -> str:
        return "".join(t.text for t in self.tokens if t.field == "content")

    @property
    def reasoning(self) -> str:
        return "".join(t.text for t in self.tokens if t.field == "reasoning")

    def reasoning_tokens(self, upto: int) -> int:
        """Of the first `upto` tokens, how many are reasoning."""
        return sum(1 for t in self.tokens[:upto] if t.field == "reasoning")

    def given_calls(self, upto: int | None = None) -> list[tuple[str, str, str]]:
        """(id, name, arguments) of the calls in the first `upto` tokens, as a parser reads them."""
        names: dict[int, list[str]] = {}
        for token in self.tokens[:upto]:
            if token.field == "call":
                names[token.call] = []
            elif token.field == "arguments":
                names[token.call].append(token.text)
        return [(self.call_ids[i], self.calls[i].name, "".join(parts)) for i, parts in names.items()]


def script_of(solution: Solution, max_tokens: int, call_ids: tuple[str, ...]) -> Script:
    """The answer's tokens in the order of generation: reasoning, text, calls in markup, the end token."""
    tokens = [Token("reasoning", p) for p in pieces(solution.reasoning)]
    if tokens:
        tokens.append(Token("markup", "</think>"))
    tokens += [Token("content", p) for p in pieces(solution.text)]
    for index, call in enumerate(solution.tool_calls):
        tokens += [Token("markup", "<call>"), Token("call", call.name, index)]
        tokens += [Token("arguments", p, index) for p in pieces(call.arguments)]
        tokens.append(Token("markup", "</call>"))
    tokens.append(Token("markup", "<eos>"))
    whole = len(tokens) <= max_tokens
    return Script(
        tokens=tokens[:max_tokens],
        calls=solution.tool_calls,
        call_ids=call_ids,
        engine_finish="stop" if whole else "length",
        finish=solution.finish,
        acceptance=solution.acceptance,
    )


@dataclass(eq=False)
class Request:
    """What the engine knows of a request. Times are the loop's seconds; outputs carries tokens so far, None at the
    end."""

    number: int
    body: dict[str, Any]
    prompt: list[str]
    keys: list[int]
    max_tokens: int
    arrival: float
    decide: Callable[[Request], Script]
    read_cache: bool = True
    burst: int = 0
    place: int = 0
    outputs: asyncio.Queue[int | None] = field(default_factory=asyncio.Queue)
    admitted: float | None = None
    computed: int = 0
    cached: int = 0
    reported_cached: int = 0
    concurrent: bool = False
    first_at: float | None = None
    last_at: float | None = None
    first_delivery: tuple[float, int] | None = None
    ended_at: float | None = None
    script: Script | None = None
    sent: int = 0
    finish: str | None = None
    frozen: bool = False
    drafts: int = 0
    accepted: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def cold(self) -> bool:
        """No block of its prompt came from the cache."""
        return self.cached == 0

    @property
    def prefilling(self) -> bool:
        return self.first_at is None and self.finish is None
