"""Does an answer repeat its own prompt? Runs of words that it shares with the system text or the tools.

Sixteen words in a row: eight were measured to occur in honest texts more than twice as often, by shared licence texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from dspark_ops.gates.case import Case, Reason
from dspark_ops.openai_api.model import Answer

RUN = 16
_WORD = re.compile(r"\w+")


def echoes(case: Case, answer: Answer) -> tuple[Reason, ...]:
    """One reason when any run of the answer's text is the prompt's; what the task asked to give back is none."""
    said = [answer.content, *(call.arguments for call in answer.tool_calls)]
    shared = shared_runs(said, given_texts(case), case.quoted)
    if not shared:
        return ()
    shown = shared[0] if len(shared[0]) <= 160 else f"{shared[0][:160]}..."
    observed = f"{len(shared)} runs of {RUN} words are the prompt's, first: {shown}"
    return (Reason(code="prompt-echo", observed=observed, expected="none"),)


def given_texts(case: Case) -> list[str]:
    """The system text and each tool, as text."""
    system = [_text(m.get("content")) for m in case.request.messages if m.get("role") == "system"]
    return [*system, *(json.dumps(tool, ensure_ascii=False) for tool in case.request.tools)]


def shared_runs(
    said: Iterable[str], given: Iterable[str], quoted: Iterable[str] = (), run: int = RUN
) -> tuple[str, ...]:
    """Runs of `run` words in any of `said` that stand in any of `given` and in none of `quoted`. Case is ignored."""
    ours = {key: None for text in said for key in _runs(text, run)}
    if not ours:
        return ()
    known = {key for text in given for key in _runs(text, run)}
    allowed = {key for text in quoted for key in _runs(text, run)}
    return tuple(" ".join(key) for key in ours if key in known and key not in allowed)


def _runs(text: str, run: int) -> Iterable[tuple[str, ...]]:
    found = _WORD.findall(text.lower())
    return (tuple(found[n : n + run]) for n in range(len(found) - run + 1))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""
