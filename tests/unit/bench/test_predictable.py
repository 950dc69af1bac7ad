"""The flag on the labelled set, its held-out half apart, and each rule by itself."""

from __future__ import annotations

from functools import cache

import pytest

from dspark_ops.bench.predictable import WINDOW_CHARS, PredictableFlag, flag, text_signals
from tests.unit.bench.labelled_texts import MAKERS, NAMED, Labelled, labelled_texts, paragraph

# A text of the standard library may be a table, and is then rightly flagged; more than this would be an alarm.
FALSE_ALARMS = 0.015


@cache
def _judged() -> tuple[tuple[Labelled, PredictableFlag], ...]:
    return tuple((text, flag(text_signals(text.text, text.prompt))) for text in labelled_texts())


def _codes(verdict: PredictableFlag) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def test_the_set_is_large_enough_in_both_halves() -> None:
    texts = [text for text, _ in _judged()]
    assert len(texts) >= 300
    for held_out in (False, True):
        natural = [t for t in texts if t.held_out is held_out and not t.predictable]
        assert len(natural) >= 60
        assert {"code", "docstrings"} <= {t.kind for t in natural}


@pytest.mark.parametrize("held_out", [False, True])
def test_predictable_texts_are_flagged(held_out: bool) -> None:
    missed = [
        (t.kind, t.source) for t, v in _judged() if t.predictable and t.held_out is held_out and not v.predictable
    ]
    assert missed == []


@pytest.mark.parametrize("held_out", [False, True])
def test_code_and_manual_prose_are_not(held_out: bool) -> None:
    natural = [(t, v) for t, v in _judged() if not t.predictable and t.held_out is held_out]
    wrong = [(t.source, [str(reason) for reason in v.reasons]) for t, v in natural if v.predictable]
    assert len(wrong) <= FALSE_ALARMS * len(natural), wrong


@pytest.mark.parametrize("kind", NAMED)
def test_the_named_kinds_are_in_both_halves(kind: str) -> None:
    assert {text.held_out for text, _ in _judged() if text.kind == kind} == {False, True}


def test_whole_kinds_are_only_in_the_held_out_half() -> None:
    kinds = {t.kind: t.held_out for t, _ in _judged() if t.predictable and t.kind not in NAMED}
    assert len(kinds) == len(MAKERS) - len(NAMED)
    assert sum(kinds.values()) >= 3


def test_counting_from_1_to_200_as_it_is_asked_for() -> None:
    one_a_line = "\n".join(map(str, range(1, 201)))
    assert "same-lines" in _codes(flag(text_signals(one_a_line)))
    assert "few-trigrams" in _codes(flag(text_signals(", ".join(map(str, range(1, 201))))))
    # What a ratio alone would have said: it compresses no better than code does.
    ratio = text_signals(one_a_line).zlib_ratio
    assert ratio is not None
    assert ratio > 0.4


def test_the_alphabet_twenty_times() -> None:
    line = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    assert "compresses" in _codes(flag(text_signals("\n".join([line] * 20))))


def test_a_copy_of_the_prompt_is_only_seen_beside_the_prompt() -> None:
    import random

    given = paragraph(random.Random(3), 12)  # noqa: S311
    assert _codes(flag(text_signals(given, f"Repeat this: {given}"))) == ["copies-prompt"]
    assert _codes(flag(text_signals(given, "Write of harbours."))) == []
    assert text_signals(given).copied is None


def test_csv_with_other_words_in_each_row() -> None:
    rows = [
        f"{i},{w},{w[::-1]}@{w}.example,{i * 7 % 100}"
        for i, w in enumerate(["oak", "elm", "ash", "fir", "yew", "box", "bay", "fig"] * 6)
    ]
    assert "same-shapes" in _codes(flag(text_signals("\n".join(rows))))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"acceptance": 0.9}, "acceptance"),
        ({"last_position": 0.85}, "last-position"),
        ({"tokens_per_step": 5.4, "depth": 5.0}, "tokens-per-step"),
    ],
)
def test_counters_alone_are_enough_from_their_threshold_on(given: dict[str, float], code: str) -> None:
    assert _codes(flag(**given)) == [code]  # type: ignore[arg-type]
    below = {name: value - (0.01 if name != "depth" else 0) for name, value in given.items()}
    assert not flag(**below).predictable  # type: ignore[arg-type]


def test_what_is_not_known_is_not_held_against_a_text() -> None:
    assert flag() == PredictableFlag(predictable=False)
    assert flag(text_signals("")) == PredictableFlag(predictable=False)
    assert flag(tokens_per_step=6.0) == PredictableFlag(predictable=False)
    short = text_signals("1\n2\n3")
    assert (short.zlib_ratio, short.same_lines, short.distinct_trigrams) == (None, None, None)


def test_reasons_come_in_the_order_of_the_rules() -> None:
    verdict = flag(text_signals("1\n" * 500), acceptance=0.99, last_position=0.97, tokens_per_step=5.9, depth=5)
    assert _codes(verdict)[:5] == ["acceptance", "last-position", "tokens-per-step", "compresses", "same-lines"]


def test_one_predictable_part_does_not_flag_a_long_answer() -> None:
    import random

    prose = "\n\n".join(paragraph(random.Random(i), 6) for i in range(40))  # noqa: S311
    mixed = prose[: 6 * WINDOW_CHARS] + "\n".join(map(str, range(600)))
    assert not flag(text_signals(mixed)).predictable
