"""Requests of the gates: the same generator gives the same request, nothing else does, and each is as long as asked."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.gates.case import TEXT_KINDS, TOOL_KINDS, CaseKind, ExpectedCalls, ExpectedValue
from dspark_ops.gates.oracles import judge
from dspark_ops.gates.prompts import characters, make_case, measured_ratio, second_turn
from tests.unit.gates.answers import answer, case_of, right

KINDS: tuple[CaseKind, ...] = (*TEXT_KINDS, *TOOL_KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_gives_one_request_and_another_gives_another(kind: CaseKind) -> None:
    assert case_of(kind, 7) == case_of(kind, 7)
    one, other = case_of(kind, 7), case_of(kind, 8)
    assert one.nonce != other.nonce
    assert one.expected != other.expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_nonce_is_the_first_thing_that_the_model_reads_and_the_salt_is_sent(kind: CaseKind) -> None:
    case = case_of(kind, salt="grain")
    system = case.request.messages[0]
    assert system["role"] == "system"
    assert system["content"].startswith(f"[{case.nonce}]")
    # There are templates that put the tools before the system text.
    assert case.request.tools[0]["function"]["description"].startswith(f"[{case.nonce}]")
    assert case.request.body()["cache_salt"] == "grain"


def test_two_prompts_share_hardly_more_than_the_bracket_at_their_beginning() -> None:
    texts = [case_of("needle", seed).request.messages[0]["content"] for seed in range(20)]
    assert len({text[:8] for text in texts}) == 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tokens", "ratio"), [(20000, 0.25), (6000, 0.25), (3000, 0.6), (130000, 0.25)])
def test_a_prompt_is_as_long_as_asked(kind: CaseKind, tokens: int, ratio: float) -> None:
    case = case_of(kind, prompt_tokens=tokens, tokens_per_character=ratio)
    assert 0.9 * tokens <= characters(case.request) * ratio <= 1.02 * tokens


def test_a_prompt_can_be_measured_with_the_callers_own_count() -> None:
    case = case_of("report", prompt_tokens=5000, count=lambda text: len(text) // 2)
    assert 9000 <= characters(case.request) <= 10200


def test_a_ratio_that_was_measured_once_gives_the_right_length_the_second_time() -> None:
    first = case_of("sorting", prompt_tokens=5000)
    counted = characters(first.request) // 3
    ratio = measured_ratio(first.request, counted)
    second = case_of("report", 9, prompt_tokens=5000, tokens_per_character=ratio)
    assert 4500 <= characters(second.request) / 3 <= 5100


def test_a_task_that_does_not_fit_is_refused_and_not_cut() -> None:
    with pytest.raises(ConfigError, match="characters"):
        case_of("tool-parallel", prompt_tokens=200)


def test_an_agents_prompt_of_full_length_has_20_to_58_tools_and_a_history() -> None:
    numbers = set()
    for seed in range(12):
        case = case_of("arithmetic", seed, prompt_tokens=20000)
        numbers.add(len(case.request.tools))
        assert len(case.request.messages) > 4
    assert 20 <= min(numbers) <= max(numbers) <= 58
    assert len(numbers) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_every_offered_tool_is_a_valid_schema_that_refuses_other_arguments(kind: CaseKind) -> None:
    case = case_of(kind, prompt_tokens=20000)
    names = [tool["function"]["name"] for tool in case.request.tools]
    assert len(names) == len(set(names))
    for tool in case.request.tools:
        schema = tool["function"]["parameters"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
    if isinstance(case.expected, ExpectedCalls):
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.request.tools}
        for call in case.expected.calls:
            jsonschema.validate(call.arguments, schemas[call.name])


def test_a_needle_is_in_the_long_text_once_among_others_and_not_always_at_one_place() -> None:
    places = []
    for seed in range(30):
        case = case_of("needle", seed)
        assert isinstance(case.expected, ExpectedValue)
        text = case.request.messages[0]["content"]
        assert text.count(case.expected.value) == 1
        assert text.count("The access code of the archive") == 4
        assert case.expected.value not in json.dumps(case.request.messages[1:])
        places.append(text.index(case.expected.value) / len(text))
    assert min(places) < 0.2
    assert max(places) > 0.8


def test_the_second_turn_keeps_the_prefix_and_asks_for_what_the_first_one_gave() -> None:
    case = case_of("second-turn")
    assert case.tag is not None
    assert case.tag not in case.ground_truth()[0], "the first answer would give it away"
    first = right(case)
    turn = second_turn(case, first)
    assert turn is not None
    assert turn.warm
    assert turn.request.messages[: len(case.request.messages)] == case.request.messages
    assert turn.request.cache_salt == case.request.cache_salt
    assert turn.request.messages[-2] == {"role": "assistant", "content": first.content}
    assert case.tag not in turn.request.messages[-1]["content"]
    assert judge(turn, answer(f"TAG: {case.tag}")).outcome == "pass"
    other = f"{case.tag[:-1]}{'0' if case.tag[-1] != '0' else '1'}"
    assert judge(turn, answer(f"TAG: {other}")).outcome == "fail"


def test_there_is_no_second_turn_without_an_answer_or_a_tag() -> None:
    failed = {"failure": {"kind": "timeout", "message": "no end within 5 s"}}
    assert second_turn(case_of("second-turn"), answer("READY", **failed)) is None
    assert second_turn(case_of("needle"), answer("CODE: x")) is None


def test_thinking_is_off_unless_the_caller_says_otherwise() -> None:
    assert case_of("json").request.body()["chat_template_kwargs"] == {"thinking": False, "enable_thinking": False}
    thinking = case_of("json", extra={}, thinking_tokens=2000)
    assert "chat_template_kwargs" not in thinking.request.body()
    assert thinking.request.max_tokens == case_of("json").request.max_tokens + 2000


def test_a_vocabulary_of_single_letters_gets_room_for_its_answers() -> None:
    for kind in KINDS:
        case = case_of(kind, prompt_tokens=9000, tokens_per_character=1.0)
        content, calls = case.ground_truth()
        letters = len(content) + sum(len(call.name or "") + len(call.arguments) for call in calls)
        assert (letters > case.request.max_tokens) == (kind == "tool-truncated"), kind


def test_a_kind_of_another_book_is_refused() -> None:
    with pytest.raises(ConfigError, match="no kind of agent case"):
        make_case("known-text", random.Random(1), prompt_tokens=4000, salt="s")  # noqa: S311
