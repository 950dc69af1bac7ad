"""The door before LiteLLM, with an application in its place: what comes in, what goes out, and who goes away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.gateway.plugin.decide import Refusal, Route
from dspark_ops.gateway.plugin.door import Door
from dspark_ops.gateway.plugin.exchange import CURRENT, Exchange, Failure
from dspark_ops.gateway.plugin.fit import Size
from dspark_ops.gateway.plugin.ledger import Exhausted, Ledger, Limits, Reservation
from dspark_ops.gateway.plugin.settings import Policy
from dspark_ops.gateway.plugin.state import State

KEY = "router-key"
Inner = Callable[[Any, Any], Awaitable[None]]


def event(**delta: Any) -> bytes:
    chunk = {"model": "dspark-cloud", "choices": [{"index": 0, "delta": delta}]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


ROLE, TOKEN, END = event(role="assistant", content=""), event(content="word"), b"data: [DONE]\n\n"
BROKEN = b'data: {"error": {"message": "litellm.APIConnectionError at http://10.0.0.1"}}\n\n'


class Bench:
    """One door; `ask` gives status, headers and body."""

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.state = State(policy, Ledger(folder / "ledger.json"))
        self.inner_scopes: list[dict[str, Any]] = []

    def ask(
        self,
        inner: Inner,
        body: Any,
        *,
        headers: dict[str, str] | None = None,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        key: str = KEY,
        gone: bool = False,
    ) -> tuple[int, dict[str, str], bytes]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"authorization": f"Bearer {key}", **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"api_key=x",
            "headers": [(k.encode(), v.encode()) for k, v in told.items()],
        }
        sent: list[dict[str, Any]] = []

        async def app(inner_scope: Any, receive: Any, send: Any) -> None:
            self.inner_scopes.append(dict(inner_scope))
            await inner(receive, send)

        async def run() -> None:
            messages = [{"type": "http.request", "body": raw, "more_body": False}]

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                if not gone:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(dict(message))

            await Door(app, self.state, KEY)(scope, receive, send)

        asyncio.run(run())
        starts = [m for m in sent if m["type"] == "http.response.start"]
        if not starts:
            return 0, {}, b""
        assert len(starts) == 1
        got = {k.decode(): v.decode() for k, v in starts[0]["headers"]}
        return starts[0]["status"], got, b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture
def bench(policy: Policy, tmp_path: Path) -> Bench:
    return Bench(policy, tmp_path)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "flash", "messages": [{"role": "user", "content": "hi"}], **more}


def answering(*parts: bytes, backend: str = "local", status: int = 200) -> Inner:
    async def inner(_receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None
        exchange.backend = backend
        headers = [(b"content-type", b"text/event-stream"), (b"x-litellm-model-api-base", b"http://10.0.0.1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return inner


async def never(_receive: Any, _send: Any) -> None:
    raise AssertionError("LiteLLM was asked")


def error_of(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)["error"])


def test_a_good_stream_passes_with_our_headers_alone(bench: Bench) -> None:
    status, headers, body = bench.ask(answering(ROLE, TOKEN, END), chat(stream=True))
    assert (status, body) == (200, ROLE + TOKEN + END)
    assert (headers["x-dspark-backend"], headers["x-dspark-reason"]) == ("local", "local-first")
    assert not any(name.startswith("x-litellm") for name in headers)


def test_an_answer_of_the_cloud_has_the_name_that_was_asked_for(bench: Bench) -> None:
    _, headers, body = bench.ask(answering(ROLE, TOKEN, END, backend="cloud"), chat(stream=True))
    assert headers["x-dspark-backend"] == "cloud"
    assert b'"model":"flash"' in body
    assert b"dspark-cloud" not in body


def test_a_role_alone_is_held_until_the_backend_is_known(bench: Bench) -> None:
    """The local stream dies after its role; the cloud takes over, and nothing of the first is seen."""

    async def inner(receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None
        exchange.backend = "local"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": event(role="assistant", content="") + b"", "more_body": True})
        assert not exchange.begun
        exchange.failures.append(Failure("local", 502, "cut"))
        exchange.backend = "cloud"
        for part in (ROLE, TOKEN, END):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        assert exchange.begun
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    _, headers, body = bench.ask(inner, chat(stream=True))
    assert (headers["x-dspark-backend"], headers["x-dspark-reason"]) == ("cloud", "local-failed-502")
    assert body.count(b'"role"') == 1


def test_a_stream_that_breaks_ends_with_one_error_and_no_done(bench: Bench) -> None:
    _, headers, body = bench.ask(answering(ROLE, TOKEN, BROKEN, END), chat(stream=True))
    assert headers["x-dspark-backend"] == "local"
    assert body.startswith(ROLE + TOKEN)
    assert body.count(b'"error"') == 1
    assert b"stream_broken" in body
    assert b"[DONE]" not in body
    assert b"10.0.0.1" not in body


def test_an_error_before_the_first_token_is_a_status(bench: Bench) -> None:
    status, headers, body = bench.ask(answering(BROKEN), chat(stream=True))
    assert status == 502
    assert headers["x-dspark-backend"] == "none"
    assert headers["content-type"] == "application/json"
    assert error_of(body)["code"] == "router_error"


@pytest.mark.parametrize(
    ("failures", "status", "code", "backend"),
    [
        ([Failure("local", 503, "x")], 503, "local_down", "none"),
        ([Failure("local", 400, "too long")], 400, "invalid_request", "local"),
        ([Failure("local", 503, "x"), Failure("cloud", 503, "x")], 503, "both_down", "none"),
        ([Failure("local", 503, "x"), Failure("cloud", 401, "key ck-1")], 502, "cloud_refused_key", "none"),
        ([Failure("local", 503, "x"), Failure("cloud", 429, "x")], 429, "cloud_rate_limited", "cloud"),
        ([Failure("cloud", None, "x")], 503, "cloud_down", "none"),
    ],
)
def test_a_failure_is_said_in_our_own_words(
    bench: Bench, failures: list[Failure], status: int, code: str, backend: str
) -> None:
    async def inner(_receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None
        exchange.failures.extend(failures)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b'{"error": {"message": "litellm: ck-1"}}'})

    got, headers, body = bench.ask(inner, chat())
    assert (got, error_of(body)["code"], headers["x-dspark-backend"]) == (status, code, backend)
    assert ("retry-after" in headers) is (status in (429, 503))
    assert b"ck-1" not in body


def test_a_refusal_at_the_clouds_door_is_told_with_its_time(bench: Bench) -> None:
    async def inner(_receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None
        exchange.failures.append(Failure("local", 503, "x"))
        exchange.refusal = Refusal(503, "cloud_budget_hour", "the hour's budget is spent", 600)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    status, headers, body = bench.ask(inner, chat())
    assert (status, headers["retry-after"]) == (503, "600")
    assert (headers["x-dspark-reason"], error_of(body)["code"]) == ("cloud-budget-hour", "cloud_budget_hour")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        ([1], {}, 400),
        (chat(api_base="http://evil"), {}, 400),
        (chat(fallbacks=["dspark-cloud"]), {}, 400),
        (chat(stream="yes"), {}, 400),
        (chat(max_tokens=-1), {}, 400),
        (chat(prompt="x" * 1000), {}, 400),
        (chat(stream=True, stream_options=[1]), {}, 400),
        (b'{"model": "flash", "messages": [], "temperature": NaN}', {}, 400),
        (chat(model="dspark-cloud"), {}, 404),
        (chat(), {"x-dspark-route": "lokal"}, 400),
        (chat(), {"x-dspark-route": ""}, 400),
    ],
)
def test_what_is_not_understood_never_reaches_litellm(
    bench: Bench, body: Any, headers: dict[str, str], status: int
) -> None:
    got, answered, _ = bench.ask(never, body, headers=headers)
    assert got == status
    assert answered["x-dspark-backend"] == "none"


def test_a_local_only_request_is_given_the_group_that_cannot_leave(bench: Bench) -> None:
    groups = []

    async def inner(_receive: Any, send: Any) -> None:
        exchange = CURRENT.get()
        assert exchange is not None
        groups.append((exchange.route.group, exchange.route.cloud_closed))
        await answering(b"{}")(_receive, send)

    bench.ask(inner, chat(model="flash-local"))
    bench.ask(inner, chat(), headers={"x-dspark-route": "local-only"})
    bench.ask(inner, chat())
    assert groups == [("dspark-local", "local-only"), ("dspark-local", "local-only"), ("dspark-first", None)]


def test_no_header_and_no_bookkeeping_of_the_client_reaches_litellm(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    async def inner(receive: Any, send: Any) -> None:
        seen.append(json.loads((await receive())["body"]))
        await answering(b"{}")(receive, send)

    bench.ask(inner, chat(metadata={"tags": ["x"]}, user="me"), headers={"x-litellm-timeout": "1", "cookie": "a"})
    assert seen == [chat()]
    names = {name for name, _ in bench.inner_scopes[0]["headers"]}
    assert names == {b"host", b"authorization", b"content-type", b"content-length"}
    assert bench.inner_scopes[0]["query_string"] == b""


@pytest.mark.parametrize(("path", "status"), [("/key/generate", 404), ("/v1/embeddings", 404), ("/docs", 404)])
def test_no_other_route_of_litellm_is_open(bench: Bench, path: str, status: int) -> None:
    assert bench.ask(never, b"", path=path)[0] == status
    assert bench.ask(never, b"", path=path, key="other")[0] == 401


def test_a_client_that_goes_away_ends_the_work(bench: Bench) -> None:
    ended: list[str] = []

    async def inner(_receive: Any, _send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    bench.ask(inner, chat(), gone=True)
    assert ended == ["cancelled"]
    assert bench.state.answers[("none", "unfinished", "4xx")] == 1
    assert not bench.state.waiting


def test_a_body_that_is_nested_deeply_is_the_clients_mistake(bench: Bench) -> None:
    """Also where it can just be read and not be written again."""
    for depth in range(800, 1000):
        raw = b'{"model": "flash", "messages": ' + b"[" * depth + b"]" * depth + b"}"
        status, _, body = bench.ask(answering(b"{}"), raw)
        assert status == 200 or (status, error_of(body)["code"]) == (400, "invalid_request")


class SlowLedger(Ledger):
    """Books whose disk takes its time. begun: a reservation is on its way."""

    begun = threading.Event()

    def reserve(self, micro_usd: int, limits: Limits, prompt: bytes) -> Reservation | Exhausted:
        self.begun.set()
        time.sleep(0.2)
        return super().reserve(micro_usd, limits, prompt)


def test_a_client_that_leaves_while_money_is_set_aside_has_spent_none(policy: Policy, tmp_path: Path) -> None:
    ledger = SlowLedger(tmp_path / "slow.json")
    state = State(policy, ledger)
    exchange = Exchange("a", "flash", False, Route("dspark-first", "local-first"), Size(10, 10, 1, True), b"p")

    async def leave() -> None:
        asked = asyncio.create_task(state.reserve(exchange))
        await asyncio.to_thread(ledger.begun.wait)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(leave())
    assert ledger.spent().day_micro_usd == 0
    assert not any(json.loads(ledger.path.read_text())["prompts"].values())
