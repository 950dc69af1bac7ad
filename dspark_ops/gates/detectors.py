"""Patterns of known garble. They only ask a person to look: every one of them fires on some honest text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from dspark_ops.gates.case import Reason
from dspark_ops.gates.markup import leaked

# A rule drawn with these is no run; 18 equal characters of any kind fired on a fifth of honest documents.
_RULERS = frozenset("-=_*#~.+ \t\n|/")
_CHAR_RUN, _RULER_RUN = 24, 400
# The bounds that engines themselves use for repetition: period up to 128 tokens, 3 copies, 48 tokens in all.
_LONGEST_PERIOD, _COPIES, _LEAST_TOKENS = 128, 3, 48
_KEY, _LOOP_WORDS = 8, 4
# A mark many times over is one token: rulers are no loops.
_TOKEN = re.compile(r"\w+|([^\w\s])\1*")
_SAME = re.compile(r"(.)\1+", re.DOTALL)
# The rest of a word, or a mark that ends something, where nothing has begun.
_ENDINGS = re.compile(r"(?:['\u2019](?:s|t|re|ve|ll|d|m)\b|[,;.!?)\]}%:](?!\w)|\.\s)")
# Letters of another script than the prompt's.
_FOREIGN_LETTERS = 3
_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "CYRILLIC", "ARABIC", "HEBREW", "THAI", "DEVANAGARI", "GREEK")


def suspicions(text: str, given: str) -> tuple[Reason, ...]:
    """A reason per pattern that the text shows. given: all that the model was given; what stands there is not new."""
    if not text.strip():
        return ()
    return tuple(reason for detector in DETECTORS.values() if (reason := detector(text, given)) is not None)


def special_tokens(text: str, given: str) -> Reason | None:
    """Marks of the model's own encoding."""
    marks = leaked(text, given)
    return _reason("special-tokens", f"{', '.join(map(repr, marks[:4]))}", "no control marks") if marks else None


def char_run(text: str, given: str) -> Reason | None:
    """One character many times over."""
    for match in _SAME.finditer(text):
        run = match.group()
        if len(run) >= (_RULER_RUN if run[0] in _RULERS else _CHAR_RUN) and run not in given:
            return _reason("char-run", f"{run[0]!r} {len(run)} times in a row", f"less than {_CHAR_RUN}")
    return None


def periodic_tail(text: str, given: str) -> Reason | None:  # noqa: ARG001 - one signature for all
    """The text ends in copies of one piece, the last of them cut off or not."""
    tokens = _tokens(text)
    for period in range(1, min(_LONGEST_PERIOD, len(tokens) // _COPIES) + 1):
        same = 0
        while same + period < len(tokens) and tokens[-1 - same] == tokens[-1 - same - period]:
            same += 1
        length = same + period
        if length >= _LEAST_TOKENS and length >= _COPIES * period:
            return _reason("periodic-tail", f"{length // period} copies of {period} tokens at the end", "no copies")
    return None


def loop(text: str, given: str) -> Reason | None:  # noqa: ARG001 - one signature for all
    """Copies of a piece of prose anywhere. Arrays of zeros and rows of a table are no prose: four words or more."""
    tokens = _tokens(text)
    last: dict[tuple[str, ...], int] = {}
    period = run = 0
    for at in range(len(tokens) - _KEY + 1):
        key = tuple(tokens[at : at + _KEY])
        distance = at - last.get(key, -_LONGEST_PERIOD)
        last[key] = at
        run = run + 1 if distance == period else 1
        period = distance
        length = run + period + _KEY - 1
        if period < _LONGEST_PERIOD and length >= max(_LEAST_TOKENS, _COPIES * period):
            words = {token for token in tokens[at : at + period] if len(token) > 1 and token.isalpha()}
            if len(words) >= _LOOP_WORDS:
                return _reason("loop", f"{_COPIES} copies or more of {period} tokens", "no copies")
    return None


def _tokens(text: str) -> list[str]:
    return [match.group() for match in _TOKEN.finditer(text)]


def foreign_script(text: str, given: str) -> Reason | None:
    """Letters of a script of which the prompt has none."""
    if text.isascii():
        return None
    found = Counter(script for letter in text if ord(letter) > 0x24F and (script := script_of(letter)) is not None)
    for script, letters in found.most_common():
        if letters >= _FOREIGN_LETTERS and not any(script_of(letter) == script for letter in set(given)):
            return _reason("foreign-script", f"{letters} letters of {script.title()}", "the scripts of the prompt")
    return None


def script_of(letter: str) -> str | None:
    """The script of a letter outside Latin, by the first word of its Unicode name; None for Latin and for no letter."""
    if ord(letter) <= 0x24F or not letter.isalpha():
        return None
    word = unicodedata.name(letter, "").split(" ")[0]
    return word if word in _SCRIPTS else None


def opening_punctuation(text: str, given: str) -> Reason | None:  # noqa: ARG001 - one signature for all
    """It begins with what can only follow something."""
    match = _ENDINGS.match(text.lstrip())
    return _reason("opening", f"it begins with {text.lstrip()[:24]!r}", "the beginning of something") if match else None


DETECTORS: dict[str, Callable[[str, str], Reason | None]] = {
    "special-tokens": special_tokens,
    "char-run": char_run,
    "periodic-tail": periodic_tail,
    "loop": loop,
    "foreign-script": foreign_script,
    "opening": opening_punctuation,
}


def _reason(name: str, observed: str, expected: str) -> Reason:
    return Reason(code=f"detector-{name}", observed=observed, expected=expected)
