"""What belongs to the model's own encoding and must never reach a client: special tokens, marks of tool calls."""

from __future__ import annotations

import re

# U+FF5C is the bar of DeepSeek's tokens, U+2581 their blank.
CONTROL = re.compile(
    r"<\uff5c[^<>\n]{0,60}|\uff5cDSML\uff5c?|DSML\uff5c|\uff5c>"
    r"|<\|[a-z\u2581_][a-z0-9\u2581_]*\|>"
    r"|</?think>|</?tool_calls?>|</?function_calls?>|</?tool_response>"
    r"|<invoke\b[^>\n]{0,80}|</invoke>|<parameter\s+name=[^>\n]{0,80}|</parameter>"
    r"|\[/?TOOL_CALLS\]|\[/?INST\]|<s>|</s>|<(?:start|end)_of_turn>|<(?:unk|pad|bos|eos)>"
)


def leaked(text: str, given: str) -> tuple[str, ...]:
    """Each such mark in `text` that `given` (all that the model was given) does not hold, once, in order."""
    return tuple(dict.fromkeys(mark for mark in CONTROL.findall(text) if mark not in given))
