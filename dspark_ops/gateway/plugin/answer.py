"""What LiteLLM answers, on its way to the client: our headers alone, errors in one form, one model in a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .decide import Refusal
from .exchange import Exchange, as_error
from .settings import CLOUD
from .state import LOG, State

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_KEPT = frozenset({b"content-type", b"cache-control", b"x-accel-buffering"})
_KEPT_WHOLE = frozenset({b"content-type"})
# Inside of text a quotation mark is escaped, so this is the field itself.
_MODEL = re.compile(rb'"model": ?"(?:[^"\\]|\\.)*"')
_ERROR_BYTES = 1 << 20
#: LiteLLM's word for a client that hung up.
_CLIENT_GONE = 499
_CLIENTS_OWN = frozenset({400, 404, 405, 413, 415, 422})
_BROKEN = (
    "the stream of the {backend} backend broke after it began; what came is incomplete, and a tool call in it must not "
    "be run"
)


class Answer:
    """The `send` of one exchange. A good answer passes; an error is held back and said in our own words.

    ended: nothing more goes to the client. Of a stream, what comes before the first token (the role alone) is held:
    until then another backend may take over.
    """

    def __init__(self, exchange: Exchange, state: State, send: Send) -> None:
        self._exchange = exchange
        self._state = state
        self._out = send
        self._start: Message | None = None
        self._held: list[bytes] = []
        self._held_from = ""
        self._error = bytearray()
        self.ended = False

    async def send(self, message: Message) -> None:
        """One ASGI message of LiteLLM's."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None and not self.ended:
            body, more = bytes(message.get("body", b"")), bool(message.get("more_body"))
            if self._start["status"] >= 400:
                await self._failed(body, more)
            elif self._exchange.streamed:
                await self._event(body, more)
            else:
                await self._whole(body, more)

    def close(self) -> None:
        """Count an exchange whose answer never came to its end: the client went away, or LiteLLM failed."""
        if not self.ended:
            self._state.count(self._exchange.backend, "unfinished", 499)

    async def _failed(self, body: bytes, more: bool) -> None:
        if len(self._error) < _ERROR_BYTES:
            self._error += body
        if not more:
            await self._refuse()

    async def _whole(self, body: bytes, more: bool) -> None:
        """An answer in one piece goes out when it is whole."""
        self._held.append(body)
        if not more:
            await self._begin()
            await self._pass(self._named(b"".join(self._held)), more=False)

    async def _event(self, body: bytes, more: bool) -> None:
        if _is_error(body):
            if self._exchange.begun:
                await self._break()
            else:
                self._error += body
                await self._refuse()
            return
        if self._exchange.begun:
            if self._exchange.backend == CLOUD and not self._exchange.usage_asked and _is_usage(body):
                body = b""
            if body or not more:
                await self._pass(self._named(body), more=more)
            return
        if self._held_from != self._exchange.backend:
            self._held, self._held_from = [], self._exchange.backend
        self._held.append(body)
        if not more or _has_token(body):
            await self._begin()
            for part in self._held:
                await self._pass(self._named(part), more=True)
            if not more:
                await self._pass(b"", more=False)

    async def _begin(self) -> None:
        """The headers go out; from here on no other backend may go on with this answer."""
        assert self._start is not None  # noqa: S101 - the caller has looked
        self._exchange.begun = True
        kept = _KEPT if self._exchange.streamed else _KEPT_WHOLE
        headers = [(k, v) for k, v in self._start["headers"] if k.lower() in kept]
        if not self._exchange.streamed:
            length = len(self._named(b"".join(self._held)))
            headers.append((b"content-length", str(length).encode()))
        headers += _origin(self._exchange.backend, self._exchange.reason)
        await self._out({"type": "http.response.start", "status": self._start["status"], "headers": headers})

    async def _pass(self, body: bytes, *, more: bool) -> None:
        assert self._start is not None  # noqa: S101 - the caller has looked
        await self._out({"type": "http.response.body", "body": body, "more_body": more})
        if not more:
            self._end(self._exchange.backend, self._exchange.reason, self._start["status"])

    def _named(self, body: bytes) -> bytes:
        """The name that the client asked for, where LiteLLM shows its own group or the provider's name."""
        if self._exchange.backend != CLOUD:
            return body
        name = b'"model":' + json.dumps(self._exchange.model).encode()
        return _MODEL.sub(lambda _: name, body, count=1)

    async def _break(self) -> None:
        """End a stream that cannot go on: one error event, no [DONE]."""
        text = _BROKEN.format(backend=self._exchange.backend)
        event = b"data: " + json.dumps(as_error(Refusal(502, "stream_broken", text))).encode() + b"\n\n"
        await self._out({"type": "http.response.body", "body": event, "more_body": False})
        self._end(self._exchange.backend, "stream-broken", 502)

    async def _refuse(self) -> None:
        refusal, backend = self._refusal()
        self._exchange.refusal = refusal
        self._end(backend, self._exchange.reason, refusal.status)
        await plain_error(self._out, refusal, backend)

    def _refusal(self) -> tuple[Refusal, str]:
        """The error for the client, and the backend whose words it has."""
        exchange, retry = self._exchange, self._state.policy.retry_after_s
        failure = exchange.failures[-1] if exchange.failures else None
        if exchange.refusal is not None:
            own = exchange.refusal.code == "invalid_request" and failure is not None
            return exchange.refusal, failure.backend if own and failure is not None else "none"
        if failure is None:
            said = int(self._start["status"]) if self._start is not None else 500
            if said != _CLIENT_GONE:
                LOG.error("LiteLLM answered %d before any backend was asked", said)
            return Refusal(400 if 400 <= said < 500 else 502, "router_error", _message(bytes(self._error))), "none"
        status, backend = failure.status, failure.backend
        if status in _CLIENTS_OWN:
            return Refusal(int(status or 400), "invalid_request", failure.text), backend
        if backend == CLOUD and status in (401, 402, 403):
            return Refusal(
                502, "cloud_refused_key", f"the cloud refuses the gateway's own key or account ({status})"
            ), "none"
        if status == 429:
            return Refusal(
                429, f"{backend}_rate_limited", f"the {backend} backend takes no more at the moment", retry
            ), backend
        if backend == CLOUD:
            pair = "the pair does not serve, and the" if len(exchange.failures) > 1 else "the"
            code = "both_down" if len(exchange.failures) > 1 else "cloud_down"
            return Refusal(503, code, f"{pair} cloud does not answer ({status or 'no answer'})", retry), "none"
        closed = exchange.route.cloud_closed
        why = f"; the cloud is no way out: {closed}" if closed is not None else ""
        return Refusal(503, "local_down", f"the pair does not serve at the moment{why}", retry), "none"

    def _end(self, backend: str, reason: str, status: int) -> None:
        self.ended = True
        self._state.count(backend, reason, status)


async def plain_error(send: Send, refusal: Refusal, backend: str = "none") -> None:
    """Answer with a refusal."""
    body = json.dumps(as_error(refusal)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += _origin(backend, refusal.code.replace("_", "-"))
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _origin(backend: str, reason: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-dspark-backend", backend.encode()), (b"x-dspark-reason", reason.encode())]


def _is_error(body: bytes) -> bool:
    """Whether a part of a stream is LiteLLM's error event."""
    return body.lstrip().startswith((b'data: {"error"', b"event: error"))


def _has_token(body: bytes) -> bool:
    """Whether a part of a stream carries more than a role: text, a call, an end, or what is not understood."""
    for line in body.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            document = json.loads(line[5:])
            choices = list(document["choices"])
        except (ValueError, KeyError, TypeError):
            return True
        for choice in choices:
            delta = choice.get("delta") or {}
            said = {name: value for name, value in delta.items() if name != "role" and value}
            if said or choice.get("text") or choice.get("finish_reason"):
                return True
    return False


def _is_usage(body: bytes) -> bool:
    """Whether a part of a stream is the usage alone, which only our books have asked for."""
    if b'"usage"' not in body or not body.startswith(b"data: {"):
        return False
    try:
        document = json.loads(body[6:])
        return bool(document["usage"]) and not any(c.get("delta") or c.get("text") for c in document["choices"])
    except (ValueError, KeyError, TypeError):
        return False


def _message(raw: bytes) -> str:
    """LiteLLM's own words of an error that no backend has caused."""
    try:
        document = json.loads(bytes(raw).removeprefix(b"data: "))
        return str(document["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "the router failed"
