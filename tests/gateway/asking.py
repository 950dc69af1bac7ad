"""A client that keeps all it was given: status, headers, every event, and how the answer ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    """What came back. broken: why the connection ended too early; None where the body was whole."""

    status: int
    headers: httpx.Headers
    raw: bytes = b""
    broken: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.raw))

    @property
    def backend(self) -> str | None:
        found: str | None = self.headers.get("x-dspark-backend")
        return found

    @property
    def reason(self) -> str | None:
        found: str | None = self.headers.get("x-dspark-reason")
        return found

    @property
    def streamed(self) -> bool:
        return str(self.headers.get("content-type", "")).startswith("text/event-stream")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Documents of the events, in order; `[DONE]` is not one."""
        found = (line.removeprefix("data:").strip() for line in self.raw.decode().splitlines() if line[:5] == "data:")
        return [json.loads(text) for text in found if text != "[DONE]"]

    @property
    def done(self) -> bool:
        """Whether `[DONE]` was said."""
        return b"data: [DONE]" in self.raw

    @property
    def error(self) -> dict[str, Any] | None:
        """The error's own document: of the body, or of the event that ended a stream."""
        if self.streamed:
            found = [e["error"] for e in self.events if "error" in e]
            return dict(found[-1]) if found else None
        whole = self.document
        return dict(whole["error"]) if "error" in whole else None

    @property
    def choices(self) -> list[dict[str, Any]]:
        documents = self.events if self.streamed else [self.document]
        return [choice for document in documents for choice in document.get("choices", ())]

    @property
    def text(self) -> str:
        """The answer's text, of a document or of a stream's deltas."""
        return "".join((c.get("message") or c.get("delta") or {}).get("content") or "" for c in self.choices)

    @property
    def finish(self) -> str | None:
        """The finish_reason; None where none was said."""
        found = [c["finish_reason"] for c in self.choices if c.get("finish_reason")]
        return str(found[-1]) if found else None

    @property
    def usage(self) -> dict[str, Any] | None:
        documents = self.events if self.streamed else [self.document]
        found = [d["usage"] for d in documents if d.get("usage")]
        return dict(found[-1]) if found else None

    @property
    def tool_calls(self) -> list[tuple[str, str]]:
        """(name, arguments as text) of each call, put together where it came in pieces."""
        calls: dict[int, list[str]] = {}
        for choice in self.choices:
            part = choice.get("message") or choice.get("delta") or {}
            for at, call in enumerate(part.get("tool_calls") or ()):
                made = calls.setdefault(call.get("index", at), ["", ""])
                function = call.get("function") or {}
                made[0] += function.get("name") or ""
                made[1] += function.get("arguments") or ""
        return [(name, arguments) for name, arguments in calls.values()]


class Reading:
    """An answer that is being read. `until_events` reads on until so many events came; `rest` to its end."""

    def __init__(self, response: httpx.Response) -> None:
        self.answer = Answer(response.status_code, response.headers)
        self._pieces = response.iter_bytes()

    def until_events(self, count: int) -> Answer:
        """AssertionError where the answer ends first."""
        while self.answer.raw.count(b"\n\n") < count:
            assert self._more(), f"the stream ended after {self.answer.raw!r}"
        return self.answer

    def rest(self) -> Answer:
        """All of it, however it ends."""
        while self._more():
            pass
        return self.answer

    def _more(self) -> bool:
        try:
            self.answer.raw += next(self._pieces)
        except StopIteration:
            return False
        except httpx.TimeoutException:
            raise
        except httpx.HTTPError as error:
            self.answer.broken = str(error) or type(error).__name__
            return False
        return True


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    """A request's body without its model."""
    return {"messages": [{"role": "user", "content": text}], **more}


@contextmanager
def reading(client: httpx.Client, body: dict[str, Any], **options: Any) -> Iterator[Reading]:
    """Ask, and read as far as the test wants; leaving closes the connection."""
    with client.stream("POST", options.pop("path", CHAT), json=body, **options) as response:
        yield Reading(response)


def asked(client: httpx.Client, body: dict[str, Any], **options: Any) -> Answer:
    """Ask and read all of it."""
    with reading(client, body, **options) as answer:
        return answer.rest()
