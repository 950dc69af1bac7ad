"""A server's text as it may be shown: one line, short, without secrets."""

from __future__ import annotations

from dspark_ops.evidence.redaction import Redactor
from dspark_ops.openai_api.fields import sound

_CHARS = 400
# Looked at before it is cut: a secret that the cut would halve is hidden whole.
_READ_CHARS = 4096


class Shown:
    """Makes texts fit to be shown. api_key: hidden even where nothing says what it is."""

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key

    def __repr__(self) -> str:
        return "Shown()"

    def __call__(self, text: str) -> str:
        """At most 400 characters of it."""
        text = sound(text[:_READ_CHARS])
        if self._api_key:
            text = text.replace(self._api_key, "(the API key)")
        redactor = Redactor()
        redactor.learn(text)
        line = " ".join(redactor.text(text).split())
        return line if len(line) <= _CHARS else line[: _CHARS - 3] + "..."
