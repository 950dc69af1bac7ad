"""How well the test server keeps its own timetable over real HTTP: the true decode rate, and what a bare client sees.

    python benchmarks/openai_server_pace.py [--at-once N] [--tokens N] [--step-ms F]

kept: the worst error of the server's own deliveries; seen: that of a bare client, its reading included. What is over
1 % there is a busy machine's doing: no benchmark of this tool can be judged on it. Beside them, a count of chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx

from tests.openai_server.app import KnownRate, ServerSetup, make_app
from tests.openai_server.serving import serve

_CASES: dict[str, dict[str, Any]] = {
    **{f"{n} tokens a step": {"per_step": (n,)} for n in range(1, 7)},
    "1 to 6 mixed": {"per_step": (3, 1, 6, 2, 5, 4)},
    "17 held back": {"per_step": (3,), "held": 17},
    "44 held back": {"per_step": (4,), "held": 44},
    "3 steps a chunk": {"per_step": (2,), "burst": 3},
}


async def deliveries(client: httpx.AsyncClient, tokens: int, number: int) -> list[tuple[float, int]]:
    """(time, completion tokens so far) of each chunk, as its bytes were read."""
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": f"Question {number}?"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    found = []
    async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        async for line in response.aiter_lines():
            at = time.perf_counter()
            if line.startswith("data: {"):
                document = json.loads(line[6:])
                if document["choices"] and document["usage"]["completion_tokens"]:
                    found.append((at, document["usage"]["completion_tokens"]))
    return found


async def ask(url: str, tokens: int, at_once: int) -> list[list[tuple[float, int]]]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=300) as client:
        return list(await asyncio.gather(*(deliveries(client, tokens, n) for n in range(at_once))))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--at-once", type=int, default=1)
    options.add_argument("--tokens", type=int, default=600)
    options.add_argument("--step-ms", type=float, default=20.0)
    given = options.parse_args()
    print(f"{given.at_once} at once, {given.tokens} tokens, {given.step_ms:g} ms a step, load {os.getloadavg()[0]:.1f}")
    print(f"{'tok/s':18s} {'true':>8s} {'kept':>11s} {'seen':>11s} {'chunks':>8s}")
    for name, fields in _CASES.items():
        rate = KnownRate(step_s=given.step_ms / 1000, **fields)
        true = rate.true_rate(given.tokens)
        app = make_app(ServerSetup(known_rate=rate))
        with serve(app) as url:
            tables = asyncio.run(ask(url, given.tokens, given.at_once))
        seconds = [table[-1][0] - table[0][0] for table in tables]
        seen = [(table[-1][1] - table[0][1]) / s for table, s in zip(tables, seconds, strict=True)]
        counted = sum((len(t) - 1) / s for t, s in zip(tables, seconds, strict=True)) / len(tables)
        kept = max((s.kept_rate / true - 1 for s in app.state.server.served if s.kept_rate is not None), key=abs)
        worst = max((s / true - 1 for s in seen), key=abs)
        print(f"{name:18s} {true:8.2f} {100 * kept:+9.3f} % {100 * worst:+9.3f} % {counted:8.2f}")


if __name__ == "__main__":
    main()
