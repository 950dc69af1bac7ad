"""Finds the answer in the text, per form: its value, what is wrong with it, and the text that is not part of it."""

from __future__ import annotations

import re

from dspark_ops.gates.case import (
    Expected,
    ExpectedCode,
    ExpectedJson,
    ExpectedOrder,
    ExpectedReport,
    ExpectedText,
    ExpectedValue,
    Reason,
)
from dspark_ops.gates.code_run import run_code
from dspark_ops.gates.strict_json import NotStrict, difference, read, short
from dspark_ops.gates.surplus import LONGEST_WORD
from dspark_ops.openai_api.model import Answer, Record

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*(\w*)[ \t]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_EMPHASIS = " \t*_`\"'$\\"
# One sum with its result, in any dress; no number of a sum of ours has more than five digits.
_NUMBER = r"[*`$(\s]*[-\u2212]?\d[\d,]{0,9}[*`$)\s]*"
_STEP = re.compile(rf"^(?:[-*\u2022]\s+|\d{{1,2}}[.)]\s+)?{_NUMBER}(?:[-+\u2212]{_NUMBER}){{1,2}}={_NUMBER}\.?$")
_STEPS, _STEP_CHARACTERS = 14, 160
_NUMBERED = re.compile(r"^\s*(?:[*_]{1,2})?(\d{1,2})[.)](?:[*_]{1,2})?\s+(\S.*)$")
# A sentence of 12 to 35 words was asked for; counting is not the model's strength and not what is tested.
_LEAST_WORDS, _MOST_WORDS = 6, 60


class Reading(Record):
    """rest: the text beside the answer; None: the form has judged all of it."""

    reasons: tuple[Reason, ...] = ()
    rest: str | None = None


def read_answer(expected: Expected, answer: Answer) -> Reading:
    """Judge the content of an answer that should be text."""
    text = answer.content.replace("\r\n", "\n")
    match expected:
        case ExpectedValue():
            return _value(expected, text)
        case ExpectedOrder():
            return _order(expected, text)
        case ExpectedCode():
            return _code(expected, text)
        case ExpectedJson():
            return _json(expected, text)
        case ExpectedReport():
            return _report(expected, text)
        case ExpectedText():
            return _text(expected, answer)
        case _:
            raise TypeError(f"{expected.form} is no form of text")


def _value(expected: ExpectedValue, text: str) -> Reading:
    found, rest = _labelled(expected.label, text)
    if found is None:
        # The value alone, without its label, is an answer too.
        if _is_value(expected, text.strip(f"{_EMPHASIS}.\n")):
            return Reading(rest="")
        return Reading(reasons=(_no_line(expected.label, text),), rest=rest)
    if expected.integer:
        kept, steps = [], 0
        for line in rest.splitlines():
            # A longer line is none, and a run of blanks in one would keep the pattern busy for minutes.
            is_step = len(line) <= _STEP_CHARACTERS and bool(_STEP.match(line.strip()))
            steps += is_step
            if not is_step or steps > _STEPS:
                kept.append(line)
        rest = "\n".join(kept)
    if _is_value(expected, found):
        return Reading(rest=rest)
    wrong = Reason(code="wrong-value", observed=f"{expected.label}: {short(found)}", expected=expected.value)
    return Reading(reasons=(wrong,), rest=rest)


def _is_value(expected: ExpectedValue, found: str) -> bool:
    if not expected.integer:
        return found == expected.value
    digits = re.sub(r"(?<=\d)[,_ \u202f\u00a0'](?=\d{3}\b)", "", found).replace("\u2212", "-")
    match = re.fullmatch(r"([-+]?[0-9]{1,30})(?:\.0+)?", digits)
    return match is not None and int(match.group(1)) == int(expected.value)


def _labelled(label: str, text: str) -> tuple[str | None, str]:
    """The value on the last line that carries the label, bare, and the text without that line."""
    line = re.compile(rf"^[ \t>*_`#-]*{label}[ \t*_`]*[:=](.*)$", re.IGNORECASE)
    lines = _without_fences(text).splitlines()
    for n in range(len(lines) - 1, -1, -1):
        match = line.match(lines[n])
        if match:
            value = match.group(1).strip(_EMPHASIS)
            return value.rstrip(".").strip(_EMPHASIS), "\n".join(lines[:n] + lines[n + 1 :])
    return None, text


def _order(expected: ExpectedOrder, text: str) -> Reading:
    found, rest = _labelled(expected.label, text)
    if found is None:
        if not re.fullmatch(r"[\d\s,;\[\]]+", text.strip(_EMPHASIS)):
            return Reading(reasons=(_no_line(expected.label, text),), rest=rest)
        found, rest = text.strip(_EMPHASIS), ""
    parts = [part.strip(_EMPHASIS) for part in re.split(r"[,;]|\s+", found.strip("[] \n")) if part.strip(_EMPHASIS)]
    numbers = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 12)
    if numbers == expected.values and len(parts) == len(numbers):
        return Reading(rest=rest)
    observed = f"{expected.label}: {short(found)}"
    return Reading(
        reasons=(Reason(code="wrong-value", observed=observed, expected=", ".join(map(str, expected.values))),),
        rest=rest,
    )


def _code(expected: ExpectedCode, text: str) -> Reading:
    blocks = [match.group(3) for match in _FENCE.finditer(text)]
    code = next((block for block in reversed(blocks) if f"def {expected.function}" in block), None)
    rest = _FENCE.sub("", text)
    if code is None:
        if f"def {expected.function}" not in text or "```" in text:
            reason = Reason(
                code="no-code",
                observed=short(text.strip()),
                expected=f"a Python block that defines {expected.function}",
            )
            return Reading(reasons=(reason,), rest=rest)
        code, rest = text, ""
    outcome = run_code(code, expected.function, expected.arguments)
    if outcome.error is not None:
        reason = Reason(code="code-fails", observed=outcome.error, expected="a function that runs")
        return Reading(reasons=(reason,), rest=rest)
    for given, right, value, error in zip(
        expected.arguments, expected.results, outcome.values, outcome.errors, strict=True
    ):
        if error is not None or difference(value, _plain(right)) is not None:
            observed = f"{expected.function}({', '.join(map(short, given))}) gives {error or short(value)}"
            return Reading(reasons=(Reason(code="wrong-result", observed=observed, expected=short(right)),), rest=rest)
    return Reading(rest=rest)


def _json(expected: ExpectedJson, text: str) -> Reading:
    blocks = list(_FENCE.finditer(text))
    if blocks:
        document, rest = blocks[-1].group(3), _FENCE.sub("", text)
    else:
        begin, end = text.find("{"), text.rfind("}")
        if begin < 0 or end < begin:
            reason = Reason(code="no-json", observed=short(text.strip()), expected="a JSON document")
            return Reading(reasons=(reason,), rest=text)
        document, rest = text[begin : end + 1], f"{text[:begin]}\n{text[end + 1 :]}"
    try:
        value = read(document)
    except NotStrict as error:
        reason = Reason(code=f"json-{error.code}", observed=str(error), expected="one strict JSON document")
        return Reading(reasons=(reason,), rest=rest)
    found = difference(value, expected.value)
    if found is None:
        return Reading(rest=rest)
    at, observed, right = found
    return Reading(reasons=(Reason(code="wrong-value", observed=f"{at} is {observed}", expected=right),), rest=rest)


def _report(expected: ExpectedReport, text: str) -> Reading:
    found, rest = _labelled(expected.label, text)
    reasons = []
    if found is None:
        reasons.append(_no_line(expected.label, text))
    elif found != expected.value:
        reasons.append(
            Reason(code="wrong-value", observed=f"{expected.label}: {short(found)}", expected=expected.value)
        )
    lines, beside = [], []
    for line in rest.splitlines():
        match = _NUMBERED.match(line)
        if match:
            lines.append((int(match.group(1)), match.group(2)))
        else:
            beside.append(line)
    if [number for number, _ in lines] != list(range(1, len(expected.subjects) + 1)):
        observed = f"the lines {', '.join(str(n) for n, _ in lines[:12]) or 'are not numbered'}"
        reasons.append(Reason(code="wrong-lines", observed=observed, expected=f"1 to {len(expected.subjects)}"))
    for (number, line), subject in zip(lines, expected.subjects, strict=False):
        words = len(line.split())
        if max(map(len, line.split())) > LONGEST_WORD:
            reasons.append(Reason(code="no-word", observed=f"line {number}: {short(line)}", expected="words"))
        elif subject not in line or any(other in line for other in expected.subjects if other != subject):
            reasons.append(Reason(code="wrong-line", observed=f"line {number}: {short(line)}", expected=subject))
        elif not _LEAST_WORDS <= words <= _MOST_WORDS:
            expected_words = f"{_LEAST_WORDS} to {_MOST_WORDS}"
            reasons.append(
                Reason(code="line-length", observed=f"line {number} has {words} words", expected=expected_words)
            )
    return Reading(reasons=tuple(reasons), rest="\n".join(beside))


def _text(expected: ExpectedText, answer: Answer) -> Reading:
    reasons = []
    if answer.content.strip() != expected.text.strip():
        reasons.append(
            Reason(code="wrong-text", observed=short(answer.content.strip()), expected=short(expected.text.strip()))
        )
    if expected.reasoning is not None and answer.reasoning.strip() != expected.reasoning.strip():
        observed = f"reasoning {short(answer.reasoning.strip())}"
        reasons.append(Reason(code="wrong-text", observed=observed, expected=short(expected.reasoning.strip())))
    return Reading(reasons=tuple(reasons))


def _without_fences(text: str) -> str:
    """Fence lines are dropped, what they hold stays."""
    return "\n".join(line for line in text.splitlines() if not re.match(r"^[ \t]*(?:`{3,}|~{3,})\w*[ \t]*$", line))


def _no_line(label: str, text: str) -> Reason:
    return Reason(code="no-answer-line", observed=short(text.strip()), expected=f"a line `{label}: ...`")


def _plain(value: object) -> object:
    """Tuples as the lists that JSON makes of them."""
    return list(value) if isinstance(value, tuple) else value
