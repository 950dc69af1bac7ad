"""The corpus: enough different prompts, the same for a seed, long answers asked for, and what a right answer is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dspark_ops.bench.corpus.build import TEMPLATES, long_prompt, make_prompts
from dspark_ops.bench.corpus.model import CONTENT_CLASSES, ContentClass, Prompt, is_correct
from dspark_ops.bench.predictable import flag, text_signals
from dspark_ops.openai_api.model import Answer, Failure, ToolCall
from tests.unit.bench.answers import made_answer

LONG_ENOUGH = 512


def _made(name: ContentClass, count: int = 12, seed: int = 0) -> tuple[Prompt, ...]:
    return make_prompts(name, count, seed=seed, max_tokens=640, preamble_chars=2000, context_chars=6000)


@pytest.mark.parametrize("name", CONTENT_CLASSES)
def test_a_class_has_a_dozen_different_prompts(name: ContentClass) -> None:
    prompts = _made(name)
    assert len({prompt.sha256 for prompt in prompts}) == 12
    assert len({prompt.key for prompt in prompts}) == 12
    assert all(prompt.content_class == name for prompt in prompts)
    assert all(prompt.max_tokens >= LONG_ENOUGH for prompt in prompts)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_used(name: ContentClass) -> None:
    assert {prompt.template for prompt in _made(name)} == {make.__name__ for make in TEMPLATES[name]}


def test_another_seed_has_none_of_the_prompts() -> None:
    ours = {prompt.sha256 for name in CONTENT_CLASSES for prompt in _made(name)}
    theirs = {prompt.sha256 for name in CONTENT_CLASSES for prompt in _made(name, seed=1)}
    assert not ours & theirs


def test_the_same_seed_gives_the_same_prompts_in_another_process() -> None:
    program = (
        "from dspark_ops.bench.corpus.build import make_prompts\n"
        "print(make_prompts('code', 3, seed=5, max_tokens=640, preamble_chars=900, context_chars=900)[2].sha256)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert told == make_prompts("code", 3, seed=5, max_tokens=640, preamble_chars=900, context_chars=900)[2].sha256


def test_no_two_prompts_begin_alike_long_enough_for_a_cache_block() -> None:
    texts = [prompt.user_text for name in CONTENT_CLASSES for prompt in _made(name)]
    # The fixed opening has about 80 characters; a block of 64 tokens would need 200 at least.
    assert len({text[:200] for text in texts}) == len(texts)


@pytest.mark.parametrize("name", [name for name in CONTENT_CLASSES if name not in ("long-context", "predictable")])
def test_the_prompts_themselves_are_not_predictable(name: ContentClass) -> None:
    flagged = [prompt.key for prompt in _made(name, 24) if flag(text_signals(prompt.user_text)).predictable]
    assert flagged == []


def test_a_long_prompt_has_about_the_length_asked_for() -> None:
    prompt = long_prompt(0, seed=0, chars=300_000, max_tokens=64)
    assert 0.99 < prompt.chars / 300_000 < 1.02
    assert prompt.expected.values[0] in prompt.user_text


def test_the_needle_stands_at_every_depth() -> None:
    places = [p.user_text.index("and only this note says so") / p.chars for p in _made("long-context")]
    assert places == sorted(places)
    assert places[0] < 0.1
    assert places[-1] > 0.85


def test_tool_prompts_offer_the_tool_and_its_schema_takes_the_arguments() -> None:
    import jsonschema

    for prompt in _made("tool-json"):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in prompt.tools}
        assert len(offered) == 2
        jsonschema.Draft202012Validator(offered[prompt.expected.values[0]]).validate(prompt.expected.arguments)


def test_reasoning_answers_are_whole_numbers_and_the_recurrence_is_right() -> None:
    for prompt in _made("reasoning", 24):
        assert prompt.expected.values[0].isdigit()
    found = next(p for p in _made("reasoning") if p.template == "remainder")
    text = found.user_text
    numbers = [
        int("".join(c for c in word if c.isdigit())) for word in text.split("starts at")[1].split() if word[0].isdigit()
    ]
    value, times, plus, modulo, rounds = numbers[:5]
    for _ in range(rounds):
        value = (value * times + plus) % modulo
    assert found.expected.values[0] == str(value)


def _one(name: ContentClass) -> Prompt:
    return _made(name)[0]


def _call(prompt: Prompt, **changes: object) -> Answer:
    arguments = json.dumps(prompt.expected.arguments | changes)
    return made_answer("", tool_calls=(ToolCall(index=0, name=prompt.expected.values[0], arguments=arguments),))


def test_a_right_answer_is_right_and_a_wrong_one_wrong() -> None:
    code, reasoning, tool = _one("code"), _one("reasoning"), _one("tool-json")
    number = reasoning.expected.values[0]
    assert is_correct(code, made_answer(" ".join(code.expected.values))) is True
    assert is_correct(code, made_answer("something else")) is False
    assert is_correct(reasoning, made_answer(f"so\nANSWER: {int(number):,}")) is True
    assert is_correct(reasoning, made_answer(f"ANSWER: {number}\nno:\n**ANSWER: {int(number) + 1}**")) is False
    assert is_correct(reasoning, made_answer(f"It is {number}.")) is False
    assert is_correct(tool, _call(tool)) is True
    assert is_correct(tool, _call(tool, more=1)) is False
    assert is_correct(tool, made_answer("I will not call it.")) is False


def test_what_was_cut_before_it_could_be_right_is_not_told() -> None:
    for name in ("code", "reasoning", "tool-json"):
        cut = made_answer("It begins", finish_reason="length")
        assert is_correct(_one(name), cut) is None
    failed = made_answer("").model_copy(update={"failure": Failure(kind="cut", message="gone")})
    assert is_correct(_one("code"), failed) is None
