"""Integrity of tool calls: what a caller relies on, checked call by call."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dspark_ops.gates.case import ExpectedCall, ExpectedCalls, Reason
from dspark_ops.gates.markup import leaked
from dspark_ops.gates.strict_json import NotStrict, difference, read, same, short
from dspark_ops.openai_api.model import Answer, ChatRequest, ToolCall

# The most of a lead-in before a call that was cut off: a third of the tokens that there were.
_CUT_WORDS, _CUT_CHARACTERS = 24, 200
# What makes a document of one that was cut off: after it all, in a text, before a value, in a key, before a key.
_ENDS = ("", "}", '"}', "null}", ":null}", '":null}', '"":null}')


def judge_calls(expected: ExpectedCalls, request: ChatRequest, answer: Answer) -> tuple[Reason, ...]:
    """Every rule that the answer breaks: end, number, ids, names, arguments, values."""
    reasons: list[Reason] = []
    calls = answer.tool_calls
    if answer.finish_reason not in expected.finish:
        observed = f"it ended with {answer.finish_reason}"
        reasons.append(Reason(code="finish-reason", observed=observed, expected=" or ".join(expected.finish)))
    if expected.truncated:
        return (*reasons, *_cut_off(expected, request, answer))
    if not calls and answer.content.strip():
        observed = f"text, no call: {short(answer.content.strip())}"
        reasons.append(Reason(code="calls-missing", observed=observed, expected=_names(expected.calls)))
    elif len(calls) != len(expected.calls):
        code = "calls-missing" if len(calls) < len(expected.calls) else "calls-surplus"
        observed = f"{len(calls)} calls: {', '.join(str(c.name) for c in calls)}"
        reasons.append(Reason(code=code, observed=observed, expected=_names(expected.calls)))
    reasons += _ids(calls)
    given = request.given_text()
    read_calls: list[tuple[ToolCall, Any]] = []
    for call in calls:
        found, arguments = judge_call(call, request, given)
        reasons += found
        if arguments is not None:
            read_calls.append((call, arguments))
    return (*reasons, *_values(expected.calls, read_calls))


def judge_call(call: ToolCall, request: ChatRequest, given: str) -> tuple[tuple[Reason, ...], dict[str, Any] | None]:
    """What is wrong with one call by itself, and its arguments where they could be read."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in request.tools}
    where = f"call {call.index} ({call.name})"
    reasons: list[Reason] = []
    if call.name not in schemas:
        offered = f"one of {len(schemas)} offered tools"
        reasons.append(Reason(code="unknown-function", observed=f"{where} is not offered", expected=offered))
    try:
        arguments = read(call.arguments)
    except NotStrict as error:
        reasons += _marks(where, call.arguments, given)
        observed = f"{where}: {error}: {short(call.arguments)}"
        reasons.append(Reason(code=f"arguments-{error.code}", observed=observed, expected="one strict JSON object"))
        return tuple(reasons), None
    reasons += _marks(where, json.dumps(arguments, ensure_ascii=False), given)
    if not isinstance(arguments, dict):
        observed = f"{where}: {short(arguments)}"
        reasons.append(Reason(code="arguments-no-object", observed=observed, expected="a JSON object"))
        return tuple(reasons), None
    if call.name in schemas:
        reasons += _schema(where, arguments, schemas[call.name])
    return tuple(reasons), arguments


def compare_structure(a: Answer, b: Answer) -> tuple[Reason, ...]:
    """Where two answers to one request (streamed and unary, spec on and off) differ in structure: failures, the end,
    number, names and argument values of calls, whether there is text. The words of a text may differ.
    """
    reasons: list[Reason] = []

    def differ(code: str, one: object, other: object) -> None:
        if one != other:
            reasons.append(Reason(code=code, observed=f"{one}, then {other}", expected="the same in both"))

    differ(
        "structure-failure",
        None if a.failure is None else a.failure.kind,
        None if b.failure is None else b.failure.kind,
    )
    if a.failure is not None or b.failure is not None:
        return tuple(reasons)
    differ("structure-finish", a.finish_reason, b.finish_reason)
    differ("structure-text", bool(a.content.strip()), bool(b.content.strip()))
    differ("structure-calls", len(a.tool_calls), len(b.tool_calls))
    for one, other in zip(a.tool_calls, b.tool_calls, strict=False):
        differ("structure-name", one.name, other.name)
        if not _same_arguments(one.arguments, other.arguments):
            observed = f"{short(one.arguments)}, then {short(other.arguments)}"
            reasons.append(Reason(code="structure-arguments", observed=observed, expected="the same values in both"))
    return tuple(reasons)


def _same_arguments(a: str, b: str) -> bool:
    try:
        return same(read(a), read(b))
    except NotStrict:
        return a == b


def _marks(where: str, text: str, given: str) -> list[Reason]:
    """text: with its escapes undone where it could be read: a mark may hide in them."""
    marks = leaked(text, given)
    observed = f"{where}: {short(list(marks[:4]))} in the arguments"
    return [Reason(code="control-marks", observed=observed, expected="none")] if marks else []


def _ids(calls: Sequence[ToolCall]) -> list[Reason]:
    reasons = []
    missing = [call.index for call in calls if not call.id]
    if missing:
        reasons.append(Reason(code="id-missing", observed=f"call {missing[0]} has no id", expected="an id per call"))
    twice = [name for name, number in Counter(call.id for call in calls if call.id).items() if number > 1]
    if twice:
        reasons.append(Reason(code="id-twice", observed=f"the id {twice[0]} occurs twice", expected="unique ids"))
    places = [call.index for call in calls]
    if sorted(places) != list(range(len(calls))):
        reasons.append(Reason(code="index", observed=f"the indexes {places}", expected=f"0 to {len(calls) - 1}"))
    return reasons


def _schema(where: str, arguments: dict[str, Any], schema: dict[str, Any]) -> list[Reason]:
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator({"additionalProperties": False, **schema}).iter_errors(arguments)), None)
    if error is None:
        return []
    observed = f"{where}: {error.json_path}: {error.message[:160]}"
    return [Reason(code="arguments-schema", observed=observed, expected="arguments that the tool's schema allows")]


def _values(expected: Sequence[ExpectedCall], made: Sequence[tuple[ToolCall, dict[str, Any]]]) -> list[Reason]:
    """Pair each call with an expected one of its name, exact matches first; the rest differs in values."""
    wanted, reasons = list(expected), []
    unmatched = []
    for call, arguments in made:
        hit = next((w for w in wanted if w.name == call.name and _matches(arguments, w.arguments)), None)
        if hit is None:
            unmatched.append((call, arguments))
        else:
            wanted.remove(hit)
    for call, arguments in unmatched:
        near = next((w for w in wanted if w.name == call.name), None)
        if near is None:
            observed = f"call {call.index} ({call.name}) {short(arguments)}"
            reasons.append(Reason(code="call-not-asked", observed=observed, expected=_names(expected)))
            continue
        wanted.remove(near)
        at, observed, right = difference(arguments, near.arguments) or ("$", short(arguments), short(near.arguments))
        reasons.append(
            Reason(code="wrong-argument", observed=f"call {call.index} ({call.name}) {at}: {observed}", expected=right)
        )
    return reasons


def _matches(arguments: Any, expected: Any) -> bool:
    """Equal; a line break more at the end of a text of several lines is taste."""
    if same(arguments, expected):
        return True
    if isinstance(arguments, dict) and arguments.keys() == expected.keys():
        return all(_matches_value(arguments[key], expected[key]) for key in expected)
    return False


def _matches_value(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str) and "\n" in b:
        return a in (b, f"{b}\n")
    return same(a, b)


def _cut_off(expected: ExpectedCalls, request: ChatRequest, answer: Answer) -> list[Reason]:
    """What came before the cut must be the beginning of the one right call. A parser may hold all of it back, but
    then there is hardly any text either: what was said was the call.
    """
    reasons: list[Reason] = []
    calls, text = answer.tool_calls, answer.content.strip()
    given = request.given_text()
    if not calls and (len(text.split()) > _CUT_WORDS or len(text) > _CUT_CHARACTERS):
        observed = f"text, no call: {short(text)}"
        reasons.append(Reason(code="calls-missing", observed=observed, expected=_names(expected.calls)))
    if len(calls) > len(expected.calls):
        observed = f"{len(calls)} calls: {', '.join(str(c.name) for c in calls)}"
        reasons.append(Reason(code="calls-surplus", observed=observed, expected=_names(expected.calls)))
    for call in calls:
        if call.name is not None and not any(wanted.name == call.name for wanted in expected.calls):
            reasons.append(
                Reason(
                    code="unknown-function",
                    observed=f"call {call.index} ({call.name})",
                    expected=_names(expected.calls),
                )
            )
        reasons += _marks(f"call {call.index}", call.arguments, given)
        if not _begins(call.arguments, expected.calls[0].arguments):
            observed = f"call {call.index}: {short(call.arguments)}"
            reasons.append(
                Reason(code="wrong-argument", observed=observed, expected="the beginning of the asked values")
            )
    return reasons


def _begins(arguments: str, expected: dict[str, Any]) -> bool:
    """Whether cut-off arguments are the beginning of the whole ones: of strict JSON, with the beginnings of values."""
    if not arguments.strip():
        return True
    # A cut inside an escape leaves a piece of it.
    text = re.sub(r"\\(?:u[0-9a-fA-F]{0,3})?$", "", arguments) if not arguments.endswith("\\\\") else arguments
    for end in _ENDS:
        try:
            value = read(text + end)
        except NotStrict:
            continue
        return isinstance(value, dict) and all(_begins_item(key, item, expected) for key, item in value.items())
    return False


def _begins_item(key: str, value: Any, expected: dict[str, Any]) -> bool:
    if value is None:
        return any(name.startswith(key) for name in expected)
    right = expected.get(key)
    return isinstance(right, str) and isinstance(value, str) and right.startswith(value)


def _names(calls: Sequence[ExpectedCall]) -> str:
    return (
        f"{len(calls)} calls: {', '.join(call.name for call in calls)}" if len(calls) != 1 else f"one {calls[0].name}"
    )
