"""Text that the task did not ask for: a short lead-in is taste, more than that is not."""

from __future__ import annotations

import re

from dspark_ops.gates.case import Reason
from dspark_ops.gates.detectors import script_of
from dspark_ops.gates.strict_json import short

_WORDS, _CHARACTERS = 40, 400
#: Longer than any word or identifier of a lead-in.
LONGEST_WORD = 32
_MARKDOWN = " \t\r\n*_`#>-\u2022\u2013\u2014"
# What a sentence, a list, a quotation or a fence may begin with; a lower-case letter or a closing mark begins nothing.
_BEGINS_NOTHING = re.compile(r"[a-z]|['\u2019](?:s|t|re|ve|ll|d|m)\b|[,;.!?)\]}%:]")


def surplus(rest: str) -> tuple[Reason, ...]:
    """What is wrong with the text beside an answer: too much of it, or a beginning that is none."""
    text = rest.strip(_MARKDOWN)
    reasons = []
    number = len(text.split())
    if number > _WORDS or len(text) > _CHARACTERS:
        observed = f"{number} words, {len(text)} characters beside the answer: {short(text)}"
        expected = f"at most {_WORDS} words, {_CHARACTERS} characters of lead-in"
        reasons.append(Reason(code="surplus", observed=observed, expected=expected))
    longest = max(text.split(), key=len, default="")
    if len(longest) > LONGEST_WORD and "://" not in longest:
        reasons.append(Reason(code="no-word", observed=f"beside the answer: {short(longest)}", expected="words"))
    if _BEGINS_NOTHING.match(text):
        observed = f"it begins with {short(text[:40])}"
        reasons.append(Reason(code="opening", observed=observed, expected="the answer or a sentence"))
    return tuple(reasons)


def foreign_letters(text: str, given: str) -> tuple[Reason, ...]:
    """Letters of scripts other than Latin that the prompt does not hold: every task here is asked in English."""
    if text.isascii():
        return ()
    foreign = [letter for letter in text if script_of(letter) is not None and letter not in given]
    if not foreign:
        return ()
    scripts = ", ".join(sorted({str(script_of(letter)).title() for letter in foreign}))
    observed = f"{len(foreign)} letters of {scripts}: {short(''.join(foreign[:20]))}"
    return (Reason(code="foreign-script", observed=observed, expected="the letters of the prompt"),)
