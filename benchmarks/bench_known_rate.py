"""The decode rate of our own client against a server whose rate is known, with chunks of several tokens; prints the
error per case beside a chunk counter's, and beside `vllm bench serve` where it is at hand.

usage: bench_known_rate.py [--vllm PATH] [--step SECONDS] [--case NAME ...] [--no-http]

Every content class against chunks of 1 to 6 tokens and of mixed sizes, a first chunk that holds back 17 or 44 tokens,
chunks that carry the tokens of several steps, and chunks without text; the server's answers follow a fixed timetable.
Each case twice: inside this process in virtual time, where only the client's own arithmetic can be wrong, and over real
HTTP on loopback from a process of its own, all classes at once, where a busy machine shows as well: what the server's
event loop was late is measured and printed. PATH: the `vllm` program of a virtual environment that has
pandas too, which its custom data set needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dspark_ops.bench.corpus.build import make_prompts
from dspark_ops.bench.corpus.model import CONTENT_CLASSES, ContentClass, Prompt
from dspark_ops.bench.measure import sample_of
from dspark_ops.bench.plan import BlockPlan
from dspark_ops.bench.records import Sample
from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import ChatRequest
from tests.openai_server.app import make_app
from tests.openai_server.serving import serve
from tests.openai_server.setup import KnownRate, ServerSetup
from tests.openai_server.transport import StreamingAsgiTransport
from tests.openai_server.virtual import run_virtual
from tests.unit.bench.known_rate import CASES, long_answers

GOAL = 0.01
TOKENS = 512

Sent = dict[str, list[tuple[float, int]]]

#: Every word is the unknown one: enough for a client that takes the answer's length from the server's usage.
WORDS_TOKENIZER: dict[str, dict[str, Any]] = {
    "tokenizer.json": {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"},
}


def prompts() -> dict[ContentClass, Prompt]:
    """One of each class."""
    return {
        name: make_prompts(name, 1, seed=0, max_tokens=TOKENS, preamble_chars=800, context_chars=4000)[0].model_copy(
            update={"max_tokens": TOKENS}
        )
        for name in CONTENT_CLASSES
    }


async def ask(api: ApiClient) -> dict[str, Sample]:
    """All classes at once, by the client and the measure that the bench uses."""

    async def one(name: ContentClass, prompt: Prompt) -> tuple[str, Sample]:
        request = ChatRequest(
            model="tiny", messages=prompt.messages, tools=prompt.tools, max_tokens=prompt.max_tokens, cache_salt=name
        )
        answer = await api.chat(request, timeout_s=300)
        block = BlockPlan(index=0, round=0, content_class=name, concurrency=1, cache="cold", prompts=(prompt.key,))
        return name, sample_of(block, 0, prompt, answer)

    return dict(await asyncio.gather(*(one(name, prompt) for name, prompt in prompts().items())))


def in_virtual_time(rate: KnownRate) -> dict[str, Sample]:
    """In this process, on a clock that jumps."""

    async def main() -> dict[str, Sample]:
        loop = asyncio.get_running_loop()
        app = make_app(ServerSetup(known_rate=rate), solver=long_answers)
        transport = StreamingAsgiTransport(app)
        async with ApiClient("http://test", zero=loop.time(), transport=transport, clock=loop.time) as api:
            return await ask(api)

    return run_virtual(main())


def serve_case(pipe: Connection, rate: KnownRate) -> None:
    """In a process of its own: the server, until the pipe says something; then what it really sent and when."""
    app = make_app(ServerSetup(known_rate=rate), solver=long_answers)
    engine = app.state.server.engine
    deliver, sent = engine._deliver, Sent()  # noqa: SLF001

    def noted(request: Any, size: int, now: float) -> None:
        deliver(request, size, now)
        sent.setdefault(str(request.body.get("cache_salt")), []).append((now, request.sent))

    engine._deliver = noted  # noqa: SLF001
    with serve(app) as url:
        pipe.send(url)
        pipe.recv()
        pipe.send(sent)


def over_http(rate: KnownRate, vllm: str | None) -> tuple[dict[str, Sample], Sent, float | None]:
    """Against a real server: the samples, what was sent when, and the rate that `vllm bench serve` gives for prose."""
    pipe, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve_case, args=(far, rate), daemon=True)
    process.start()

    async def main(url: str) -> dict[str, Sample]:
        async with ApiClient(url, zero=time.perf_counter()) as api:
            return await ask(api)

    try:
        url = pipe.recv()
        samples = asyncio.run(main(url))
        theirs = by_vllm(vllm, url, prompts()["prose"]) if vllm else None
        pipe.send("end")
        sent: Sent = pipe.recv()
    finally:
        process.join(15)
        if process.is_alive():
            process.terminate()
    return samples, sent, theirs


def by_vllm(program: str, url: str, prompt: Prompt) -> float | None:
    """1000 / its mean TPOT, the decode rate that `vllm bench serve` gives; None: it gave none."""
    folder = Path(tempfile.mkdtemp())
    try:
        data, result = folder / "prompts.jsonl", folder / "result.json"
        for name, document in WORDS_TOKENIZER.items():  # without any it tells no TPOT
            (folder / name).write_text(json.dumps(document), encoding="utf-8")
        data.write_text(json.dumps({"prompt": prompt.user_text[-2000:]}) + "\n", encoding="utf-8")
        command = [
            *(program, "bench", "serve", "--backend", "openai-chat", "--base-url", url),
            *("--endpoint", "/v1/chat/completions", "--model", "tiny", "--tokenizer", str(folder)),
            *("--dataset-name", "custom", "--dataset-path", str(data), "--skip-chat-template"),
            # Counts with its tokenizer; the server's own limit and usage are to have the last word.
            *("--extra-body", json.dumps({"max_completion_tokens": TOKENS})),
            *("--custom-output-len", str(TOKENS), "--num-prompts", "1", "--num-warmups", "0", "--disable-tqdm"),
            *("--save-result", "--result-dir", str(folder), "--result-filename", result.name),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        if not result.exists():
            said = [line for line in (done.stderr or done.stdout).splitlines() if "Error" in line]
            print(f"    vllm bench serve ended with {done.returncode}: {' '.join(said)[-300:]}")
            return None
        tpot_ms = json.loads(result.read_text(encoding="utf-8")).get("mean_tpot_ms")
        if not tpot_ms:
            print("    vllm bench serve gave no mean TPOT")
        return 1000.0 / tpot_ms if tpot_ms else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_sent(deliveries: list[tuple[float, int]]) -> float | None:
    """The decode rate by the times at which the server handed its chunks over."""
    (first_s, first), (last_s, last) = deliveries[0], deliveries[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else None


def main() -> None:
    """Every case; exit status 1 where an error of ours is above the goal in virtual time."""
    options = argparse.ArgumentParser(description="known rate")
    options.add_argument("--vllm", default=shutil.which("vllm"), help="the vllm program")
    options.add_argument("--step", type=float, default=0.0725, help="seconds between steps")
    options.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    options.add_argument("--no-http", action="store_true", help="virtual time only")
    given = options.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{TOKENS} tokens an answer, {len(CONTENT_CLASSES)} classes at once, steps of {given.step * 1e3:g} ms")
    worst: dict[str, list[float]] = {"virtual": [], "against what was sent": [], "against the timetable": []}
    counters: list[float] = []
    for case in given.case or CASES:
        rate = KnownRate(ttft_s=0.2, step_s=given.step, **CASES[case])
        print(f"\n{case}")
        samples = in_virtual_time(rate)
        for name, sample in samples.items():
            true = rate.true_rate(sample.n or TOKENS)
            counted = sample.chunks / (sample.end_s - sample.sent_s)
            ours = sample.decode_rate or 0.0
            worst["virtual"].append(abs(ours / true - 1))
            counters.append(counted / true - 1)
            print(
                f"  virtual {name:13} n {sample.n} n1 {sample.n1!s:>3}  true {true:8.2f}  ours {ours:8.2f} "
                f"{ours / true - 1:+7.2%}  chunk counter {counted:7.2f} {counted / true - 1:+7.1%}"
            )
        if given.no_http:
            continue
        samples, sent, theirs = over_http(rate, given.vllm)
        for name, sample in samples.items():
            true, ours, real = rate.true_rate(sample.n or TOKENS), sample.decode_rate or 0.0, as_sent(sent[name])
            counted = sample.chunks / (sample.end_s - sample.sent_s)
            off = float("nan") if real is None else ours / real - 1
            worst["against what was sent"].append(abs(off))
            worst["against the timetable"].append(abs(ours / true - 1))
            print(
                f"  http    {name:13} n {sample.n} n1 {sample.n1!s:>3}  true {true:8.2f}  sent {real or 0:8.2f}  ours "
                f"{ours:8.2f} {off:+7.2%}  chunk counter {counted:7.2f} {counted / true - 1:+7.1%}"
            )
        if theirs is not None:
            print(f"  http    vllm bench serve, prose: {theirs:8.2f} {theirs / rate.true_rate(TOKENS) - 1:+7.2%}")
    if not given.vllm:
        print("\nvllm bench serve: there is no vllm program here; give --vllm PATH")
    print()
    for name, errors in worst.items():
        if errors:
            inside = sum(error <= GOAL for error in errors)
            print(f"{name}: worst error {max(errors):.3%}, {inside} of {len(errors)} within {GOAL:.0%}")
    print(f"chunk counter: {min(counters):+.0%} to {max(counters):+.0%}")
    sys.exit(0 if max(worst["virtual"]) <= GOAL else 1)


if __name__ == "__main__":
    main()
