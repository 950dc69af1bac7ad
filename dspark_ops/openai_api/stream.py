"""A chat completion put together from what the server sends: server-sent events, or one JSON document.

Nothing that a server sends raises here: what is not the API's shape becomes the answer's failure, beside what came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
from httpx_sse import EventSource
from pydantic import AwareDatetime

from dspark_ops.openai_api.fields import (
    ShapeError,
    error_code,
    error_text,
    object_of,
    parsed,
    prompt_logprobs_of,
    sound,
    text_of,
    usage_of,
)
from dspark_ops.openai_api.model import Answer, Chunk, Failure, FailureKind, ToolCall, Usage

MAX_BODY_BYTES = 64 << 20
_DONE = "[DONE]"
_QUOTED_CHARS = 120


class BodyTooLongError(Exception):
    """More than `MAX_BODY_BYTES` came; only the client catches it."""


async def limited(body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same pieces; BodyTooLongError where they are more than `MAX_BODY_BYTES`."""
    total = 0
    async for piece in body:
        total += len(piece)
        if total > MAX_BODY_BYTES:
            raise BodyTooLongError
        yield piece


class _TimedBody(httpx.AsyncByteStream):
    """A body's bytes, each piece with the time at which it was read."""

    def __init__(self, pieces: AsyncIterator[bytes], now_s: Callable[[], float]) -> None:
        self._pieces = pieces
        self._now_s = now_s
        self.read_s = 0.0
        self.enough = False
        self.ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self.read_s = self._now_s()
            yield piece
            if self.enough:
                return
        # A server may leave the last event without its empty line.
        self.ended = True
        yield b"\n\n"


async def read_events(pieces: AsyncIterator[bytes], assembly: Assembly, now_s: Callable[[], float]) -> None:
    """Feed a body of server-sent events to `assembly`, until it has enough or the body ends.

    now_s: the clock of the answer's times. Raises what `pieces` raises; what came until then is in `assembly`.
    """
    body = _TimedBody(pieces, now_s)
    # Always UTF-8, whatever the header says, and a byte-order mark at its begin is none of the text.
    response = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, stream=body, default_encoding="utf-8-sig"
    )
    async with aclosing(EventSource(response).aiter_sse()) as events:
        async for event in events:
            if body.enough or (body.ended and _is_part(event.data)):
                continue
            # Once there is enough the body ends by itself, so that no generator is left half-way.
            body.enough = not assembly.take_event(event.event, event.data, body.read_s)
    if not body.enough:
        assembly.fail("cut", f"the stream ended without {_DONE}")


class Assembly:
    """One answer while it comes.

    The parts of a tool call with one index are joined as OpenAI's own client does: id, name and arguments each by
    concatenation. Text with half a surrogate pair at its end waits for the other half; what stays alone becomes U+FFFD.
    show: makes a server's text fit to be shown.
    """

    def __init__(self, show: Callable[[str], str]) -> None:
        self._show = show
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, list[str]]] = {}
        self._chunks: list[Chunk] = []
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._running_n1: int | None = None
        self._ids = 0
        self._ids_n1: int | None = None
        self._prompt_logprobs: tuple[float, ...] | None = None
        self._request_id: str | None = None
        self.failure: Failure | None = None

    def fail(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        """Why there will be no whole answer. The first reason stays."""
        if self.failure is None:
            self.failure = Failure(kind=kind, status=status, message=self._show(message))

    def take_event(self, kind: str, data: str, at_s: float) -> bool:
        """One event of the stream. False: nothing after it is part of the answer."""
        if kind == "error":
            self._fail_in_band(parsed(data) or data)
            return False
        if not data.strip():
            return True
        if data.strip() == _DONE:
            if self._finish_reason is None:
                self.fail("malformed", f"{_DONE} came without a finish_reason")
            return False
        document = parsed(data)
        if document is None:
            self.fail("malformed", f"not a JSON object: {data[:_QUOTED_CHARS]}")
            return False
        return self._take(document, lambda: self._take_chunk(document, at_s))

    def take_document(self, body: bytes) -> None:
        """The whole answer of a request that was not streamed."""
        document = parsed(body)
        if document is None:
            text = body[: 4 * _QUOTED_CHARS].decode("utf-8", "replace")
            self.fail("malformed", f"not a JSON object: {text[:_QUOTED_CHARS]}")
            return
        self._take(document, lambda: self._take_whole(document))

    def answer(self, *, sent_s: float, end_s: float, wall: AwareDatetime, status: int | None) -> Answer:
        """What came, whole or not."""
        n1 = self._running_n1
        if n1 is None and self._usage is not None and self._ids == self._usage.completion_tokens:
            n1 = self._ids_n1
        return Answer(
            sent_s=sent_s,
            first_s=self._chunks[0].at_s if self._chunks else None,
            last_s=self._chunks[-1].at_s if self._chunks else None,
            end_s=end_s,
            wall=wall,
            status=status,
            content=sound("".join(self._content)),
            reasoning=sound("".join(self._reasoning)),
            tool_calls=tuple(_call(index, self._calls[index]) for index in sorted(self._calls)),
            finish_reason=self._finish_reason,
            usage=self._usage,
            n1=n1,
            chunks=tuple(self._chunks),
            prompt_logprobs=self._prompt_logprobs,
            request_id=self._request_id,
            failure=self.failure,
        )

    def _take(self, document: dict[str, Any], take: Callable[[], None]) -> bool:
        if document.get("error") or document.get("object") == "error":
            self._fail_in_band(document)
            return False
        try:
            take()
        except ShapeError as problem:
            self.fail("malformed", str(problem))
            return False
        return True

    def _fail_in_band(self, what: dict[str, Any] | str) -> None:
        self.fail("in-band", error_text(what), status=error_code(what))

    def _take_chunk(self, document: dict[str, Any], at_s: float) -> None:
        self._name(document)
        usage = usage_of(document.get("usage"))
        choice = _first_choice(document)
        if choice is None:
            self._usage = self._usage if document["choices"] else usage or self._usage
            return
        self._ids += len(ids) if isinstance(ids := choice.get("token_ids"), list) else 0
        chars = self._take_message(object_of(choice.get("delta"), "delta"), streamed=True)
        if chars is not None:
            tokens = None if usage is None else usage.completion_tokens
            if not self._chunks:
                self._running_n1 = tokens
                self._ids_n1 = self._ids or None
            self._chunks.append(Chunk(at_s=at_s, tokens=tokens, chars=chars))
        self._finish(choice)
        if self._finish_reason is not None:
            # Servers that have no chunk of usage alone put the final count here; running usage is no final count.
            self._usage = usage or self._usage

    def _take_whole(self, document: dict[str, Any]) -> None:
        self._name(document)
        self._usage = usage_of(document.get("usage"))
        choice = _first_choice(document)
        if choice is None:
            raise ShapeError("no choices in the answer")
        self._take_message(object_of(choice.get("message"), "message"), streamed=False)
        self._finish(choice)
        if self._finish_reason is None:
            raise ShapeError("no finish_reason in the answer")
        self._prompt_logprobs = prompt_logprobs_of(document.get("prompt_logprobs"))

    def _take_message(self, message: dict[str, Any], *, streamed: bool) -> int | None:
        """How many characters of content, reasoning and calls it carried; None: none of them was there."""
        content = text_of(message.get("content"), "content")
        reasoning = text_of(message.get("reasoning"), "reasoning")
        if not reasoning:
            reasoning = text_of(message.get("reasoning_content"), "reasoning_content")
        calls = message.get("tool_calls")
        calls = [] if calls is None else calls
        if not isinstance(calls, list):
            raise ShapeError("tool_calls is not a list")
        self._content.append(content)
        self._reasoning.append(reasoning)
        chars = len(content) + len(reasoning)
        for place, call in enumerate(calls):
            chars += self._take_call(object_of(call, "tool call"), None if streamed else place)
        return chars if chars or calls else None

    def _take_call(self, call: dict[str, Any], place: int | None) -> int:
        index = call.get("index") if place is None else place
        if type(index) is not int or index < 0:
            raise ShapeError("a tool call without its index")
        function = object_of(call.get("function") or {}, "function")
        parts = self._calls.setdefault(index, {"id": [], "name": [], "arguments": []})
        name, arguments = text_of(function.get("name"), "name"), text_of(function.get("arguments"), "arguments")
        parts["id"].append(text_of(call.get("id"), "id"))
        parts["name"].append(name)
        parts["arguments"].append(arguments)
        return len(name) + len(arguments)

    def _finish(self, choice: dict[str, Any]) -> None:
        reason = text_of(choice.get("finish_reason"), "finish_reason")
        if reason:
            self._finish_reason = sound(reason)

    def _name(self, document: dict[str, Any]) -> None:
        if self._request_id is None and isinstance(given := document.get("id"), str) and given:
            self._request_id = sound(given)


def _is_part(data: str) -> bool:
    """Whether the last event of a body was cut: a part of an object is no object."""
    return data.strip() != _DONE and parsed(data) is None


def _first_choice(document: dict[str, Any]) -> dict[str, Any] | None:
    """The choice of index 0; None where the list is empty, as in the chunk of usage."""
    choices = document.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ShapeError("choices is not a list of objects")
    return next((choice for choice in choices if choice.get("index", 0) == 0), None)


def _call(index: int, parts: dict[str, list[str]]) -> ToolCall:
    joined = {name: sound("".join(texts)) for name, texts in parts.items()}
    return ToolCall(index=index, id=joined["id"] or None, name=joined["name"] or None, arguments=joined["arguments"])
