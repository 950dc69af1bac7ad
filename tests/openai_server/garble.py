"""Text that is wrong: every kind of garble that was seen or is feared, made of the request and a seeded generator."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

from tests.openai_server.answers import WORDS, prose
from tests.openai_server.setup import TextFault
from tests.openai_server.tokens import BOS, text_of

_CLOSE = "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"  # noqa: RUF001
_CJK = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动"
_SALAD = (
    "gradient", "umbrella", "thereof", "quickly", "sevenths", "bishop", "notwithstanding", "oblique", "tuning", "mauve",
    "hence", "porcelain", "fetch", "downstream", "vortex", "whom", "barely", "syntax", "lantern", "precisely", "of",
    "moreover", "kernel", "yet", "harvest", "between", "octave", "it", "render", "sideways", "although", "the", "a",
)  # fmt: skip
_TAILS = ("ategory of the", "tion that follows the", "mber of entries in the", "ently the same as the")

#: Of the right answer, the request's body and a generator, the wrong answer.
Spoiler = Callable[[str, dict[str, Any], random.Random], str]


def spoil_text(kind: TextFault, right: str, body: dict[str, Any], rng: random.Random) -> str:
    """The garbled answer that comes in place of the right one."""
    return _SPOILT[kind](right, body, rng)


def _loop(words: int, times: int) -> Spoiler:
    return lambda _right, _body, rng: (" ".join(rng.sample(WORDS, words)) + " ") * times


def _char_run(_right: str, _body: dict[str, Any], rng: random.Random) -> str:
    return rng.choice("!-=#0") * rng.randrange(40, 200)


def _cjk_tail(_right: str, _body: dict[str, Any], rng: random.Random) -> str:
    return f"{prose(rng.getrandbits(32), 30)} {''.join(rng.choices(_CJK, k=30))}"


def _cjk_inside(_right: str, _body: dict[str, Any], rng: random.Random) -> str:
    words = prose(rng.getrandbits(32), 40).split(" ")
    words.insert(len(words) // 2, "".join(rng.choices(_CJK, k=6)))
    return " ".join(words)


def _before_prose(opening: str) -> Spoiler:
    return lambda _right, _body, rng: opening + prose(rng.getrandbits(32), 40)


def _mid_word(_right: str, _body: dict[str, Any], rng: random.Random) -> str:
    return f"{rng.choice(_TAILS)} {prose(rng.getrandbits(32), 40)}"


def _salad(_right: str, _body: dict[str, Any], rng: random.Random) -> str:
    words = rng.choices(_SALAD + tuple(rng.sample(WORDS, 20)), k=rng.randrange(60, 120))
    return " ".join(words).capitalize() + "."


def _call_as_text(right: str, body: dict[str, Any], rng: random.Random) -> str:
    return f"{_half(right)}\n<tool_call>\n{_call_text(body, rng)}\n</tool_call>"


def off_by_one(right: str, rng: random.Random) -> str:
    """The right answer with a wrong value: fluent, of the same form, never equal to the right one."""
    if re.search(r"\d", right):
        # One number, the last: nearly always the result; in a list or a document any value must be right.
        last = list(re.finditer(r"\d+", right))[-1]
        number = str((int(last.group()) + 1) % 10 ** len(last.group())).zfill(len(last.group()))
        return right[: last.start()] + number + right[last.end() :]
    for old, new in ((" <= ", " < "), (" < ", " <= "), (" + ", " - "), (" - ", " + "), (" and ", " or ")):
        if old in right and "def " in right:
            return right.replace(old, new, 1)
    words = right.split()
    for at in range(len(words) - 1, 0, -1):
        if words[at] != words[at - 1]:
            words[at], words[at - 1] = words[at - 1], words[at]
            return " ".join(words)
    return f"{right[:-1]}{'x' if right[-1:] != 'x' else 'y'}"


def forgotten(right: str, rng: random.Random) -> str:
    """A later turn's answer from a poisoned prefix: every hexadecimal or decimal value in it is another."""
    tokens = re.compile(r"\b(?=\w*\d)[\w-]+\b")
    changed = tokens.sub(lambda m: _other(m.group(), rng), right)
    return changed if changed != right else "I do not find that in our conversation."


def _other(value: str, rng: random.Random) -> str:
    while True:
        digits = "".join(rng.choice("0123456789") if c.isdigit() else c for c in value)
        if digits != value:
            return digits


def _half(right: str) -> str:
    return right[: len(right) // 2].rstrip() if len(right) >= 40 else ""


def _schemas(body: dict[str, Any]) -> list[Any]:
    plain = {"name": "lookup", "description": "Look a word up.", "parameters": {"type": "object", "properties": {}}}
    return body.get("tools") or [{"type": "function", "function": plain}]


def _call_text(body: dict[str, Any], rng: random.Random) -> str:
    function = rng.choice(_schemas(body)).get("function", {})
    properties = list((function.get("parameters") or {}).get("properties") or {})
    return json.dumps({"name": function.get("name"), "arguments": dict.fromkeys(properties[:2], "value")})


def _narration(body: dict[str, Any], rng: random.Random) -> str:
    """The system text told back in fluent sentences: 80 words of it in a row, wherever they stand."""
    system = " ".join(text_of(m.get("content")) for m in body.get("messages") or () if m.get("role") == "system")
    words = (system or prose(rng.getrandbits(32), 200)).split()
    start = rng.randrange(max(1, len(words) - 80))
    return f"As an assistant I am told the following about my work. {' '.join(words[start : start + 80])}"


_SPOILT: dict[TextFault, Spoiler] = {
    "char-run": _char_run,
    "loop-8": _loop(8, 6),
    "loop-30": _loop(30, 5),
    "cjk-30": _cjk_tail,
    "cjk-6": _cjk_inside,
    "dsml-close": lambda right, _body, _rng: f"{_half(right)}\n{_CLOSE}",
    "tool-xml": _call_as_text,
    "bos": _before_prose(BOS),
    "apostrophe-opening": _before_prose("'s, and tools. "),
    "mid-word": _mid_word,
    "schema-dump": lambda _right, body, _rng: json.dumps(_schemas(body)[:2], ensure_ascii=False),
    "word-salad": _salad,
    "narration": lambda _right, body, rng: _narration(body, rng),
    "empty": lambda _right, _body, _rng: "",
    "off-by-one": lambda right, _body, rng: off_by_one(right, rng),
}
