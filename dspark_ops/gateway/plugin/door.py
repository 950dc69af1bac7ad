"""ASGI in front of LiteLLM: what comes in is checked and decided here, and every answer says where it comes from."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from .answer import Answer, plain_error
from .body import fingerprint, parse
from .client import Client
from .decide import Refusal, decide
from .exchange import CURRENT, Exchange
from .fit import BadRequestError
from .metrics import exposition
from .settings import Policy
from .state import State
from .tokens import measure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_MODEL_ROUTES = ("/v1/chat/completions", "/v1/completions")
_SETTLE_GRACE_S = 120.0


class Door:
    """app: LiteLLM. key: what the edge sends; only `/alive` and `/metrics` (loopback, no secrets) go without."""

    def __init__(self, app: App, state: State, key: str) -> None:
        self._app = app
        self._state = state
        self._expected = b"Bearer " + key.encode()
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope["method"], scope["path"])
        headers = dict(scope["headers"])
        if asked == ("GET", "/alive"):
            await _document(send, 200, {"alive": True}, "alive")
        elif asked == ("GET", "/metrics"):
            text = await asyncio.to_thread(exposition, self._state)
            await _text(send, 200, text.encode(), b"text/plain; version=0.0.4", "none", "metrics")
        elif not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            await plain_error(send, Refusal(401, "invalid_api_key", "no valid key; expected Authorization: Bearer KEY"))
        elif asked == ("GET", "/v1/models"):
            await _document(send, 200, _models(self._state.policy), "models")
        elif scope["method"] == "POST" and scope["path"] in _MODEL_ROUTES:
            await self._ask(scope, headers, receive, send)
        else:
            await plain_error(send, Refusal(404, "not_found", "there is no such route"))

    async def _ask(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        policy = self._state.policy
        raw = await _read(receive, policy.body_bytes)
        if raw is None:
            return
        decided = await self._decided(raw, headers)
        if isinstance(decided, Refusal):
            self._state.count("none", decided.code.replace("_", "-"), decided.status)
            await plain_error(send, decided)
            return
        exchange, body = decided
        answer = Answer(exchange, self._state, send)
        client = Client(receive, body)
        token = CURRENT.set(exchange)
        inner = asyncio.create_task(self._app(self._inner(scope, body), client.receive, answer.send))
        CURRENT.reset(token)
        try:
            await client.until(inner, answer)
        finally:
            answer.close()
            self._forget(exchange)

    async def _decided(self, raw: bytes, headers: dict[bytes, bytes]) -> Refusal | tuple[Exchange, bytes]:
        """The exchange and the body for LiteLLM, or the refusal."""
        policy = self._state.policy
        if len(raw) > policy.body_bytes:
            return Refusal(413, "body_too_large", f"the request is larger than {policy.body_bytes >> 20} MiB")
        try:
            body = parse(raw)
            told = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            prompt = fingerprint(body)
            local_only = _local_only(policy, body["model"], headers.get(b"x-dspark-route"))
            size = await measure(policy, body)
        except BadRequestError as mistake:
            return Refusal(400, "invalid_request", mistake.message)
        except RecursionError:
            return Refusal(400, "invalid_request", "the body is nested too deeply")
        except LookupError:
            names = f"{policy.served_name} or {policy.local_only_name}"
            return Refusal(404, "model_not_found", f"there is no model of that name; expected {names}")
        route = decide(policy, size, local_only=local_only)
        if isinstance(route, Refusal):
            return route
        client = headers.get(b"x-dspark-client", b"").decode("latin-1")
        exchange = Exchange(
            client=client,
            model=body["model"],
            streamed=body.get("stream") is True,
            route=route,
            size=size,
            fingerprint=prompt,
            usage_asked=_asks_usage(body.get("stream_options")),
        )
        return exchange, told

    def _inner(self, scope: Scope, body: bytes) -> Scope:
        """The scope for LiteLLM: no header of the client's can steer it."""
        headers = [
            (b"host", f"127.0.0.1:{self._state.policy.port}".encode()),
            (b"authorization", self._expected),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        return {**scope, "headers": headers, "query_string": b""}

    def _forget(self, exchange: Exchange) -> None:
        """The provider's count of a stream may come a moment after its end; without it the reservation stays spent."""
        if exchange.call_id is None:
            return
        grace = _SETTLE_GRACE_S if exchange.begun and exchange.reservation is not None else 0.0
        asyncio.get_running_loop().call_later(grace, self._state.waiting.pop, exchange.call_id, None)


def _local_only(policy: Policy, model: str, asked: bytes | None) -> bool:
    """Whether a request may not leave. What is not understood is refused, never taken for the wider meaning.

    Raises:
        BadRequestError: the route's header says something else.
        LookupError: there is no such model.
    """
    if model not in (policy.served_name, policy.local_only_name):
        raise LookupError(model)
    if asked is not None and asked != b"local-only":
        shown = asked.decode("latin-1")[:40]
        raise BadRequestError(f"x-dspark-route is {shown!r}; expected local-only, or no such header")
    return asked is not None or model == policy.local_only_name


def _asks_usage(options: object) -> bool:
    return isinstance(options, dict) and options.get("include_usage") is True


def _models(policy: Policy) -> dict[str, Any]:
    names = (policy.served_name, policy.local_only_name)
    limits = {policy.served_name: policy.max_context, policy.local_only_name: policy.max_context}
    if policy.cloud is not None:
        limits[policy.served_name] = max(policy.max_context, policy.cloud.max_context)
    data = [{"id": n, "object": "model", "created": 0, "owned_by": "dspark", "max_model_len": limits[n]} for n in names]
    return {"object": "list", "data": data}


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body; None where the client went away. One that is too large is read only so far."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        length += len(part)
        parts.append(part)
        if not message.get("more_body") or length > most:
            return b"".join(parts)


async def _document(send: Send, status: int, document: dict[str, Any], reason: str) -> None:
    await _text(send, status, json.dumps(document).encode(), b"application/json", "none", reason)


async def _text(send: Send, status: int, body: bytes, kind: bytes, backend: str, reason: str) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"x-dspark-backend", backend.encode()),
        (b"x-dspark-reason", reason.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
