"""What stands before a stand-in: it writes down every request and, where a test asks for it, harms the answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.openai_server.streaming import ConnectionCut, until_gone
from tests.openai_server.wire import INTERNAL, error, event

Harm = Literal["status", "cut", "hang", "in-band"]
_WINDOW = (
    "This model's maximum context length is 1048576 tokens. However, your prompt contains 1048577 input tokens. "
    "(parameter=input_tokens, value=1048577)"
)
#: Documents as the engine (500, 503, 400) and a provider (401, 429) word them.
DOCUMENTS: dict[int, dict[str, Any]] = {
    400: error(_WINDOW, "BadRequestError", 400, "input_tokens"),
    401: {
        "error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}
    },
    429: {"error": {"message": "Rate limit reached.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}},
    500: INTERNAL,
    503: error("The server is overloaded.", "ServiceUnavailableError", 503),
}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. at: monotonic seconds."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return dict(json.loads(self.raw)) if self.raw else {}

    @property
    def asks_model(self) -> bool:
        """Whether it asks for tokens; `/tokenize`, `/metrics` and the like do not."""
        return self.path in ("/v1/chat/completions", "/v1/completions")


@dataclass(frozen=True)
class Trouble:
    """Harm to answers of the model.

    kind: `status` answers with it, `cut` drops the connection, `hang` says nothing more until the client goes away,
    `in-band` ends the stream with an error event. after: so many events of a stream (or, for a document, any number
    above 0: half of its bytes) reach the client first. times: only so many requests; None for all.
    """

    kind: Harm
    status: int = 503
    after: int = 0
    times: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Door:
    """ASGI in front of a stand-in. `trouble` and `gate` may be changed from a test's own thread at any time.

    gate: while it is closed no answer begins, or, with `gate_after`, none goes on beyond so many events: a long
    prefill, or a stream that is still running. running, most: requests of the model inside now, and the most at once.
    """

    app: ASGIApp
    cut: Callable[[Scope], None]
    alive: Callable[[Scope], bool]
    trouble: Trouble | None = None
    gate_open: bool = True
    gate_after: int = 0
    seen: list[Seen] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def asked(self) -> list[Seen]:
        """Requests for tokens so far."""
        return [s for s in self.seen if s.asks_model]

    def shut(self, *, after: int = 0) -> None:
        """Hold every answer back."""
        self.gate_after, self.gate_open = after, False

    def release(self) -> None:
        """Let go what is held back."""
        self.gate_open = True

    def reset(self) -> None:
        """As new, but for what is still running."""
        self.trouble, self.gate_open, self.gate_after, self.most = None, True, 0, 0
        self.seen.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        raw, replay = await _read(receive)
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        seen = Seen(time.monotonic(), scope["method"], scope["path"], headers, raw)
        if "x-bench-probe" not in headers:
            self.seen.append(seen)
        if not seen.asks_model:
            await self.app(scope, replay, send)
            return
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._harmed(scope, receive, replay, send, self._taken())
        finally:
            self.running -= 1

    def _taken(self) -> Trouble | None:
        """The trouble of this request; one of `times` is used up."""
        trouble = self.trouble
        if trouble is not None and trouble.times is not None:
            if trouble.times < 1:
                return None
            self.trouble = Trouble(trouble.kind, trouble.status, trouble.after, trouble.times - 1, trouble.headers)
        return trouble

    async def _harmed(
        self, scope: Scope, receive: Receive, replay: Receive, send: Send, trouble: Trouble | None
    ) -> None:
        if trouble is not None and trouble.after == 0 and await self._refused(scope, receive, send, trouble):
            return
        if not self.gate_open and self.gate_after == 0 and not await self._opened(receive):
            return
        events = 0
        streamed = False

        async def passed(message: Message) -> None:
            nonlocal events, streamed
            if message["type"] == "http.response.start":
                kinds = dict(message["headers"])
                streamed = kinds.get(b"content-type", b"").startswith(b"text/event-stream")
            elif streamed and message.get("body"):
                while not self.gate_open and events >= self.gate_after:
                    await asyncio.sleep(0.01)
                if trouble is not None and events >= trouble.after:
                    await self._broken(scope, send, trouble)
                events += 1
            elif trouble is not None and message.get("body"):
                half = message["body"][: len(message["body"]) // 2]
                await send({"type": "http.response.body", "body": half, "more_body": True})
                await self._broken(scope, send, trouble)
            await send(message)

        await self.app(scope, replay, passed)

    async def _refused(self, scope: Scope, receive: Receive, send: Send, trouble: Trouble) -> bool:
        """Harm before the first byte; whether there was any."""
        if trouble.kind == "status":
            body = json.dumps(DOCUMENTS[trouble.status]).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            headers += [(k.encode(), v.encode()) for k, v in trouble.headers]
            await send({"type": "http.response.start", "status": trouble.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return True
        if trouble.kind == "cut":
            self.cut(scope)
            return True
        if trouble.kind == "hang":
            await until_gone(receive)
            return True
        return False

    async def _opened(self, receive: Receive) -> bool:
        """Wait for the gate; False where the client goes away first."""
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            while not self.gate_open and not gone.done():
                await asyncio.sleep(0.01)
            return not gone.done()
        finally:
            gone.cancel()

    async def _broken(self, scope: Scope, send: Send, trouble: Trouble) -> None:
        """The end of an answer that had begun; never returns."""
        if trouble.kind == "hang":
            while self.alive(scope):
                await asyncio.sleep(0.02)
            raise ConnectionCut
        if trouble.kind == "in-band":
            await send({"type": "http.response.body", "body": event(INTERNAL), "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        else:
            self.cut(scope)
        raise ConnectionCut


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body, and a channel that gives it again before anything else."""
    raw = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        raw += message.get("body", b"")
        if not message.get("more_body"):
            break
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": bytes(raw), "more_body": False}

    return bytes(raw), replay
