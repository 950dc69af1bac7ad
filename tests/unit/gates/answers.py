"""Cases of every kind and answers to them, made by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from dspark_ops.gates.case import Case, CaseKind
from dspark_ops.gates.prompts import make_case
from dspark_ops.openai_api.model import Answer

_WALL = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def case_of(kind: CaseKind, seed: int = 1, **more: Any) -> Case:
    """A case of 4,000 tokens."""
    given: dict[str, Any] = {"prompt_tokens": 4000, "salt": "s"} | more
    return make_case(kind, random.Random(seed), **given)  # noqa: S311


def answer(content: str = "", **more: Any) -> Answer:
    """An answer that came whole, in a second."""
    return Answer(**({"sent_s": 0.0, "end_s": 1.0, "wall": _WALL, "content": content, "finish_reason": "stop"} | more))


def right(case: Case, **more: Any) -> Answer:
    """What a perfect model answers."""
    content, calls = case.ground_truth()
    return answer(**({"content": content, "tool_calls": calls, "finish_reason": case.finish_reason} | more))
