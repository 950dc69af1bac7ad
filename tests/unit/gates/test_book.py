"""Books: what a gate draws from, for an agent's model and for one that knows a single text."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from dspark_ops.gates.book import AgentBook, Book, KnownTextBook, LongText, Want, draw
from dspark_ops.gates.case import TEXT_KINDS, TOOL_KINDS, Case, ExpectedCall
from dspark_ops.gates.oracles import judge
from dspark_ops.gates.prompts import characters
from dspark_ops.openai_api.model import ToolCall
from tests.unit.gates.answers import answer, right

FOX = "The quick brown fox jumps over the lazy dog."
CALL = ExpectedCall(name="get_weather", arguments={"city": "Paris", "days": 3})
AGENT, KNOWN = AgentBook(model="m"), KnownTextBook(model="m", text=FOX, call=CALL)
WANTS: tuple[Want, ...] = ("text", "tool", "second-turn")


def make(book: Book, want: Want, seed: int = 1, tokens: int = 3000) -> Case:
    rng = random.Random(seed)  # noqa: S311
    kind = draw(book, want, rng)
    assert kind is not None
    return book.make(kind, rng, prompt_tokens=tokens, salt=f"s{seed}")


def test_an_agents_book_draws_every_kind_it_offers() -> None:
    drawn: Counter[str] = Counter()
    rng = random.Random(3)  # noqa: S311
    for want in WANTS:
        drawn.update(draw(AGENT, want, rng) or "none" for _ in range(300))
    assert set(drawn) == {*TEXT_KINDS, *TOOL_KINDS}


@pytest.mark.parametrize("want", WANTS)
def test_an_agents_cases_can_be_answered(want: Want) -> None:
    for seed in range(10):
        case = make(AGENT, want, seed)
        assert case.request.model == "m"
        assert judge(case, right(case)).outcome == "pass"


def test_a_long_known_text_is_asked_for_in_place_of_the_short_one() -> None:
    long = LongText(prompt="COUNT", text="1 2 3 4", max_tokens=4)
    case = make(KNOWN.model_copy(update={"long": long}), "text")
    assert (case.kind, case.request.messages[-1]["content"], case.request.max_tokens) == ("known-long", "COUNT", 4)
    assert judge(case, right(case)).outcome == "pass"
    assert judge(case, answer("1 2 3 4", finish_reason="length")).outcome == "pass"
    assert judge(case, answer("1 2 4 4", finish_reason="length")).outcome == "fail"
    # It goes on for ever: one that ended by itself was not that text.
    assert judge(case, answer("1 2 3 4")).outcome == "fail"


def test_known_text_is_judged_to_the_letter() -> None:
    case = make(KNOWN, "text")
    assert judge(case, right(case)).outcome == "pass"
    assert judge(case, answer(f" {FOX}\n")).outcome == "pass"
    for wrong in (FOX[:-1], FOX.lower(), f"{FOX} {FOX}", FOX.replace("quick", "quikc"), "", f"Sure: {FOX}"):
        assert judge(case, answer(wrong)).outcome == "fail", wrong
    assert judge(case, answer(FOX, finish_reason="length")).outcome == "fail"


def test_the_known_call_is_judged_by_every_rule() -> None:
    case = make(KNOWN, "tool")
    assert "get_weather" in [tool["function"]["name"] for tool in case.request.tools]
    assert judge(case, right(case)).outcome == "pass"
    spoilt = ToolCall(index=0, id="c", name="get_weather", arguments='{"city": "Paris", "days": 4}')
    assert judge(case, right(case, tool_calls=(spoilt,))).outcome == "fail"
    assert judge(case, right(case, finish_reason="stop")).outcome == "fail"


@pytest.mark.parametrize("want", ["text", "tool"])
@pytest.mark.parametrize("tokens", [1500, 3000, 7000])
def test_prompts_of_known_text_are_long_cold_and_different(want: Want, tokens: int) -> None:
    one, other = make(KNOWN, want, 1, tokens), make(KNOWN, want, 2, tokens)
    assert 0.75 * tokens < characters(one.request) <= tokens
    assert one.request.messages[0]["content"].startswith(f"[{one.nonce}]")
    assert one.request.messages[0]["content"][:6] != other.request.messages[0]["content"][:6]
    assert one.request.cache_salt != other.request.cache_salt
    assert one == make(KNOWN, want, 1, tokens)


def test_a_model_that_cannot_recall_or_call_is_not_asked_to() -> None:
    rng = random.Random(1)  # noqa: S311
    assert draw(KNOWN, "second-turn", rng) is None
    assert draw(KnownTextBook(model="m", text=FOX), "tool", rng) is None


def test_a_known_call_may_have_every_type_of_json() -> None:
    arguments: dict[str, Any] = {
        "text": "a",
        "none": None,
        "flag": True,
        "list": [1],
        "object": {},
        "count": 1,
        "ratio": 0.5,
    }
    book = KnownTextBook(model="m", text="t", call=ExpectedCall(name="f", arguments=arguments))
    case = make(book, "tool")
    assert judge(case, right(case)).outcome == "pass"
