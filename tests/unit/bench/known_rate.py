"""Cases of a server whose decode rate is known, and answers long enough to measure it."""

from __future__ import annotations

import json
from typing import Any

from tests.openai_server.answers import Call, Solution, prose

#: What `KnownRate` is given, by the name of the case.
CASES: dict[str, dict[str, Any]] = {
    **{f"{n} tokens a chunk": {"per_step": (n,)} for n in range(1, 7)},
    "1 to 6 mixed": {"per_step": (3, 1, 6, 2, 5, 4)},
    "17 held back": {"per_step": (3,), "held": 17},
    "44 held back": {"per_step": (4,), "held": 44},
    "3 steps in a chunk": {"per_step": (2,), "burst": 3},
    "each 4th without text": {"per_step": (3,), "empty_every": 4},
}


def long_answers(body: dict[str, Any]) -> Solution | None:
    """A long call where there are tools, counting where that is asked for, else prose."""
    text = prose(7, 2000)
    if body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        return Solution(tool_calls=(Call(name, json.dumps({"text": text})),))
    if "Count from" in str(body["messages"][-1]["content"]):
        return Solution("\n".join(map(str, range(1, 1500))))
    return Solution(text)
