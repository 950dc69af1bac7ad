"""Oracles: every right answer passes in every honest dress, every wrong value fails in the best one."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from dspark_ops.gates.case import (
    TEXT_KINDS,
    TOOL_KINDS,
    Case,
    CaseKind,
    ExpectedCode,
    ExpectedJson,
    ExpectedOrder,
    ExpectedReport,
    ExpectedValue,
    Verdict,
)
from dspark_ops.gates.oracles import judge
from tests.unit.gates.answers import answer, case_of, right


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


@pytest.mark.parametrize("kind", [*TEXT_KINDS, *TOOL_KINDS])
def test_a_perfect_answer_passes_whatever_was_drawn(kind: CaseKind) -> None:
    # Code runs a process each time.
    for seed in range(3 if kind == "code" else 8):
        case = case_of(kind, seed)
        verdict = judge(case, right(case))
        assert verdict.outcome == "pass", (seed, verdict)
        assert verdict.judged == ("oracle", "echo", "detectors")


_DRESSES: dict[str, Callable[[str], str]] = {
    "blanks": lambda text: f"\n  {text}  \n\n",
    "lead-in": lambda text: f"Sure, here is what you asked for:\n\n{text}",
    "closing": lambda text: f"{text}\n\nLet me know if you need anything else.",
    "windows line ends": lambda text: text.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("dress", _DRESSES)
@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_an_honest_dress_is_no_fault(kind: CaseKind, dress: str) -> None:
    for seed in range(1 if kind == "code" else 4):
        case = case_of(kind, seed)
        verdict = judge(case, answer(_DRESSES[dress](case.ground_truth()[0])))
        assert verdict.outcome == "pass", verdict


@pytest.mark.parametrize(
    "dress",
    ["**{label}: {value}**", "{label}: **{value}**", "{label}: `{value}`", "`{label}: {value}`", "{label} = {value}",
     "> {label}: {value}.", "```\n{label}: {value}\n```", "{value}", "### {label}: {value}", "{label}:{value}"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["arithmetic", "needle", "second-turn"])
def test_a_value_may_be_emphasised(kind: CaseKind, dress: str) -> None:
    case = case_of(kind)
    assert isinstance(case.expected, ExpectedValue)
    given = dress.format(label=case.expected.label, value=case.expected.value)
    assert judge(case, answer(given)).outcome == "pass"


def test_a_thousands_separator_is_taste_and_another_number_is_not() -> None:
    case = case_of("arithmetic")
    assert isinstance(case.expected, ExpectedValue)
    number = int(case.expected.value)
    assert judge(case, answer(f"RESULT: {number:,}")).outcome == "pass"
    assert judge(case, answer(f"RESULT: {number}.0")).outcome == "pass"
    for wrong in (number + 1, -number, number * 10, f"{number}.5", f"{number}{number}", "", "many"):
        assert codes(judge(case, answer(f"RESULT: {wrong}"))) == {"wrong-value"}


def test_the_last_of_several_answers_counts() -> None:
    case = case_of("needle")
    assert isinstance(case.expected, ExpectedValue)
    assert judge(case, answer(f"CODE: 0000-0000-0000\nCODE: {case.expected.value}")).outcome == "pass"
    assert judge(case, answer(f"CODE: {case.expected.value}\nCODE: 0000-0000-0000")).outcome == "fail"


def test_a_decoy_is_not_the_needle() -> None:
    case = case_of("needle", 3)
    assert isinstance(case.expected, ExpectedValue)
    text = case.request.messages[0]["content"]
    others = [part.split(".")[0] for part in text.split(" is ") if part[4:5] == "-" and part[9:10] == "-"]
    decoys = [code for code in others if code != case.expected.value]
    assert len(decoys) == 3
    for decoy in decoys:
        assert codes(judge(case, answer(f"CODE: {decoy}"))) == {"wrong-value"}


def test_sorting_is_strict_in_order_and_number() -> None:
    case = case_of("sorting")
    assert isinstance(case.expected, ExpectedOrder)
    values = list(case.expected.values)
    assert judge(case, answer(" ".join(["SORTED:", *map(str, values)]))).outcome == "pass"
    assert judge(case, answer(f"[{', '.join(map(str, values))}]")).outcome == "pass"
    swapped = [values[1], values[0], *values[2:]]
    for wrong in (swapped, values[:-1], [*values, values[-1]], values[::-1]):
        assert codes(judge(case, answer(f"SORTED: {', '.join(map(str, wrong))}"))) == {"wrong-value"}


def test_json_is_compared_as_values_of_their_types() -> None:
    case = case_of("json")
    assert isinstance(case.expected, ExpectedJson)
    value = case.expected.value
    assert judge(case, answer(json.dumps(value, indent=4, sort_keys=True))).outcome == "pass"
    assert judge(case, answer(f"Here it is:\n```json\n{json.dumps(value)}\n```")).outcome == "pass"
    spoilt = [
        value | {"size_bytes": value["size_bytes"] + 1},
        value | {"size_bytes": str(value["size_bytes"])},
        value | {"open": int(value["open"])},
        value | {"labels": value["labels"][::-1]},
        value | {"more": 1},
        {key: item for key, item in value.items() if key != "parent"},
        value | {"limits": value["limits"] | {"low": -1}},
    ]
    for wrong in spoilt:
        assert codes(judge(case, answer(json.dumps(wrong)))) == {"wrong-value"}
    document = json.dumps(value)
    assert codes(judge(case, answer(f'{{"id": "x", {document[1:]}'))) == {"json-duplicate-key"}
    assert codes(judge(case, answer(document[:-1] + ', "x": NaN}'))) == {"json-constant"}
    assert codes(judge(case, answer(f"{document}\n{document}"))) == {"json-trailing-bytes"}
    assert "json-invalid" in codes(judge(case, answer(document.replace(":", "=", 1))))


def test_code_is_judged_by_what_it_gives() -> None:
    for seed in range(4):
        case = case_of("code", seed)
        assert isinstance(case.expected, ExpectedCode)
        source = case.expected.reference
        assert judge(case, answer(source)).outcome == "pass"
        wrong = source.replace("return ", "return None and ", 1)
        assert codes(judge(case, answer(f"```python\n{wrong}\n```"))) == {"wrong-result"}
        other = source.replace(case.expected.function, "something_else")
        assert codes(judge(case, answer(f"```python\n{other}\n```"))) == {"no-code"}
        broken = source.replace(":", "", 1)
        assert codes(judge(case, answer(f"```python\n{broken}\n```"))) == {"code-fails"}


def test_the_data_of_a_code_task_show_every_slip_of_one() -> None:
    for seed in range(40):
        expected = case_of("code", seed).expected
        assert isinstance(expected, ExpectedCode)
        for number in re.finditer(r"(?<![\w.])\d+(?!\w)", expected.reference.split("\n", 1)[1]):
            for slip in (-1, 1):
                wrong = f"{int(number.group()) + slip}"
                at = expected.reference.index("\n") + 1 + number.start()
                source = expected.reference[:at] + wrong + expected.reference[at + len(number.group()) :]
                assert _outputs(source, expected) != list(expected.results), (seed, source)


def _outputs(source: str, expected: ExpectedCode) -> list[Any]:
    """Our own reference with a slip in it; nothing that a model wrote."""
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102
    try:
        return [names[expected.function](*given) for given in expected.arguments]
    except (ZeroDivisionError, ValueError, IndexError):
        return []


def test_a_report_is_held_to_its_lines_and_their_subjects() -> None:
    case = case_of("report")
    assert isinstance(case.expected, ExpectedReport)
    text, subjects = case.ground_truth()[0], case.expected.subjects
    lines = text.split("\n")
    assert judge(case, answer(text.replace("1. ", "**1.** ", 1))).outcome == "pass"
    assert codes(judge(case, answer("\n".join([*lines[:2], *lines[3:]])))) == {"wrong-lines", "wrong-line"}
    assert "wrong-line" in codes(judge(case, answer(text.replace(subjects[0], "TICKET", 1))))
    assert "wrong-line" in codes(judge(case, answer(text.replace(subjects[1], subjects[0]))))
    long = text.replace(lines[3], lines[3] + " and again and again" * 20)
    assert codes(judge(case, answer(long))) == {"line-length"}
    assert codes(judge(case, answer(text.replace(case.expected.value, "0000-0000-0000")))) == {"wrong-value"}


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_what_was_not_asked_for_fails(kind: CaseKind) -> None:
    case = case_of(kind)
    text, _ = case.ground_truth()
    filler = "And another thing that nobody wanted to know. " * 8
    assert "surplus" in codes(judge(case, answer(f"{filler}\n{text}")))
    assert codes(judge(case, answer("", finish_reason="stop"))) == {"empty"}
    call = {"index": 0, "id": "c", "name": "read_file", "arguments": "{}"}
    assert "call-not-asked" in codes(judge(case, answer(text, tool_calls=(call,))))
    assert codes(judge(case, answer(text, finish_reason="length"))) == {"finish-reason"}
    assert codes(judge(case, answer(text, finish_reason="repetition"))) == {"finish-reason"}


@pytest.mark.parametrize("kind", ["connect", "timeout", "http", "cut", "in-band", "malformed"])
def test_a_failure_of_the_server_is_no_answer_and_says_which(kind: str) -> None:
    case = case_of("json")
    failure = {"kind": kind, "status": 500, "message": "EngineCore encountered an issue"}
    verdict = judge(case, right(case, failure=failure))
    assert verdict.outcome == "no-answer"
    assert codes(verdict) == {kind}
    assert "EngineCore" in verdict.reasons[0].observed


def test_a_text_may_quote_the_scripts_that_the_prompt_holds() -> None:
    case = next(
        c
        for seed in range(99)
        if "你好" in json.dumps((c := case_of("tool-values", seed)).request.messages, ensure_ascii=False)
    )
    assert judge(case, right(case)).outcome == "pass"
    assert judge(case, right(case, content="I store the record 你好.")).outcome == "pass"
    assert codes(judge(case, right(case, content="I store the record 的是了."))) == {"foreign-script"}


def test_reasoning_is_free_but_for_marks_of_the_models_own_encoding() -> None:
    case = case_of("needle")
    assert judge(case, right(case, reasoning="hmm, let me look 的 " * 50)).outcome == "pass"
    leak = "<\uff5cDSML\uff5ctool_calls>"
    assert codes(judge(case, right(case, reasoning=f"I will {leak}"))) == {"control-marks"}


def test_a_pattern_alone_asks_for_a_review() -> None:
    case = case_of("report", 5)
    text = case.ground_truth()[0].replace(".", ". " + "! " * 0, 1)
    trailing = f"{text}\n\nGood luck {'!' * 30}"
    verdict = judge(case, answer(trailing))
    assert verdict.outcome == "review"
    assert codes(verdict) == {"detector-char-run"}


def test_judging_never_fails_on_what_a_server_may_send() -> None:
    rng = random.Random(5)  # noqa: S311
    kinds: list[Case] = [case_of(kind) for kind in (*TEXT_KINDS, *TOOL_KINDS)]
    pieces = [
        "RESULT:",
        "CODE: ",
        "```",
        "{",
        "}",
        '"',
        "\\",
        "\n",
        "\x00",
        "\ud7ff",
        "1.",
        "def ",
        "[",
        "<\uff5c",
        "9" * 5000,
        "{" * 3000,
    ]
    for _ in range(50):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        call = {
            "index": rng.randrange(3),
            "id": None,
            "name": rng.choice([None, "read_file", "book_slot"]),
            "arguments": text,
        }
        for case in kinds:
            if case.kind != "code":
                verdict = judge(case, answer(text, tool_calls=(call,) if rng.random() < 0.5 else ()))
                assert verdict.outcome == "fail"


def test_an_answer_without_end_is_bad_and_not_looked_at() -> None:
    """A server that heeds no limit must not keep the gate busy for hours."""
    for kind in ("json", "code", "arithmetic"):
        case = case_of(kind)
        found = judge(case, answer("```a\n" * 200_000, finish_reason="length"))
        assert codes(found) == {"too-long"}
    case = case_of("tool-call")
    call = right(case).tool_calls[0].model_copy(update={"arguments": "word " * 1_000_000})
    assert codes(judge(case, right(case, tool_calls=(call,)))) == {"too-long"}


@pytest.mark.timeout(20)
def test_blanks_without_end_are_judged_at_once() -> None:
    case = case_of("arithmetic")
    blanks = "-" + " " * 19_000 + "x\n" + right(case).content
    assert judge(case, answer(blanks)).outcome in ("pass", "fail", "review")
