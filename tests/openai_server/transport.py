"""An httpx transport into an ASGI application that hands every chunk on when it comes.

httpx.ASGITransport keeps a body until it is whole; times of chunks would be lost. Read timeouts hold, a client that
closes early is seen by the application as a disconnect, and an application that raises in the middle of an answer
looks like a connection that was cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.types import ASGIApp, Message


class StreamingAsgiTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=...)`; every request is a connection of its own."""

    def __init__(self, app: ASGIApp, *, client: tuple[str, int] = ("127.0.0.1", 40000)) -> None:
        self.app = app
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions.get("trace")
        if trace is not None:
            await trace("http11.send_request_headers.started", {"request": request})
        exchange = _Exchange(self.app, self._scope(request), await request.aread(), request)
        if trace is not None:
            await trace("http11.send_request_headers.complete", {"return_value": None})
            await trace("http11.send_request_body.started", {"request": request})
            await trace("http11.send_request_body.complete", {"return_value": None})
            await trace("http11.receive_response_headers.started", {"request": request})
        status, headers = await exchange.start()
        if trace is not None:
            value = (b"HTTP/1.1", status, b"", headers)
            await trace("http11.receive_response_headers.complete", {"return_value": value})
        return httpx.Response(status, headers=headers, stream=exchange, extensions={"http_version": b"HTTP/1.1"})

    def _scope(self, request: httpx.Request) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(k.lower(), v) for k, v in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": self._client,
            "root_path": "",
        }


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer, the application running as a task beside the client."""

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes, request: httpx.Request) -> None:
        self._request = request
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._messages: asyncio.Queue[Message | BaseException | None] = asyncio.Queue()
        self._read_s = (request.extensions.get("timeout") or {}).get("read")
        self._whole = False
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception as failure:  # whatever the application dies of, a client sees a dead connection
            self._messages.put_nowait(failure)
        else:
            self._messages.put_nowait(None)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._messages.put_nowait(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._gone.set()

    async def _next(self) -> Message | None:
        try:
            async with asyncio.timeout(self._read_s):
                message = await self._messages.get()
        except TimeoutError:
            await self.aclose()
            raise httpx.ReadTimeout("", request=self._request) from None
        if isinstance(message, BaseException):
            cut = "peer closed connection without sending complete message body (incomplete chunked read)"
            raise httpx.RemoteProtocolError(cut, request=self._request) from message
        return message

    async def start(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Status and headers. RemoteProtocolError where the application ends without them."""
        try:
            message = await self._next()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if message is None:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=self._request)
        return message["status"], list(message["headers"])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._whole:
            message = await self._next()
            if message is None:
                raise httpx.RemoteProtocolError(
                    "peer closed connection without sending complete message body (incomplete chunked read)",
                    request=self._request,
                )
            self._whole = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def aclose(self) -> None:
        self._gone.set()
        if not self._task.done():
            await asyncio.wait({self._task}, timeout=1.0)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
