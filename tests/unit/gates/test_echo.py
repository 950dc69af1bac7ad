"""Prompt echo: sixteen words in a row of what only the prompt said."""

from __future__ import annotations

import json

from dspark_ops.gates.case import Case
from dspark_ops.gates.echo import echoes, shared_runs
from tests.unit.gates.answers import answer, case_of, right


def system_words(case: Case, number: int) -> str:
    return " ".join(case.request.messages[0]["content"].split()[40 : 40 + number])


def test_narration_and_schema_dump_are_echoes_in_any_spacing() -> None:
    case = case_of("report")
    told = f"As an assistant I am told: {system_words(case, 60)}".upper().replace(" ", "\n ")
    assert echoes(case, answer(told))
    dump = json.dumps(case.request.tools[1], indent=4)
    assert echoes(case, answer(dump))
    assert echoes(case, answer(dump.replace('"', "").replace("{", "")))


def test_an_echo_in_arguments_is_one() -> None:
    case = case_of("tool-call")
    call = {"index": 0, "id": "a", "name": "book_slot", "arguments": json.dumps({"site": system_words(case, 40)})}
    assert [reason.code for reason in echoes(case, answer("", tool_calls=(call,)))] == ["prompt-echo"]


def test_fifteen_words_are_none_and_sixteen_are() -> None:
    words = [f"w{n}" for n in range(40)]
    given = " ".join(words)
    assert shared_runs([" ".join(words[:15])], [given]) == ()
    assert len(shared_runs([" ".join(words[:16])], [given])) == 1
    assert shared_runs([" ".join([*words[:10], "x", *words[10:22]])], [given]) == ()


def test_what_the_task_asks_to_quote_is_no_echo() -> None:
    words = " ".join(f"w{n}" for n in range(40))
    assert shared_runs([words], [words], [words]) == ()
    case = next(c for seed in range(30) if (c := case_of("tool-values", seed)).quoted)
    assert echoes(case, right(case)) == ()


def test_the_users_own_words_may_be_repeated() -> None:
    case = case_of("report")
    assert echoes(case, answer(case.request.messages[-1]["content"])) == ()
