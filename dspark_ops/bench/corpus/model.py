"""A prompt of the corpus: what is asked, how long the answer may be, and what a right answer shows."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from dspark_ops.openai_api.model import Answer, Record

ContentClass = Literal["code", "prose", "reasoning", "tool-json", "structured", "long-context", "predictable"]
CONTENT_CLASSES: tuple[ContentClass, ...] = (
    "code",
    "prose",
    "reasoning",
    "tool-json",
    "structured",
    "long-context",
    "predictable",
)


class Expected(Record):
    """What a right answer shows. mentions: all of these texts; final: the number after the last `ANSWER:`; call: one
    tool call of this name with exactly these arguments.
    """

    kind: Literal["mentions", "final", "call"]
    values: tuple[str, ...] = ()
    arguments: dict[str, Any] = Field(default_factory=dict)


class Prompt(Record):
    """One prompt. key: unique in a run. template: which of the class's templates made it. max_tokens: of the answer."""

    key: str
    content_class: ContentClass
    template: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    max_tokens: int = Field(ge=1)
    expected: Expected

    @property
    def sha256(self) -> str:
        """Of what the model is given: messages and tools as canonical JSON."""
        given = json.dumps([self.messages, self.tools], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(given.encode()).hexdigest()

    @property
    def chars(self) -> int:
        """Characters of the messages' texts."""
        return sum(len(str(message["content"])) for message in self.messages)

    @property
    def user_text(self) -> str:
        """The texts of the messages, for comparison with an answer that copies them."""
        return "\n".join(str(message["content"]) for message in self.messages)


def is_correct(prompt: Prompt, answer: Answer) -> bool | None:
    """Whether a whole answer shows what a right one shows.

    None: it cannot be told, since there is no whole answer or it was cut at its limit before it came to that.
    """
    if answer.failure is not None:
        return None
    cut = answer.finish_reason == "length"
    expected = prompt.expected
    if expected.kind == "call":
        return _called(expected, answer, cut)
    # A thought is not an answer, but a text that a parser took for one whole thought is all there is to look at.
    text = answer.content or answer.reasoning
    if expected.kind == "final":
        said = [line.split("ANSWER:", 1)[1] for line in text.splitlines() if "ANSWER:" in line]
        if not said:
            return None if cut else False
        return said[-1].strip(" *.`$").replace(",", "") == expected.values[0]
    if all(value in text for value in expected.values):
        return True
    return None if cut else False


def _called(expected: Expected, answer: Answer, cut: bool) -> bool | None:
    if not answer.tool_calls:
        return None if cut else False
    if len(answer.tool_calls) != 1:
        return False
    call = answer.tool_calls[0]
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return None if cut else False
    return call.name == expected.values[0] and bool(arguments == expected.arguments)
