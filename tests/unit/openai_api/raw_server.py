"""A server on loopback that sends exactly the bytes that a test gives it, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request. at_s: when its first bytes were there, by `time.perf_counter`. connection: the how manieth."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float
    connection: int

    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Wait:
    """Between two pieces of a reply: let this much time go by."""

    seconds: float


class Reset:
    """At a reply's end: break the connection, not close it."""


Piece = bytes | Wait | Reset
Reply = Callable[[Received], Sequence[Piece]]


@dataclass
class RawServer:
    """reply: asked for each request. A connection stays open unless the reply resets it or says `Connection: close`."""

    reply: Reply
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            while (request := await _read(reader, connection)) is not None:
                self.received.append(request)
                if not await self._answer(writer, self.reply(request)):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            self.open_now -= 1
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, pieces: Sequence[Piece]) -> bool:
        for piece in pieces:
            if isinstance(piece, Wait):
                await asyncio.sleep(piece.seconds)
            elif isinstance(piece, Reset):
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            else:
                writer.write(piece)
                await writer.drain()
        return b"connection: close" not in b"".join(piece for piece in pieces if isinstance(piece, bytes)).lower()


async def _read(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    at_s = time.perf_counter()
    first, *rest = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, at_s, connection)


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """The server while it runs, on a free port of loopback."""
    server = RawServer(reply, scheme="http" if tls is None else "https")
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def whole(body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """A reply with its length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def document(content: Any, *, status: str = "200 OK") -> bytes:
    return whole(json.dumps(content).encode(), status=status)


def chunked(pieces: Sequence[Piece], *, ended: bool = True) -> list[Piece]:
    """A stream of server-sent events in HTTP's chunks, each piece one."""
    found: list[Piece] = [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    ]
    found += [f"{len(one):x}\r\n".encode() + one + b"\r\n" if isinstance(one, bytes) else one for one in pieces]
    return [*found, b"0\r\n\r\n"] if ended else found


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def delta(content: dict[str, Any], *, tokens: int | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One chunk of a stream. tokens: its running usage."""
    found: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": content, "finish_reason": finish, **more}],
    }
    if tokens is not None:
        found["usage"] = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    return event(found)


def usage(completion: int, prompt: int = 7, **more: Any) -> bytes:
    """The chunk of usage alone."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": counts})


DONE = b"data: [DONE]\n\n"
ROLE = delta({"role": "assistant", "content": ""}, tokens=0)
PLAIN = [ROLE, delta({"content": "The quick"}, tokens=3), delta({"content": " brown fox."}, tokens=6)]
PLAIN += [delta({}, tokens=6, finish="stop"), usage(6), DONE]
