"""One question with its known answer, and what judging an answer to it gives."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from dspark_ops.openai_api.model import ChatRequest, Record, ToolCall

TextKind = Literal["arithmetic", "needle", "sorting", "code", "json", "report", "second-turn"]
ToolKind = Literal[
    "tool-call", "tool-values", "tool-parallel", "tool-none", "tool-forced", "tool-history", "tool-truncated"
]
BookKind = Literal["known-text", "known-long", "known-call"]
CaseKind = TextKind | ToolKind | BookKind

TEXT_KINDS: tuple[TextKind, ...] = ("arithmetic", "needle", "sorting", "code", "json", "report", "second-turn")
TOOL_KINDS: tuple[ToolKind, ...] = (
    "tool-call",
    "tool-values",
    "tool-parallel",
    "tool-none",
    "tool-forced",
    "tool-history",
    "tool-truncated",
)

Outcome = Literal["pass", "fail", "review", "no-answer"]


class Reason(Record):
    """One thing that is wrong with an answer. code: stable, for counting; observed and expected: sentences' parts for
    people, at most a line each.
    """

    code: str
    observed: str
    expected: str


class Verdict(Record):
    """How one answer is judged.

    fail: an oracle, the echo or the likelihood says so. review: only a pattern detector does, a person should look.
    no-answer: the request ended in a failure of transport or server. judged: what was looked at; a method that had
    nothing to go by (no log-probabilities, no baseline) is not in it.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    judged: tuple[str, ...] = ()


class ExpectedCall(Record):
    """A call that must be made, with these values and no others."""

    name: str
    arguments: dict[str, Any]


class ExpectedValue(Record):
    """A labelled line at the end of the answer: `LABEL: value`. steps: lines that a good answer has before it."""

    form: Literal["value"] = "value"
    label: str
    value: str
    integer: bool = False
    steps: tuple[str, ...] = ()


class ExpectedOrder(Record):
    """`LABEL: a, b, c` with these integers in this order."""

    form: Literal["order"] = "order"
    label: str
    values: tuple[int, ...]


class ExpectedCode(Record):
    """A Python function that gives `results[i]` for `arguments[i]`. reference: source that does, our own."""

    form: Literal["code"] = "code"
    function: str
    arguments: tuple[tuple[Any, ...], ...]
    results: tuple[Any, ...]
    reference: str


class ExpectedJson(Record):
    """One JSON document equal to this value."""

    form: Literal["json"] = "json"
    value: dict[str, Any]


class ExpectedReport(Record):
    """One numbered line per subject, each naming it, then `LABEL: value`. sentences: a good answer's lines."""

    form: Literal["report"] = "report"
    subjects: tuple[str, ...]
    sentences: tuple[str, ...]
    label: str
    value: str


class ExpectedCalls(Record):
    """These calls, in any order, and nothing but them. finish: reasons that are right.

    truncated: the answer must be cut off by max_tokens; then the calls are only what it would have said.
    """

    form: Literal["calls"] = "calls"
    calls: tuple[ExpectedCall, ...]
    finish: tuple[str, ...] = ("tool_calls",)
    truncated: bool = False


class ExpectedText(Record):
    """Exactly this text, blanks at both ends aside. reasoning: the same for the reasoning; None: not judged."""

    form: Literal["text"] = "text"
    text: str
    reasoning: str | None = None
    finish: str = "stop"


Expected = Annotated[
    ExpectedValue | ExpectedOrder | ExpectedCode | ExpectedJson | ExpectedReport | ExpectedCalls | ExpectedText,
    Field(discriminator="form"),
]


class Case(Record):
    """One request and what a right answer to it is.

    nonce: leads the system text. quoted: text that the task asks to give back, no echo therefore. tag: given to the
    model for a second turn; None: it has none. warm: the case shares its prefix with an earlier request by intent.
    """

    kind: CaseKind
    request: ChatRequest
    expected: Expected
    nonce: str
    quoted: tuple[str, ...] = ()
    tag: str | None = None
    warm: bool = False

    def ground_truth(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What a perfect model answers: content and tool calls. Ids are made of the nonce."""
        expected = self.expected
        if not isinstance(expected, ExpectedCalls):
            return right_text(expected), ()
        calls = tuple(
            ToolCall(index=n, id=f"call_{self.nonce}_{n}", name=call.name, arguments=_compact(call.arguments))
            for n, call in enumerate(expected.calls)
        )
        if expected.truncated:
            calls = tuple(c.model_copy(update={"arguments": c.arguments[: len(c.arguments) // 4]}) for c in calls[:1])
        return "", calls

    @property
    def finish_reason(self) -> str:
        """The finish reason of a perfect answer."""
        match self.expected:
            case ExpectedCalls(finish=finish):
                return finish[0]
            case ExpectedText(finish=ends):
                return ends
            case _:
                return "stop"


def right_text(expected: Expected) -> str:
    """The text of a perfect answer; empty where calls are expected."""
    match expected:
        case ExpectedValue():
            return "\n".join([*expected.steps, f"{expected.label}: {expected.value}"])
        case ExpectedOrder():
            return f"{expected.label}: {', '.join(map(str, expected.values))}"
        case ExpectedCode():
            return f"```python\n{expected.reference.strip()}\n```"
        case ExpectedJson():
            return json.dumps(expected.value, ensure_ascii=False)
        case ExpectedReport():
            lines = [f"{n}. {sentence}" for n, sentence in enumerate(expected.sentences, 1)]
            return "\n".join([*lines, f"{expected.label}: {expected.value}"])
        case ExpectedText():
            return expected.text
        case ExpectedCalls():
            return ""


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
