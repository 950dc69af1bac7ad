"""Answers on their way: events of a stream as tokens come, whole documents, and the ways in which both break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.openai_server.request import Request, Script
from tests.openai_server.server import Server
from tests.openai_server.wire import (
    FINGERPRINT,
    INTERNAL,
    completion_usage,
    delta,
    event,
    finish_reason,
    spec_stats,
    usage,
)

_DONE = b"data: [DONE]\n\n"


class ConnectionCut(Exception):  # noqa: N818
    """Raised inside the application on purpose: the server drops the connection in the middle of an answer."""


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Stream(Response):
    """A streamed answer. parts: yields the events' bytes; the request is aborted when the client goes away."""

    def __init__(self, server: Server, request: Request, parts: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._server, self._request, self._parts = server, request, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writing = asyncio.ensure_future(self._write(send))
        watching = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({writing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            for task in (writing, watching):
                task.cancel()
                with suppress(asyncio.CancelledError, ConnectionCut):
                    await task
            self._server.engine.abort(self._request)
            self._server.done(self._request)

    async def _write(self, send: Send) -> None:
        async for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        self._server.done(self._request)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Whole(Response):
    """An answer that is sent whole when it is made. document: makes its bytes; None breaks the connection off."""

    def __init__(
        self, server: Server, request: Request, document: Callable[[], Awaitable[tuple[int, bytes, bool]]]
    ) -> None:
        super().__init__(media_type="application/json")
        self._server, self._request, self._document = server, request, document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        making = asyncio.ensure_future(self._document())
        watching = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({making, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                return
            status, body, cut = making.result()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            self._server.engine.abort(self._request)
            self._server.done(self._request)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if cut:
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
                raise ConnectionCut
            await send({"type": "http.response.body", "body": body})
        finally:
            for task in (making, watching):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._server.engine.abort(self._request)
            self._server.done(self._request)


def ends(script: Script, tokens: int) -> bool:
    """Whether these are all the tokens of an answer that comes to its end."""
    return tokens >= len(script.tokens) and script.trouble not in ("cut", "in-band")


async def progress(server: Server, request: Request) -> AsyncIterator[int]:
    """Tokens so far, each time that a chunk is due; stops early where the script's trouble or an error begins."""
    interval, sent = server.setup.stream_interval, 0
    while (tokens := await request.outputs.get()) is not None:
        script = request.script
        if script is None:
            continue
        if script.trouble is not None and sent < script.stop_at <= tokens:
            sent = script.stop_at
            yield sent
            if script.trouble == "hang":
                # The answer stays open and nothing comes: only the client's patience ends this.
                await asyncio.Event().wait()
            if script.trouble != "bad-json":
                return
        if tokens > sent and (not sent or tokens - sent >= interval or tokens >= len(script.tokens)):
            sent = tokens
            yield tokens


class _ChatChunks:
    """The chunks of one chat: what was sent, which calls are open, and the text that an empty chunk kept back."""

    def __init__(self, server: Server, request: Request, request_id: str, created: int) -> None:
        body, self._setup = request.body, server.setup
        options = body.get("stream_options") or {}
        self._server, self._request = server, request
        self.with_usage = bool(options.get("include_usage")) and self._setup.usage != "missing"
        running = self.with_usage and bool(options.get("continuous_usage_stats"))
        self._running = running and self._setup.usage == "continuous"
        self._ids = bool(body.get("return_token_ids")) and self._setup.token_ids
        self._head: dict[str, Any] = {
            "id": request_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": self._setup.model,
        }
        self.opened: set[int] = set()
        self.sent = 0
        self._chunks = 0
        self._withheld = ""

    def _chunk(self, choice: dict[str, Any], tokens: int, more: dict[str, Any]) -> bytes:
        document = self._head | {"choices": [{"index": 0, **choice}]}
        if self._running:
            document["usage"] = usage(self._setup, self._request, tokens, last=False)
        return event(document | more)

    def role(self) -> bytes:
        """The first chunk of all."""
        ids = [self._server.vocabulary.id_of(t) for t in self._request.prompt] if self._ids else None
        choice = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return self._chunk(choice, 0, {"prompt_token_ids": ids, "prompt_text": None})

    def next(self, script: Script, tokens: int, *, finished: bool) -> bytes | None:
        """The chunk of the tokens up to `tokens`; None where they are only marks that a parser swallows."""
        part = script.tokens[self.sent : tokens]
        self.sent = tokens
        added = self._paced(delta(script, part, self.opened), finished=finished)
        if not added and not finished and not self._ids:
            return None
        choice: dict[str, Any] = {"delta": added, "logprobs": None, "finish_reason": None}
        more: dict[str, Any] = {}
        if finished:
            choice["finish_reason"] = finish_reason(self._request, script, called=bool(self.opened))
            choice["stop_reason"] = None
            more = {} if self.with_usage else {"system_fingerprint": FINGERPRINT}
        choice["token_ids"] = [self._server.vocabulary.id_of(t.text) for t in part] if self._ids else None
        return self._chunk(choice, tokens, more)

    def _paced(self, added: dict[str, Any], *, finished: bool) -> dict[str, Any]:
        """The delta, without its text where the setup wants an empty chunk, with what was kept back where not."""
        rate = self._setup.known_rate
        self._chunks += 1
        if rate is None or rate.empty_every is None:
            return added
        if self._chunks % rate.empty_every == 0 and not finished and set(added) == {"content"}:
            self._withheld += added["content"]
            return {"content": ""}
        text, self._withheld = self._withheld + added.get("content", ""), ""
        return added | {"content": text} if text else added

    def last(self) -> bytes:
        """The usage chunk."""
        setup, request = self._setup, self._request
        document = self._head | {"choices": [], "usage": usage(setup, request, self.sent, last=True)}
        document["system_fingerprint"] = FINGERPRINT
        if setup.spec_per_request and (stats := spec_stats(request, setup.k, stream=True)) is not None:
            document["metrics"] = {"speculative_decoding": stats}
        return event(document)


async def chat_events(server: Server, request: Request, request_id: str, created: int) -> AsyncIterator[bytes]:
    """A chat's stream, from the role chunk to [DONE]."""
    chunks = _ChatChunks(server, request, request_id, created)
    began = finished = False
    async for tokens in progress(server, request):
        script = request.script
        assert script is not None
        if not began:
            began = True
            yield chunks.role()
        finished = ends(script, tokens)
        made = chunks.next(script, tokens, finished=finished)
        if made is not None:
            yield made
        if script.trouble == "bad-json" and tokens == script.stop_at:
            yield b'data: {"id":"' + request_id.encode() + b'","choices":[{"index":0,"delta":{"cont\n\n'
    if not finished:
        async for part in _broken(server, request):
            yield part
        return
    if request.body.get("tools"):
        server.counters.parsed(streaming=True, called=bool(chunks.opened))
    if chunks.with_usage:
        yield chunks.last()
    yield _DONE


async def completion_events(server: Server, request: Request, request_id: str, created: int) -> AsyncIterator[bytes]:
    """A text completion's stream."""
    setup, body = server.setup, request.body
    options = body.get("stream_options") or {}
    with_usage = bool(options.get("include_usage")) and setup.usage != "missing"
    running = with_usage and bool(options.get("continuous_usage_stats")) and setup.usage == "continuous"
    head: dict[str, Any] = {"id": request_id, "object": "text_completion", "created": created, "model": setup.model}
    sent, finished = 0, False
    async for tokens in progress(server, request):
        script = request.script
        assert script is not None
        text = "".join(t.text for t in script.tokens[sent:tokens] if t.field == "content")
        finished, sent = ends(script, tokens), tokens
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": script.engine_finish if finished else None,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        document = head | {"choices": [choice]}
        if running:
            document["usage"] = completion_usage(setup, request, tokens, last=False, stream=True)
        yield event(document)
    if not finished:
        async for part in _broken(server, request):
            yield part
        return
    if with_usage:
        last = head | {"choices": [], "usage": completion_usage(setup, request, sent, last=True, stream=True)}
        yield event(last | {"system_fingerprint": FINGERPRINT})
    yield _DONE


async def _broken(server: Server, request: Request) -> AsyncIterator[bytes]:
    """The end of a stream that does not reach its own."""
    trouble = request.script.trouble if request.script is not None else None
    if trouble == "cut":
        server.engine.abort(request)
        raise ConnectionCut
    server.engine.fail(request)
    yield event(INTERNAL)
    yield _DONE


async def whole_answer(server: Server, request: Request) -> Script | None:
    """Wait for all of it; None where it ends in an error. Raises ConnectionCut."""
    async for _ in progress(server, request):
        pass
    script = request.script
    if script is not None and script.trouble == "cut":
        raise ConnectionCut
    if script is None or script.trouble is not None or request.finish not in ("stop", "length"):
        server.engine.fail(request)
        return None
    return script
