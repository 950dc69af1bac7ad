"""The engine's own words over loopback: health, counters, and completions whose text is known."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.supervise.core.model import CanarySight, CanaryVerdict, EngineSight, GateVerdict, Health
from dspark_ops.supervise.node.config import Api, Gate

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)(?:\s+\d+)?\s*$")
# New names first; the old ones are of vLLM before 0.10, and of counters scraped without their suffix.
_RUNNING = ("vllm:num_requests_running",)
_WAITING = ("vllm:num_requests_waiting",)
_KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
_GENERATION = ("vllm:generation_tokens_total", "vllm:generation_tokens")
_PROMPT = ("vllm:prompt_tokens_total", "vllm:prompt_tokens")
_METRICS_LIMIT_S = 4.0
_LARGEST = 8 << 20


class AskError(Exception):
    """No answer. kind: refused, timeout, cut, or unknown when the fault is on this side."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Response:
    """An HTTP answer."""

    status: int
    body: str


def ask(url: str, *, limit_s: float, body: object = None, key_file: Path | None = None) -> Response:
    """One request to this machine; it ends at the limit, however slowly the other side dribbles.

    Raises:
        AskError: there was no whole answer.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=limit_s)
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError, AttributeError):
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, cut)
    timer.daemon = True
    timer.start()
    try:
        headers = {"Connection": "close"}
        headers |= _bearer(key_file)
        if body is None:
            connection.request("GET", parts.path or "/", headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", parts.path or "/", json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read(_LARGEST).decode("utf-8", "replace")
        if late.is_set():
            raise AskError("timeout", f"no whole answer within {limit_s:g} s")
        return Response(answer.status, text)
    except ConnectionRefusedError:
        raise AskError("refused", f"nothing listens at {parts.netloc}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            raise AskError("timeout", f"no answer within {limit_s:g} s") from None
        if isinstance(error, ConnectionError | http.client.HTTPException):
            raise AskError("cut", f"the connection ended: {error!r}") from None
        # No file handles left, no route: it says nothing of the engine.
        raise AskError("unknown", f"it could not be asked: {error!r}") from None
    finally:
        timer.cancel()
        connection.close()


def _bearer(key_file: Path | None) -> dict[str, str]:
    """Raises: AskError, the key cannot be read."""
    if key_file is None:
        return {}
    try:
        return {"Authorization": f"Bearer {key_file.read_text(encoding='utf-8').strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        raise AskError("unknown", f"the key at {key_file} cannot be read: {error}") from None


def parse_metrics(text: str) -> dict[str, float]:
    """Every sample summed over its labels; `_created` series and what is not a number are left out."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match is None or match[1].endswith("_created"):
            continue
        with suppress(ValueError):
            value = float(match[2])
            if value == value and abs(value) != float("inf"):
                sums[match[1]] = sums.get(match[1], 0.0) + value
    return sums


def read_engine(url: str) -> EngineSight:
    """Health and counters; what cannot be read is None or unknown."""
    health = read_health(url)
    try:
        scraped = ask(f"{url}/metrics", limit_s=_METRICS_LIMIT_S)
    except AskError:
        return EngineSight(health=health, metrics_answered=False)
    if scraped.status != 200:
        return EngineSight(health=health, metrics_answered=False)
    sums = parse_metrics(scraped.body)
    running, waiting = _first(sums, _RUNNING), _first(sums, _WAITING)
    return EngineSight(
        health=health,
        metrics_answered=True,
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        generation=_first(sums, _GENERATION),
        prompt=_first(sums, _PROMPT),
        kv_usage=_first(sums, _KV_USAGE),
    )


def read_health(url: str) -> Health:
    """What `/health` says. 200 is compatible with a dead service; 503 is not compatible with a live one."""
    try:
        status = ask(f"{url}/health", limit_s=_METRICS_LIMIT_S).status
    except AskError as error:
        return "refused" if error.kind == "refused" else "timeout" if error.kind == "timeout" else "unknown"
    return "ok" if status == 200 else "dead" if status == 503 else "unknown"


def _first(sums: dict[str, float], names: tuple[str, ...]) -> float | None:
    return next((sums[name] for name in names if name in sums), None)


def send_canary(api: Api, *, limit_s: float, clock: Callable[[], float], stream: bool = False) -> CanarySight:
    """One completion of known text, whole or streamed. clock: seconds since the boot."""
    sent_s = clock()

    def seen(verdict: CanaryVerdict, detail: str) -> CanarySight:
        return CanarySight(verdict=verdict, sent_s=sent_s, ended_s=clock(), detail=detail[:300])

    try:
        url, body = f"{api.url}/v1/chat/completions", _request(api, stream)
        answer = ask(url, limit_s=limit_s, body=body, key_file=api.key_file)
    except AskError as error:
        kinds: dict[str, CanaryVerdict] = {"refused": "refused", "timeout": "timeout", "cut": "error"}
        return seen(kinds.get(error.kind, "unknown"), str(error))
    if answer.status == 429:
        return seen("busy", f"turned away: {answer.body}")
    if answer.status >= 500:
        return seen("error", f"HTTP {answer.status}: {answer.body}")
    if answer.status != 200:
        return seen("unknown", f"HTTP {answer.status}: {answer.body}")
    text = streamed_text(answer.body) if stream else whole_text(answer.body)
    if text is None:
        return seen("error" if stream else "unknown", f"an answer without content: {answer.body}")
    if api.canary.expect in text:
        return seen("correct", "")
    return seen("wrong", f"expected {api.canary.expect!r} in the answer, got {text!r}")


def _request(api: Api, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": api.model,
        "messages": [{"role": "user", "content": api.canary.prompt}],
        "max_tokens": api.canary.max_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"thinking": api.canary.thinking},
    }
    return body | ({"stream": True} if stream else {})


def whole_text(body: str) -> str | None:
    """The content of a completion; None when there is none."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return content if isinstance(content, str) else None


def streamed_text(body: str) -> str | None:
    """The content of a stream that came to its end; None when it broke off, or holds an error in its band."""
    parts: list[str] = []
    for line in body.splitlines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return "".join(parts)
        try:
            event = json.loads(data)
            if "error" in event:
                return None
            parts.extend(choice.get("delta", {}).get("content") or "" for choice in event["choices"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
    return None


def run_gate(api: Api, gate: Gate, *, limit_s: float, clock: Callable[[], float]) -> tuple[GateVerdict, str]:
    """The smoke gate: the canary, then completions whole and streamed by turns; all must be right, in all the time.

    The first request after a start compiles and may take most of the limit. Returns the verdict and why.
    """
    deadline = time.monotonic() + limit_s
    for number in range(gate.completions + 1):
        left = deadline - time.monotonic()
        if left <= 0:
            return "failed", f"{number} of {gate.completions + 1} completions within {limit_s:g} s"
        # The canary is whole; after it every other one is streamed.
        streamed = number > 0 and number % 2 == 0
        said = send_canary(api, limit_s=left, clock=clock, stream=streamed)
        if said.verdict in ("busy", "unknown"):
            return "unknown", f"completion {number + 1}: {said.verdict}: {said.detail}"
        if said.verdict != "correct":
            kind = "streamed" if streamed else "whole"
            return "failed", f"completion {number + 1} ({kind}): {said.verdict}: {said.detail}"
    return "passed", f"{gate.completions + 1} completions were right"
