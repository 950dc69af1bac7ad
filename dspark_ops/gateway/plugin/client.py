"""The client's end of a request: whoever goes away takes the work at the backends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from .answer import Answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

#: What LiteLLM gets to end a call by itself, with its own books, before it is cancelled.
_GRACE_S = 0.5


class Client:
    """Gives LiteLLM the body, and then word of a client that has gone. Only one task reads the client itself."""

    def __init__(self, receive: Receive, body: bytes) -> None:
        self._receive = receive
        self._body: bytes | None = body
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        """LiteLLM's `receive`."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def until(self, inner: asyncio.Task[None], answer: Answer) -> None:
        """Wait for the answer's end, or cancel it when nobody is there to read it."""
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({inner, watch}, return_when=asyncio.FIRST_COMPLETED)
            # The server says the same after an answer's end, while LiteLLM still keeps its books.
            if not inner.done() and not answer.ended:
                await asyncio.wait({inner}, timeout=_GRACE_S)
                if not answer.ended:
                    inner.cancel()
            with suppress(asyncio.CancelledError):
                await inner
        finally:
            watch.cancel()
            inner.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
