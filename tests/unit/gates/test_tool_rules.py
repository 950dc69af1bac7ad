"""Integrity of tool calls: each rule broken by itself is found under its own name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspark_ops.gates.case import Case, CaseKind, ExpectedCalls, Verdict
from dspark_ops.gates.oracles import judge
from dspark_ops.gates.tool_rules import compare_structure
from dspark_ops.openai_api.model import Answer, ToolCall
from tests.unit.gates.answers import answer, case_of, right


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def with_arguments(case: Case, arguments: str, at: int = 0, **more: Any) -> Answer:
    """The right answer, but for one call's arguments."""
    calls = list(case.ground_truth()[1])
    calls[at] = calls[at].model_copy(update={"arguments": arguments, **more})
    return right(case, tool_calls=tuple(calls))


def expected(case: Case) -> ExpectedCalls:
    assert isinstance(case.expected, ExpectedCalls)
    return case.expected


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda a: a[:-1], "arguments-invalid"),
        (lambda a: a.replace('"', "'", 1), "arguments-invalid"),
        (lambda a: a[:0], "arguments-invalid"),
        (lambda a: a + "}", "arguments-trailing-bytes"),
        (lambda a: a + '{"a": 1}', "arguments-trailing-bytes"),
        (lambda a: '{"urgent": null, ' + a[1:], "arguments-duplicate-key"),
        (lambda a: a.replace("{", '{"minutes": NaN, "x": ', 1), "arguments-constant"),
        (lambda a: "[" * len(a) * 1000, "arguments-depth"),
        (lambda a: f"[{a}]", "arguments-no-object"),
        (lambda a: json.dumps(json.loads(a) | {"more": 1}), "arguments-schema"),
        (lambda a: json.dumps({k: v for k, v in json.loads(a).items() if k != "day"}), "arguments-schema"),
        (lambda a: json.dumps(json.loads(a) | {"minutes": "90"}), "arguments-schema"),
        (lambda a: json.dumps(json.loads(a) | {"urgent": 1}), "arguments-schema"),
        (lambda a: json.dumps(json.loads(a) | {"minutes": 9999}), "wrong-argument"),
        (lambda a: json.dumps(json.loads(a) | {"site": "Zurich"}), "wrong-argument"),
        (lambda a: json.dumps(json.loads(a) | {"site": "x</\uff5cDSML\uff5cparameter>"}), "control-marks"),
    ],
)
def test_arguments(spoil: Any, code: str) -> None:
    case = case_of("tool-call")
    found = judge(case, with_arguments(case, spoil(case.ground_truth()[1][0].arguments)))
    assert found.outcome == "fail"
    assert code in codes(found)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"name": "book_slots"}, "unknown-function"),
        ({"name": None}, "unknown-function"),
        ({"id": None}, "id-missing"),
        ({"id": ""}, "id-missing"),
        ({"index": 1}, "index"),
    ],
)
def test_a_calls_frame(more: dict[str, Any], code: str) -> None:
    case = case_of("tool-call")
    found = judge(case, with_arguments(case, case.ground_truth()[1][0].arguments, **more))
    assert code in codes(found)


def test_another_tool_that_was_offered_is_wrong_too() -> None:
    case = case_of("tool-call")
    other = next(t["function"] for t in case.request.tools if t["function"]["name"] != "book_slot")
    assert "call-not-asked" in codes(judge(case, with_arguments(case, "{}", name=other["name"])))


def test_number_of_calls_and_their_ids() -> None:
    case = case_of("tool-parallel")
    calls = case.ground_truth()[1]
    assert len(calls) == 3
    in_turn = tuple(call.model_copy(update={"index": n}) for n, call in enumerate(reversed(calls)))
    assert judge(case, right(case, tool_calls=in_turn)).outcome == "pass", "the order is the model's own"
    assert codes(judge(case, right(case, tool_calls=calls[:2]))) == {"calls-missing"}
    more = (*calls, calls[0].model_copy(update={"index": 3, "id": "another"}))
    assert codes(judge(case, right(case, tool_calls=more))) == {"calls-surplus", "call-not-asked"}
    twice = tuple(call.model_copy(update={"id": "same"}) for call in calls)
    assert codes(judge(case, right(case, tool_calls=twice))) == {"id-twice"}
    doubled = (calls[0], calls[0].model_copy(update={"index": 1, "id": "b"}), calls[2])
    assert codes(judge(case, right(case, tool_calls=doubled))) == {"wrong-argument"}


def test_how_it_ended() -> None:
    case = case_of("tool-call")
    assert codes(judge(case, right(case, finish_reason="stop"))) == {"finish-reason"}
    assert codes(judge(case, right(case, finish_reason="length"))) == {"finish-reason"}
    assert codes(judge(case, answer("I have booked it.", finish_reason="tool_calls"))) == {"calls-missing"}
    assert "calls-missing" in codes(judge(case, answer("", finish_reason="stop")))


def test_text_beside_a_call() -> None:
    case = case_of("tool-call")
    assert judge(case, right(case, content="I book that slot now.")).outcome == "pass"
    for leak in ("</\uff5cDSML\uff5cinvoke>", "<tool_call>", '<parameter name="x">', "<|im_end|>", "[TOOL_CALLS]"):
        assert codes(judge(case, right(case, content=f"I book it. {leak}"))) == {"control-marks"}
    assert codes(judge(case, right(case, content="of the. " * 60))) == {"surplus", "opening"}


def test_values_that_escaping_breaks() -> None:
    seen: set[str] = set()
    for seed in range(12):
        case = case_of("tool-values", seed)
        given = expected(case).calls[0].arguments
        seen |= set(given)
        call = case.ground_truth()[1][0]
        assert judge(case, with_arguments(case, json.dumps(given))).outcome == "pass", "escaped as ASCII"
        for key, value in given.items():
            if isinstance(value, str):
                for wrong in (
                    value[:-1],
                    value + " ",
                    value.replace("\n", "\\n"),
                    value.replace('"', "'"),
                    value[::-1],
                ):
                    if wrong != value:
                        spoilt = with_arguments(case, json.dumps(given | {key: wrong}))
                        assert codes(judge(case, spoilt)) == {"wrong-argument"}, (key, wrong)
        assert call.name in ("store_record", "write_note")
    assert {"count", "matrix", "owner", "content"} <= seen


def test_an_integer_beyond_the_precision_of_a_float_is_exact() -> None:
    case = next(c for seed in range(9) if "count" in expected(c := case_of("tool-values", seed)).calls[0].arguments)
    given = expected(case).calls[0].arguments
    assert given["count"] >= 2**31
    assert "wrong-argument" in codes(
        judge(case, with_arguments(case, json.dumps(given | {"count": given["count"] + 1})))
    )
    rounded = json.dumps(given).replace(str(given["count"]), f"{given['count']:.6e}")
    assert judge(case, with_arguments(case, rounded)).outcome == "fail"


def test_a_long_text_comes_back_byte_by_byte() -> None:
    case = next(
        c
        for seed in range(30)
        if "content" in expected(c := case_of("tool-values", seed, prompt_tokens=20000)).calls[0].arguments
    )
    given = expected(case).calls[0].arguments
    content = given["content"]
    assert 3500 < len(content) < 6000
    assert content in case.request.messages[-1]["content"]
    assert judge(case, with_arguments(case, json.dumps(given | {"content": content + "\n"}))).outcome == "pass"
    for at in (0, len(content) // 2, len(content) - 1):
        wrong = content[:at] + ("x" if content[at] != "x" else "y") + content[at + 1 :]
        found = judge(case, with_arguments(case, json.dumps(given | {"content": wrong})))
        assert codes(found) == {"wrong-argument"}
    lost = content.replace("\n", "", 1)
    assert codes(judge(case, with_arguments(case, json.dumps(given | {"content": lost})))) == {"wrong-argument"}
    # To give back what the task asks to give back is no echo.
    assert judge(case, right(case)).outcome == "pass"


def test_a_call_that_was_cut_off_must_say_so() -> None:
    case = case_of("tool-truncated")
    assert case.request.max_tokens < 150
    assert judge(case, right(case)).outcome == "pass"
    assert judge(case, answer("", finish_reason="length")).outcome == "pass", "nothing of the call was complete"
    assert codes(judge(case, right(case, finish_reason="tool_calls"))) == {"finish-reason"}
    whole = json.dumps(expected(case).calls[0].arguments)
    for cut in range(1, 400, 7):
        assert judge(case, with_arguments(case, whole[:cut])).outcome == "pass", whole[:cut]
    for wrong in (whole[:60] + "zzzz the the the", whole[:90] + "}", whole[:90] + "\n```", "'" + whole[:50], "[1"):
        assert codes(judge(case, with_arguments(case, wrong))) == {"wrong-argument"}, wrong
    escaped = json.dumps({"path": expected(case).calls[0].arguments["path"], "content": 'a "b"\n'})
    assert codes(judge(case, with_arguments(case, escaped))) == {"wrong-argument"}
    assert "unknown-function" in codes(judge(case, with_arguments(case, whole[:60], name="write_notes")))


def test_text_in_place_of_a_call_that_was_cut_off_is_no_call() -> None:
    case = case_of("tool-truncated")
    assert judge(case, answer("I will write the note now.", finish_reason="length")).outcome == "pass"
    text = "The quick brown fox of the north walks over every hill and " * 3
    assert codes(judge(case, answer(text[:190], finish_reason="length"))) == {"calls-missing"}
    marks = "<\uff5cDSML\uff5cinvoke name"
    assert codes(judge(case, answer(marks, finish_reason="length"))) == {"control-marks"}
    call = right(case).tool_calls[0]
    twice = right(case, tool_calls=(call, call.model_copy(update={"index": 1, "id": "other"})))
    assert codes(judge(case, twice)) == {"calls-surplus"}


def test_no_tool_needed() -> None:
    case = case_of("tool-none")
    assert case.request.tools
    call = ToolCall(index=0, id="c", name="book_slot", arguments="{}")
    assert "call-not-asked" in codes(judge(case, right(case, tool_calls=(call,))))


def test_a_forced_call_may_end_with_stop_and_must_be_that_call() -> None:
    case = case_of("tool-forced")
    assert case.request.body()["tool_choice"] == {"type": "function", "function": {"name": "book_slot"}}
    assert judge(case, right(case, finish_reason="stop")).outcome == "pass"
    assert judge(case, answer("", finish_reason="stop")).outcome == "fail"


def test_the_history_holds_the_value_that_the_call_needs_and_the_task_does_not() -> None:
    case = case_of("tool-history")
    job_id = expected(case).calls[0].arguments["job_id"]
    holders = [m["role"] for m in case.request.messages if job_id in json.dumps(m)]
    assert holders == ["tool"]
    call, result = case.request.messages[-2:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]


@pytest.mark.parametrize("kind", ["tool-call", "tool-parallel", "tool-values"])
def test_streamed_and_whole_are_compared_in_structure_and_not_in_words(kind: CaseKind) -> None:
    case = case_of(kind)
    streamed, whole = right(case, content="I do that."), right(case, content="Doing it.")
    spaced = [
        c.model_copy(update={"arguments": json.dumps(json.loads(c.arguments), indent=2)}) for c in whole.tool_calls
    ]
    assert compare_structure(streamed, whole.model_copy(update={"tool_calls": tuple(spaced)})) == ()


def test_a_difference_in_structure_is_named() -> None:
    case = case_of("tool-parallel")
    one = right(case)
    calls = one.tool_calls

    def differs(**more: Any) -> set[str]:
        return {reason.code for reason in compare_structure(one, one.model_copy(update=more))}

    assert differs(tool_calls=calls[:2]) == {"structure-calls"}
    assert differs(finish_reason="stop") == {"structure-finish"}
    assert differs(content="text") == {"structure-text"}
    assert differs(tool_calls=(calls[0].model_copy(update={"name": "x"}), *calls[1:])) == {"structure-name"}
    cut = calls[0].model_copy(update={"arguments": calls[0].arguments[:-1]})
    assert differs(tool_calls=(cut, *calls[1:])) == {"structure-arguments"}
    failure = answer("", failure={"kind": "cut", "message": "the stream ended early"}).failure
    assert differs(failure=failure) == {"structure-failure"}
