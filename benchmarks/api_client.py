"""What the API client itself costs at six streams: processor seconds per 1,000 chunks, and how late it sees them.

usage: api_client.py   (a server of its own on loopback, in another process; about half a minute)

Beside it, the same bytes read by httpx alone, line by line, without understanding them. Lateness: from just before the
server writes a chunk to the time that the client notes for it, at the pace of a fast pair.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time

import httpx
import numpy as np

from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import ChatRequest

STREAMS = 6
CHUNKS = 4000
PACED_CHUNKS = 400
# Steps a second of a fast pair; each step of each stream is a chunk.
PACE = 50.0
GOAL_S = 0.1


def chunk(text: str, tokens: int) -> bytes:
    document = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1795458896,
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        "usage": {"prompt_tokens": 20000, "total_tokens": 20000 + tokens, "completion_tokens": tokens},
    }
    event = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return f"{len(event):x}\r\n".encode() + event + b"\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CHUNKS as fast as they go, or PACED_CHUNKS with the time in each, by the model's name."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    paced = json.loads(await reader.readexactly(length))["model"] == "paced"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    next_at = time.perf_counter()
    for number in range(PACED_CHUNKS if paced else CHUNKS):
        if paced:
            next_at += 1 / PACE
            await asyncio.sleep(max(0.0, next_at - time.perf_counter()))
        writer.write(chunk(f"{time.perf_counter():.7f} " if paced else " four tokens of text", 4 * number + 4))
        await writer.drain()
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    count = 4 * (PACED_CHUNKS if paced else CHUNKS)
    end += b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % count
    writer.write(f"{len(end):x}\r\n".encode() + end + b"\r\n0\r\n\r\n")
    await writer.drain()
    writer.close()


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def request(model: str) -> ChatRequest:
    return ChatRequest(model=model, messages=({"role": "user", "content": "hello"},), max_tokens=16)


async def by_client(url: str) -> float:
    """Processor seconds of this process for six streams."""
    async with ApiClient(url, zero=0.0) as client:
        began = time.process_time()
        answers = await asyncio.gather(*(client.chat(request("fast"), timeout_s=300) for _ in range(STREAMS)))
        spent = time.process_time() - began
    assert all(one.failure is None and len(one.chunks) == CHUNKS and one.n == 4 * CHUNKS for one in answers)  # noqa: S101
    return spent


async def by_lines(url: str) -> float:
    async def read(client: httpx.AsyncClient) -> int:
        count = 0
        async with client.stream("POST", f"{url}/v1/chat/completions", json=request("fast").body()) as response:
            async for line in response.aiter_lines():
                count += line.startswith("data: ")
        return count

    async with httpx.AsyncClient(trust_env=False, timeout=None, limits=httpx.Limits()) as client:  # noqa: S113
        began = time.process_time()
        counts = await asyncio.gather(*(read(client) for _ in range(STREAMS)))
        spent = time.process_time() - began
    assert set(counts) == {CHUNKS + 3}  # noqa: S101
    return spent


async def lateness_us(url: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """perf_counter is one clock for all processes of a Linux machine."""
    async with ApiClient(url, zero=0.0) as client:
        answers = await asyncio.gather(*(client.chat(request("paced"), timeout_s=300) for _ in range(STREAMS)))
    late = [
        (got.at_s - float(sent)) * 1e6
        for one in answers
        for got, sent in zip(one.chunks, one.content.split(), strict=True)
    ]
    return np.array(late)


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            asyncio.run(by_lines(url))
            lines = min(asyncio.run(by_lines(url)) for _ in range(3))
            ours = min(asyncio.run(by_client(url)) for _ in range(3))
            late = asyncio.run(lateness_us(url))
        finally:
            server.terminate()
    thousands = STREAMS * CHUNKS / 1000
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"python {platform.python_version()}, httpx {httpx.__version__}, {os.cpu_count()} cores, load {load}")
    print(f"{STREAMS} streams of {CHUNKS} chunks, the least of 3 runs each")
    print(f"client             {ours / thousands:.3f} processor s per 1,000 chunks (goal {GOAL_S} s)")
    print(f"httpx, lines only  {lines / thousands:.3f}")
    print(f"ratio              {ours / lines:.1f}")
    share = ours / thousands / 1000 * STREAMS * PACE
    print(f"at {STREAMS} streams of {PACE:g} chunks a second that is {share:.1%} of a core")
    median, high, worst = np.percentile(late, [50, 99, 100])
    print(
        f"seen late by       {median:.0f} us median, {high:.0f} us at 99 %, {worst:.0f} us worst, of {late.size} chunks"
    )
    sys.exit(0 if ours / thousands <= GOAL_S else 1)


if __name__ == "__main__":
    main()
