"""Patterns: each fires on what it is for, is quiet on what looks like it, and never fails an answer by itself."""

from __future__ import annotations

import json

import pytest

from dspark_ops.gates.detectors import DETECTORS, suspicions
from dspark_ops.gates.oracles import judge
from tests.unit.gates.answers import answer, case_of
from tests.unit.gates.honest_texts import honest_texts

BAR = "\uff5c"
SENTENCE = "The second reading is sent to the office before the copy is kept for a year. "


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("special-tokens", f"<{BAR}begin\u2581of\u2581sentence{BAR}>The answer"),
        ("special-tokens", f"so it is.</{BAR}DSML{BAR}invoke>"),
        ("special-tokens", "I look. <tool_call>"),
        ("special-tokens", "and then<|im_end|>"),
        ("special-tokens", "well </think> yes"),
        ("char-run", f"{SENTENCE}{'!' * 40}"),
        ("char-run", f"{'0' * 24} and more"),
        ("periodic-tail", SENTENCE * 6),
        ("periodic-tail", f"{SENTENCE * 6}The second reading is"),
        ("periodic-tail", "yes " * 48),
        ("periodic-tail", f"An opening. {(' '.join(f'w{n}' for n in range(30)) + ' ') * 5}"),
        ("loop", f"{SENTENCE * 4}And then something else was said about the meter."),
        ("loop", f"{(' '.join(f'w{c}' for c in 'abcdefgh') + ' ') * 6}That was it."),
        ("foreign-script", f"{SENTENCE}的一是"),
        ("foreign-script", "Ответ"),
        ("opening", "'s, and tools."),
        ("opening", ", which is why"),
        ("opening", ") and so on"),
    ],
)
def test_fires(name: str, text: str) -> None:
    assert DETECTORS[name](text, "an English prompt") is not None
    assert f"detector-{name}" in {reason.code for reason in suspicions(text, "an English prompt")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        f"## Title\n\n{'-' * 120}\n\n{SENTENCE}",
        f"| a | b |\n|{'-' * 60}|{'-' * 60}|\n| 1 | 2 |",
        f"{SENTENCE * 2}",
        f"x = [{'0, ' * 200}]",
        "=" * 200,
        "\n".join(f"| {n} | the name of entry n{n} | true |" for n in range(40)),
        "\n".join(str(n) for n in range(1, 300)),
        "naïve Zürich Łódź café São Paulo",
        "5 µm and 3 Ω, π is a letter",
        "def f(x):\n    return [x]\n",
        "[1, 2, 3]",
        ".gitignore is a file",
        "`code`",
        "Use a `<tag>` and a List<T> where x < |y|",
    ],
)
def test_is_quiet(text: str) -> None:
    assert suspicions(text, "an English prompt") == ()


def test_what_the_prompt_holds_is_no_surprise() -> None:
    assert suspicions("It means 你好吗。", "Translate 你好吗") == ()
    assert suspicions("The mark is </think> here", "What does </think> mean?") == ()
    assert suspicions(f"You wrote {'x' * 50}", f"Why {'x' * 50}?") == ()


def test_a_hit_is_a_review_and_never_a_failure() -> None:
    case = case_of("report")
    verdict = judge(case, answer(f"{case.ground_truth()[0]}\n\n{'Fine. ' * 25}"))
    assert verdict.outcome == "review"
    assert [reason.code for reason in verdict.reasons] == ["detector-periodic-tail"]


def test_honest_texts_lead_to_few_reviews() -> None:
    texts = honest_texts(30)
    assert len(texts) > 200
    hits = [text for text in texts if suspicions(text.text, text.prompt)]
    assert len(hits) <= 0.02 * len(texts), [(t.kind, t.source, suspicions(t.text, t.prompt)) for t in hits]


def test_a_long_answer_is_judged_at_once() -> None:
    text = json.dumps([{"id": n, "name": f"n{n}"} for n in range(20000)])
    assert suspicions(text, "list them") == ()
