"""A plain client for the test server: httpx alone, so that nothing of the tool under test is in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from starlette.applications import Starlette

from tests.openai_server.app import Server, ServerSetup, make_app
from tests.openai_server.serving import asgi_transport
from tests.openai_server.virtual import run_virtual

T = TypeVar("T")
BASE = "http://server"


@dataclass
class Streamed:
    """A stream as it was read: each event's document and its time since the request was sent."""

    sent_s: float
    events: list[tuple[float, Any]] = field(default_factory=list)
    done: bool = False
    error: Exception | None = None

    @property
    def documents(self) -> list[Any]:
        return [document for _, document in self.events]

    @property
    def content(self) -> str:
        return "".join(d["choices"][0]["delta"].get("content") or "" for d in self.documents if d.get("choices"))

    @property
    def finish(self) -> str | None:
        reasons = [d["choices"][0]["finish_reason"] for d in self.documents if d.get("choices")]
        return reasons[-1] if reasons else None

    @property
    def usage(self) -> Any:
        return self.documents[-1].get("usage")

    def deliveries(self) -> list[tuple[float, int]]:
        """(time, completion tokens so far) of each chunk that added tokens."""
        found: list[tuple[float, int]] = []
        for at, document in self.events:
            tokens = (document.get("usage") or {}).get("completion_tokens", 0)
            if document.get("choices") and tokens > (found[-1][1] if found else 0):
                found.append((at, tokens))
        return found


def body(text: str = "Tell me something.", **fields: Any) -> dict[str, Any]:
    """A streamed chat with running usage."""
    messages = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": text}]
    options = {"include_usage": True, "continuous_usage_stats": True}
    return {"model": "tiny", "messages": messages, "stream": True, "stream_options": options, "max_tokens": 64} | fields


def long_body(number: int, tokens: int, **fields: Any) -> dict[str, Any]:
    """A chat with a prompt of just so many tokens, of which none is shared with another number's first block."""
    text = f"{number:06d}" + " word" * (tokens - 6)
    return body() | {"messages": [{"role": "user", "content": text}]} | fields


async def streamed(client: httpx.AsyncClient, asked: dict[str, Any]) -> Streamed:
    """Ask and read to the end, or to where it breaks off."""
    now = asyncio.get_running_loop().time
    found = Streamed(now())
    try:
        async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
            if response.status_code != 200:
                found.events.append((now() - found.sent_s, json.loads(await response.aread())))
                return found
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    found.done = True
                elif line.startswith("data: "):
                    found.events.append((now() - found.sent_s, json.loads(line[6:])))
    except (httpx.HTTPError, ValueError) as error:
        found.error = error
    return found


async def whole(client: httpx.AsyncClient, asked: dict[str, Any]) -> Any:
    """Ask without a stream; the document."""
    plain = {k: v for k, v in asked.items() if k != "stream_options"} | {"stream": False}
    response = await client.post("/v1/chat/completions", json=plain)
    return response.json()


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """Samples by name, summed over labels, without the prefix `vllm:`."""
    found: dict[str, float] = {}
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith("vllm:"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0].removeprefix("vllm:")
            found[name] = found.get(name, 0.0) + float(value)
    return found


def in_virtual_time(setup: ServerSetup | Starlette, scenario: Callable[[httpx.AsyncClient, Server], Awaitable[T]]) -> T:
    """Run a scenario against a server in this process, in virtual time."""

    async def main() -> T:
        app = make_app(setup) if isinstance(setup, ServerSetup) else setup
        async with httpx.AsyncClient(transport=asgi_transport(app), base_url=BASE, timeout=3600) as client:
            return await scenario(client, app.state.server)

    return run_virtual(main())
