"""Which cases a gate draws: an agent's for a real model, known text for one that can say nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

from pydantic import Field

from dspark_ops.gates import words
from dspark_ops.gates.agent_text import paragraphs
from dspark_ops.gates.agent_tools import function_tool, offered_tools
from dspark_ops.gates.case import Case, CaseKind, Expected, ExpectedCall, ExpectedCalls, ExpectedText
from dspark_ops.gates.prompts import NO_THINKING, TOKENS_PER_CHARACTER, make_case
from dspark_ops.openai_api.model import ChatRequest, Record

#: What a gate asks for: any kind of text, any with tools, or the pair of turns that shows a poisoned state.
Want = Literal["text", "tool", "second-turn"]


class Book(Protocol):
    """Kinds of cases with weights, and how one is made."""

    def weights(self, want: Want) -> Mapping[CaseKind, float]:
        """The kinds that answer this want, with their shares; empty: the book has none."""
        ...

    def make(self, kind: CaseKind, rng: random.Random, *, prompt_tokens: int, salt: str, stream: bool = True) -> Case:
        """A case of this kind."""
        ...


def draw(book: Book, want: Want, rng: random.Random) -> CaseKind | None:
    """A kind by its weight; None: the book has none of these."""
    shares = book.weights(want)
    return rng.choices(list(shares), weights=list(shares.values()))[0] if shares else None


class AgentBook(Record):
    """The default: prompts as an agent sends them.

    tokens_per_character: see prompts.measured_ratio. extra: further body fields for every request.
    """

    model: str
    tokens_per_character: float = TOKENS_PER_CHARACTER
    temperature: float = 0.0
    top_p: float = 1.0
    extra: dict[str, Any] | None = None
    thinking_tokens: int = 0

    def weights(self, want: Want) -> Mapping[CaseKind, float]:
        match want:
            case "text":
                return {"arithmetic": 2, "needle": 2, "sorting": 1, "code": 2, "json": 2, "report": 3}
            case "tool":
                return {
                    "tool-call": 2,
                    "tool-values": 3,
                    "tool-parallel": 2,
                    "tool-none": 1,
                    "tool-forced": 1,
                    "tool-history": 2,
                    "tool-truncated": 1,
                }
            case "second-turn":
                return {"second-turn": 1}

    def make(self, kind: CaseKind, rng: random.Random, *, prompt_tokens: int, salt: str, stream: bool = True) -> Case:
        return make_case(
            kind,
            rng,
            prompt_tokens=prompt_tokens,
            salt=salt,
            model=self.model,
            tokens_per_character=self.tokens_per_character,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=stream,
            extra=self.extra,
            thinking_tokens=self.thinking_tokens,
        )


class LongText(Record):
    """A text that goes on for ever. prompt: what makes the model say it; text: its first max_tokens tokens."""

    prompt: str
    text: str
    max_tokens: int = Field(ge=1)


class KnownTextBook(Record):
    """For a model that says a known text whatever it is asked, as a rehearsal's does. Prompts are an agent's.

    text: its answer without tools; call: the call that it makes when it is offered tools; None: it makes none. long: a
    long text of it, which is asked for in place of the short one: six short ones are never decoded at once. The model
    cannot recall anything, so there is no second turn.
    """

    model: str
    text: str
    call: ExpectedCall | None = None
    long: LongText | None = None
    prompt_word: str = "hello"
    tokens_per_character: float = 1.0
    max_tokens: int = 64
    call_max_tokens: int = 64
    extra: dict[str, Any] | None = None

    def weights(self, want: Want) -> Mapping[CaseKind, float]:
        if want == "text":
            return {"known-text": 1} if self.long is None else {"known-long": 1}
        return {"known-call": 1} if want == "tool" and self.call is not None else {}

    def make(self, kind: CaseKind, rng: random.Random, *, prompt_tokens: int, salt: str, stream: bool = True) -> Case:
        nonce = words.hexadecimal(rng, 16)
        room = prompt_tokens / self.tokens_per_character - 200
        tools: tuple[dict[str, Any], ...] = ()
        prompt, most, expected = self.prompt_word, self.max_tokens, cast("Expected", ExpectedText(text=self.text))
        if kind == "known-call" and self.call is not None:
            tools = offered_tools(rng, (_tool_for(self.call),), characters=room * 0.4, most=58, fewest=1, nonce=nonce)
            most, expected = self.call_max_tokens, ExpectedCalls(calls=(self.call,))
        if kind == "known-long" and self.long is not None:
            prompt, most = self.long.prompt, self.long.max_tokens
            expected = ExpectedText(text=self.long.text, finish="length")
        room -= len(json.dumps(list(tools)))
        request = ChatRequest(
            model=self.model,
            messages=(
                {"role": "system", "content": f"[{nonce}] {paragraphs(rng, characters=room, facts=())}"},
                {"role": "user", "content": prompt},
            ),
            tools=tools,
            tool_choice="auto" if tools else None,
            max_tokens=most,
            stream=stream,
            cache_salt=salt,
            extra=NO_THINKING if self.extra is None else self.extra,
        )
        return Case(kind=kind, request=request, expected=expected, nonce=nonce)


def _tool_for(call: ExpectedCall) -> dict[str, Any]:
    """A tool that such a call fits."""
    kinds: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
    kinds |= {list: "array", dict: "object", type(None): "null"}
    properties = {key: {"type": kinds[type(value)]} for key, value in call.arguments.items()}
    return function_tool(call.name, f"Answers {call.name}.", properties, tuple(call.arguments))
