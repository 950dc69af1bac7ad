"""Text to tokens and a chat to a prompt, as plain as a test needs: exact, prefix-stable, about four letters a token."""

from __future__ import annotations

import json
import re
from typing import Any

BOS = "<｜begin▁of▁sentence｜>"  # noqa: RUF001
EOS = "<｜end▁of▁sentence｜>"  # noqa: RUF001
USER = "<｜User｜>"  # noqa: RUF001
ASSISTANT = "<｜Assistant｜>"  # noqa: RUF001
TOOL = "<｜Tool｜>"  # noqa: RUF001
END_OF_TURN = "<｜EOT｜>"  # noqa: RUF001
THINK = "<think>"
END_THINK = "</think>"
SPECIAL = (BOS, EOS, USER, ASSISTANT, TOOL, END_OF_TURN, THINK, END_THINK)

# One letter of a script without blanks is a token; others come six at a time, with the blank before them.
_PIECE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]| ?[^\W\u2e80-\u9fff\uac00-\ud7af]{1,6}| ?[^\w\s]{1,2}|\s+")
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")


def pieces(text: str) -> list[str]:
    """The tokens of plain text; joined they are the text again."""
    return _PIECE.findall(text)


def split(text: str) -> list[str]:
    """The tokens of a rendered prompt, in which special tokens are one token each."""
    found: list[str] = []
    for part in _SPECIAL.split(text):
        if part in SPECIAL:
            found.append(part)
        elif part:
            found += pieces(part)
    return found


class Vocabulary:
    """Token ids, given out at first use; stable within one server and exact both ways."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []
        for text in SPECIAL:
            self.id_of(text)

    def id_of(self, text: str) -> int:
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = len(self._texts)
            self._texts.append(text)
        return found

    def text_of(self, token: int) -> str:
        """The token's text; LookupError for an id that was never given out."""
        if not 0 <= token < len(self._texts):
            raise LookupError(f"no token {token}")
        return self._texts[token]


def text_of(content: Any) -> str:
    """A message's content as text: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def render(body: dict[str, Any], *, generation_prompt: bool = True, continue_final: bool = False) -> list[str]:
    """The prompt's tokens: system text first, then the tools, then the turns.

    Each turn is tokenized alone, so a chat that goes on has the tokens of the shorter one as its prefix.
    """
    found = [BOS]
    messages = body.get("messages") or []
    tools = body.get("tools") or []
    systems = [m for m in messages if m.get("role") in ("system", "developer")]
    for message in systems:
        found += pieces(text_of(message.get("content")))
    if tools:
        found += pieces("\n\n## Tools\n")
        for tool in tools:
            found += pieces(json.dumps(tool, ensure_ascii=False) + "\n")
    turns = [m for m in messages if m.get("role") not in ("system", "developer")]
    for index, message in enumerate(turns):
        found += _turn(message, open_ended=continue_final and index == len(turns) - 1)
    if generation_prompt and not continue_final:
        found += [ASSISTANT, THINK if thinks(body) else END_THINK]
    return found


def thinks(body: dict[str, Any]) -> bool:
    """Whether the request turns the template's thinking on."""
    switches = body.get("chat_template_kwargs") or {}
    return bool(switches.get("thinking") or switches.get("enable_thinking"))


def _turn(message: dict[str, Any], *, open_ended: bool) -> list[str]:
    role, text = message.get("role"), text_of(message.get("content"))
    if role == "assistant":
        found = [ASSISTANT, END_THINK, *pieces(text)]
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            found += pieces(f"\n{function.get('name')}({function.get('arguments')})")
        return found if open_ended else [*found, EOS]
    if role == "tool":
        return [TOOL, *pieces(text)]
    return [USER, *pieces(text)]
