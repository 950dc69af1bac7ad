"""Judges one answer by what is known of it: strict in the values, lenient where a format is only taste.

A lead-in sentence, blanks, emphasis and fences are taste. Text that is neither the answer nor a short lead-in is not:
each task names the form of its answer, so that there is nothing else to say.
"""

from __future__ import annotations

from dspark_ops.gates.answer_forms import Reading, read_answer
from dspark_ops.gates.case import (
    Case,
    ExpectedCalls,
    Outcome,
    Reason,
    Verdict,
)
from dspark_ops.gates.detectors import suspicions
from dspark_ops.gates.echo import echoes
from dspark_ops.gates.likelihood import Baseline, unlikely
from dspark_ops.gates.markup import leaked
from dspark_ops.gates.strict_json import short
from dspark_ops.gates.surplus import foreign_letters, surplus
from dspark_ops.gates.tool_rules import compare_structure, judge_calls
from dspark_ops.openai_api.model import Answer

# Characters, characters, calls. The longest right answers are a note of 4 KB in one call, and three calls.
_MOST_CONTENT, _MOST_ARGUMENTS, _MOST_CALLS = 20_000, 1_000_000, 64

__all__ = ["compare_structure", "given_text", "judge", "judge_form"]


def judge(case: Case, answer: Answer, *, baseline: Baseline | None = None) -> Verdict:
    """Oracle, echo and likelihood decide; a pattern alone asks for a review. Pure but for code, which it runs.

    baseline: of warm answers, see likelihood.learn; without it, or without the answer's `prompt_logprobs`, likelihood
    is not judged and not in `judged`.
    """
    if answer.failure is not None:
        failure = answer.failure
        status = "" if failure.status is None else f" (status {failure.status})"
        observed = f"{failure.kind}{status}: {failure.message}"
        return Verdict(
            outcome="no-answer", reasons=(Reason(code=failure.kind, observed=observed, expected="an answer"),)
        )
    if (reason := _too_long(answer)) is not None:
        return Verdict(outcome="fail", reasons=(reason,), judged=("oracle",))
    judged = ["oracle", "echo"]
    reasons = [*judge_form(case, answer), *echoes(case, answer)]
    doubts = unlikely(case.kind, answer.prompt_logprobs, baseline)
    if doubts is not None:
        judged.append("likelihood")
        reasons += doubts
    outcome: Outcome = "fail"
    if not reasons:
        judged.append("detectors")
        reasons = list(suspicions(answer.content, given_text(case)))
        outcome = "review" if reasons else "pass"
    return Verdict(outcome=outcome, reasons=tuple(reasons), judged=tuple(judged))


def _too_long(answer: Answer) -> Reason | None:
    """More than any task has room for: a server that heeds no limit. It is not looked at, which would take hours."""
    for where, size, most in (
        ("content", len(answer.content), _MOST_CONTENT),
        ("calls", sum(len(call.arguments) for call in answer.tool_calls), _MOST_ARGUMENTS),
        ("calls", len(answer.tool_calls), _MOST_CALLS),
    ):
        if size > most:
            return Reason(code="too-long", observed=f"{size} in the {where}", expected=f"at most {most}")
    return None


def judge_form(case: Case, answer: Answer) -> tuple[Reason, ...]:
    """All that the oracle finds wrong: control marks, the end, calls, the value, text that was not asked for."""
    given = given_text(case)
    reasons = [
        *_marks("content", answer.content, given),
        *_marks("reasoning", answer.reasoning, given),
        *foreign_letters(answer.content, given),
    ]
    if isinstance(case.expected, ExpectedCalls):
        return (*reasons, *judge_calls(case.expected, case.request, answer), *surplus(answer.content))
    if answer.finish_reason != case.finish_reason:
        reasons.append(_finish(answer, case.finish_reason))
    if answer.tool_calls:
        made = ", ".join(call.name or "a call without a name" for call in answer.tool_calls)
        reasons.append(Reason(code="call-not-asked", observed=f"calls {made}", expected="text, no call"))
    if not answer.content.strip():
        reasons.append(Reason(code="empty", observed="no text", expected="an answer"))
        return tuple(reasons)
    reading: Reading = read_answer(case.expected, answer)
    reasons += reading.reasons
    if reading.rest is not None:
        reasons += surplus(reading.rest)
    return tuple(reasons)


def given_text(case: Case) -> str:
    """All that the model was given, its own characters unescaped."""
    return case.request.given_text()


def _finish(answer: Answer, expected: str) -> Reason:
    return Reason(code="finish-reason", observed=f"it ended with {answer.finish_reason}", expected=expected)


def _marks(where: str, text: str, given: str) -> tuple[Reason, ...]:
    marks = leaked(text, given)
    if not marks:
        return ()
    return (Reason(code="control-marks", observed=f"{where} holds {short(list(marks[:4]))}", expected="none"),)
