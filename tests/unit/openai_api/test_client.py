"""Against a server that sends any bytes it likes: an answer of a known kind, in time, in bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.openai_api import stream
from dspark_ops.openai_api.client import ApiClient, ServedModel
from dspark_ops.openai_api.model import Answer, ChatRequest
from tests.unit.facts.captures import FIXTURES
from tests.unit.openai_api.raw_server import (
    DONE,
    PLAIN,
    ROLE,
    Piece,
    RawServer,
    Received,
    Reply,
    Reset,
    Wait,
    chunked,
    delta,
    document,
    serving,
    usage,
    whole,
)

Found = TypeVar("Found")
KEY = "sk-0123456789abcdef0123456789abcdef"
ASKED = ChatRequest(model="tiny", messages=({"role": "user", "content": "hello"},), max_tokens=16)
UNARY = ASKED.model_copy(update={"stream": False})
REAL = json.loads((FIXTURES / "vllm-api" / "answers.json").read_text(encoding="utf-8"))


def run(reply: Reply, work: Callable[[ApiClient, RawServer], Awaitable[Found]], **options: Any) -> Found:
    async def inside() -> Found:
        async with (
            serving(reply) as server,
            ApiClient(server.url, zero=options.pop("zero", 0.0), **options) as client,
        ):
            return await work(client, server)

    return asyncio.run(inside())


def answer_to(request: ChatRequest, *pieces: Piece, timeout_s: float = 20.0) -> Answer:
    async def work(client: ApiClient, _: RawServer) -> Answer:
        return await client.chat(request, timeout_s=timeout_s)

    return run(lambda _: list(pieces), work)


def kind_of(answer: Answer) -> str | None:
    return None if answer.failure is None else answer.failure.kind


def test_a_stream_is_asked_for_and_read() -> None:
    zero = time.perf_counter()

    async def work(client: ApiClient, server: RawServer) -> tuple[Answer, Received]:
        return await client.chat(ASKED, timeout_s=20), server.received[0]

    answer, received = run(lambda _: chunked(PLAIN), work, zero=zero, api_key=KEY)
    assert answer.failure is None
    assert (answer.status, answer.content, answer.n, answer.n1) == (200, "The quick brown fox.", 6, 3)
    assert answer.first_s is not None
    assert answer.last_s is not None
    assert 0 < answer.sent_s <= received.at_s - zero <= answer.first_s <= answer.last_s <= answer.end_s
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.document() == ASKED.body()
    assert received.document()["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["accept"] == "text/event-stream"


def test_sent_is_when_the_bytes_go_and_not_when_the_connection_is_sought() -> None:
    async def slow_to_connect(client: ApiClient) -> Answer:
        real = client._client._transport.handle_async_request

        async def late(request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.2)
            return await real(request)

        client._client._transport.handle_async_request = late  # type: ignore[method-assign]
        return await client.chat(ASKED, timeout_s=20)

    async def work(client: ApiClient, server: RawServer) -> tuple[float, float]:
        began = time.perf_counter()
        answer = await slow_to_connect(client)
        return answer.sent_s - began, server.received[0].at_s - answer.sent_s

    before, after = run(lambda _: chunked(PLAIN), work)
    assert before >= 0.2
    assert after >= 0


def test_an_answer_that_is_not_streamed() -> None:
    answer = answer_to(UNARY, document(REAL["chat-thinking"]["body"]))
    assert answer.failure is None
    assert (answer.reasoning, answer.content) == ("First, weigh the facts.", "It is forty-two!")
    assert (answer.n, answer.first_s, answer.last_s, answer.n1, answer.chunks) == (9, None, None, None, ())
    assert answer.end_s > answer.sent_s


def test_the_prompts_own_numbers_where_they_were_asked_for() -> None:
    body = REAL["chat-thinking"]["body"] | {"prompt_logprobs": [None, {"5": {"logprob": -0.5}}, {"6": {"logprob": 0}}]}
    assert answer_to(UNARY, document(body)).prompt_logprobs == (-0.5, 0.0)
    assert answer_to(UNARY, document(REAL["chat-thinking"]["body"])).prompt_logprobs is None


def test_a_tool_call_that_is_not_streamed() -> None:
    found = json.loads((FIXTURES / "vllm-api" / "tool-call-choice.json").read_text(encoding="utf-8"))
    answer = answer_to(UNARY, document(found))
    assert answer.failure is None
    assert [(c.index, c.name, json.loads(c.arguments)) for c in answer.tool_calls] == [
        (0, "get_weather", {"city": "Paris", "days": 3})
    ]
    assert answer.tool_calls[0].id == "chatcmpl-tool-af6e661a8544a6bd"
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("name", ["max-tokens-too-large", "prompt-too-long", "unknown-model", "malformed"])
@pytest.mark.parametrize("request_", [ASKED, UNARY])
def test_what_vllm_refuses_is_told_in_its_words(name: str, request_: ChatRequest) -> None:
    status, body = REAL[name]["status"], REAL[name]["body"]
    answer = answer_to(request_, document(body, status=f"{status} No"))
    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.status, answer.status) == ("http", status, status)
    assert " ".join(body["error"]["message"].split())[:40] in answer.failure.message
    assert answer.usage is None


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([whole(b"", status="500 Oops")], "http"),
        ([whole(b"<html>" + b"x" * 100_000, status="502 Bad Gateway", kind="text/html")], "http"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 500\r\n\r\nhalf", Reset()], "http"),
        ([whole(b"", status="301 Moved", more="Location: /elsewhere\r\n")], "http"),
        ([whole(b"", status="302 Found", more="Location: http://[::1\r\n")], "malformed"),
        ([whole(b"", status="204 Nothing")], "http"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", Reset()], "cut"),
        ([Reset()], "cut"),
        ([b"HTTP/1.1 200 OK\r\nContent-Ty", Reset()], "cut"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Reset()], "malformed"),
        ([b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000, Reset()], "malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", Reset()], "malformed"),
        ([whole(b"{}")], "malformed"),
        ([whole(b"hello", kind="text/plain")], "malformed"),
        ([whole(b'{"error": {"message": "no", "code": 400}}')], "in-band"),
        (
            [whole(gzip.compress(b"".join(PLAIN)), kind="text/event-stream", more="Content-Encoding: gzip\r\n")],
            "malformed",
        ),
        ([*chunked(PLAIN[:3], ended=False), Reset()], "cut"),
        (chunked(PLAIN[:3]), "cut"),
        ([*chunked(PLAIN[:3], ended=False), b"zz\r\n", Reset()], "malformed"),
        (chunked([*PLAIN[:3], b"data: {\n\n"]), "malformed"),
        ([whole(b"".join(PLAIN), kind="text/event-stream; charset=utf-16")], None),
        ([whole(b"".join(PLAIN), kind="TEXT/Event-Stream")], None),
    ],
)
def test_every_way_to_fail_has_its_kind(pieces: list[Piece], kind: str | None) -> None:
    answer = answer_to(ASKED, *pieces)
    assert kind_of(answer) == kind
    if answer.failure is not None:
        assert len(answer.failure.message) <= 400


def test_no_damage_to_the_bytes_raises() -> None:
    """Real replies with bytes changed, lost, doubled and cut, over one client."""
    rng = random.Random(7)  # noqa: S311 - reproducible, not secret
    whole_reply = b"".join(piece for piece in chunked(PLAIN) if isinstance(piece, bytes))
    replies = [
        whole_reply,
        document(REAL["chat-thinking"]["body"]),
        document(REAL["malformed"]["body"], status="400 No"),
    ]

    def damaged(_: Received) -> list[Piece]:
        body = bytearray(rng.choice(replies))
        for _turn in range(rng.randint(1, 6)):
            at = rng.randrange(len(body))
            match rng.randrange(4):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    del body[at : at + rng.randint(1, 30)]
                case 2:
                    body[at:at] = body[at : at + rng.randint(1, 30)]
                case _:
                    body[at:at] = rng.randbytes(3)
            body = body or bytearray(b"x")
        return [bytes(body), Reset()]

    async def work(client: ApiClient, _: RawServer) -> list[Answer]:
        return [await client.chat(rng.choice([ASKED, UNARY]), timeout_s=20) for _ in range(200)]

    kinds = {kind_of(answer) for answer in run(damaged, work)}
    assert {"cut", "malformed", "http"} <= kinds


def test_what_came_before_a_cut_stays() -> None:
    answer = answer_to(ASKED, *chunked(PLAIN[:2], ended=False), Reset())
    assert (kind_of(answer), answer.content, len(answer.chunks), answer.status) == ("cut", "The quick", 1, 200)


def test_a_server_that_stops_talking_is_left_at_the_limit_with_what_came() -> None:
    began = time.perf_counter()
    answer = answer_to(ASKED, *chunked([*PLAIN[:2], Wait(30)], ended=False), timeout_s=0.5)
    assert (kind_of(answer), answer.content, answer.status) == ("timeout", "The quick", 200)
    assert 0.4 < time.perf_counter() - began < 20
    assert kind_of(answer_to(ASKED, Wait(30), timeout_s=0.3)) == "timeout"


def test_a_server_that_trickles_for_ever_is_left_at_the_limit() -> None:
    pieces: list[Piece] = [piece for _ in range(600) for piece in (delta({"content": "a"}), Wait(0.05))]
    assert kind_of(answer_to(ASKED, *chunked(pieces), timeout_s=0.5)) == "timeout"


def test_nobody_listens() -> None:
    async def work() -> tuple[Answer, list[Answer], Any, Any]:
        async with serving(lambda _: []) as server:
            url = server.url
        async with ApiClient(url, zero=0.0) as client:
            one = await client.chat(ASKED, timeout_s=5)
            burst = await client.burst([ASKED, ASKED], timeout_s=5)
            with pytest.raises(NoVerdictError):
                await client.models()
            return one, burst, await client.scrape(), await client.tokenize(ASKED)

    one, burst, counters, tokens = asyncio.run(work())
    assert [kind_of(answer) for answer in (one, *burst)] == ["connect"] * 3
    assert one.status is None
    assert counters.model_dump(exclude={"at_s"}, exclude_none=True) == {}
    assert tokens is None


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_a_body_without_end_is_left(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_BODY_BYTES", 1 << 20)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode()
    line = b": " + b"x" * 65_000 + b"\n"
    answer = answer_to(ASKED if kind != "application/json" else UNARY, head, *[line] * 200, Reset())
    assert kind_of(answer) == "malformed"
    assert answer.failure is not None
    assert "MiB" in answer.failure.message


def test_a_cancelled_request_is_cancelled() -> None:
    async def work(client: ApiClient, server: RawServer) -> int:
        task = asyncio.create_task(client.chat(ASKED, timeout_s=60))
        while not server.received:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(server.received)

    assert run(lambda _: [Wait(30)], work) == 1


@pytest.mark.parametrize(
    ("request_", "reply"), [(ASKED, chunked(PLAIN)), (UNARY, [document(REAL["chat-thinking"]["body"])])]
)
def test_each_request_has_a_connection_of_its_own(request_: ChatRequest, reply: list[Piece]) -> None:
    async def work(client: ApiClient, server: RawServer) -> list[int]:
        for _ in range(3):
            assert (await client.chat(request_, timeout_s=20)).failure is None
        return [received.connection for received in server.received]

    assert run(lambda _: reply, work) == [1, 2, 3]


def of_burst(request: Received) -> list[Piece]:
    return [document({})] if request.method == "GET" else chunked([*PLAIN[:2], Wait(0.3), *PLAIN[2:]])


def test_a_burst_has_its_connections_before_it_is_released() -> None:
    requests = [ASKED.model_copy(update={"cache_salt": f"s{number}"}) for number in range(6)]

    async def work(client: ApiClient, server: RawServer) -> tuple[list[Answer], RawServer]:
        return await client.burst(requests, timeout_s=20), server

    answers, server = run(of_burst, work)
    assert [answer.failure for answer in answers] == [None] * 6
    asked = [received for received in server.received if received.method == "POST"]
    # Six connections, each opened by a request before any was released, and no seventh.
    assert (server.connections, server.most_open) == (6, 6)
    assert sorted(received.connection for received in asked) == [1, 2, 3, 4, 5, 6]
    assert [received.method for received in server.received[:6]] == ["GET"] * 6
    # All were on their way before the first said anything.
    assert max(answer.sent_s for answer in answers) < min(answer.first_s or 0 for answer in answers)
    by_salt = {received.document()["cache_salt"]: received.at_s for received in asked}
    assert all(answer.sent_s <= by_salt[f"s{place}"] for place, answer in enumerate(answers))


def test_a_burst_of_which_one_breaks() -> None:
    def reply(request: Received) -> list[Piece]:
        if request.method == "GET":
            return [document({})]
        return [Reset()] if b'"s1"' in request.body else chunked(PLAIN)

    async def work(client: ApiClient, _: RawServer) -> list[Answer]:
        return await client.burst([ASKED.model_copy(update={"cache_salt": f"s{n}"}) for n in range(3)], timeout_s=20)

    assert [kind_of(answer) for answer in run(reply, work)] == [None, "cut", None]


def test_a_burst_through_a_server_that_keeps_no_connection() -> None:
    def reply(request: Received) -> list[Piece]:
        return [whole(b"", more="Connection: close\r\n")] if request.method == "GET" else chunked(PLAIN)

    async def work(client: ApiClient, _: RawServer) -> list[Answer]:
        return await client.burst([ASKED] * 3, timeout_s=20)

    assert [kind_of(answer) for answer in run(reply, work)] == [None] * 3


def test_a_transport_in_place_of_the_network() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions" or request.method == "GET"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(PLAIN))

    async def work() -> list[Answer]:
        transport = httpx.MockTransport(handle)
        async with ApiClient("http://inside/v1/", zero=0.0, transport=transport) as client:
            return [await client.chat(ASKED, timeout_s=5), *await client.burst([ASKED, ASKED], timeout_s=5)]

    assert [(answer.failure, answer.n) for answer in asyncio.run(work())] == [(None, 6)] * 3


def test_models_and_version() -> None:
    def reply(request: Received) -> list[Piece]:
        return [document({"version": "0.32.0"} if request.path == "/version" else REAL["models"]["body"])]

    async def work(client: ApiClient, _: RawServer) -> tuple[tuple[ServedModel, ...], str | None]:
        return await client.models(), await client.version()

    assert run(reply, work) == ((ServedModel(id="tiny", max_model_len=4096),), "0.32.0")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"data": []}, []),
        ({"data": [{"id": "a"}, {"id": 5}, 7, {}]}, [("a", None)]),
        ({"data": [{"id": "a", "max_model_len": "long"}]}, [("a", None)]),
    ],
)
def test_models_of_other_servers(body: Any, found: list[tuple[str, int | None]]) -> None:
    async def work(client: ApiClient, _: RawServer) -> tuple[ServedModel, ...]:
        return await client.models()

    assert [(m.id, m.max_model_len) for m in run(lambda _: [document(body)], work)] == found


@pytest.mark.parametrize("pieces", [[document({"data": 5})], [document({}, status="401 No")], [Reset()], [whole(b"x")]])
def test_models_that_are_not_told(pieces: list[Piece]) -> None:
    async def work(client: ApiClient, _: RawServer) -> str | None:
        with pytest.raises(NoVerdictError, match="does not say which models"):
            await client.models()
        return await client.version()

    assert run(lambda _: pieces, work) is None


@pytest.mark.parametrize("key", [KEY, "openly", "a/plain;word-of-mine"])
def test_the_key_is_in_no_log_exception_or_message(key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = {"error": {"message": f"wrong key {key}", "code": 401}}

    async def work(client: ApiClient, _: RawServer) -> list[str]:
        answer = await client.chat(ASKED, timeout_s=20)
        found = [answer.model_dump_json(), repr(client), repr(client.__dict__)]
        try:
            await client.models()
        except NoVerdictError as error:
            found.append("".join(traceback.format_exception(error)))
        return found

    shown = run(lambda _: [document(echo, status="401 Unauthorized")], work, api_key=key)
    assert "wrong key" in shown[0]
    assert all(key not in text for text in [*shown, caplog.text])


def test_a_secret_of_the_server_is_hidden() -> None:
    body = {"error": {"message": "upstream said: Authorization: Bearer hf_abcdefghijklmnopqrstuvwxyz0123456789"}}
    answer = answer_to(ASKED, document(body, status="500 No"))
    assert answer.failure is not None
    assert "abcdefghijklmnop" not in answer.failure.message
    assert "upstream said" in answer.failure.message


def test_a_secret_that_is_said_again_without_its_name_is_hidden_too() -> None:
    text = "password=hunter2-hunter2 was refused (hunter2-hunter2)"
    answer = answer_to(ASKED, document({"error": {"message": text}}, status="500 No"))
    assert answer.failure is not None
    assert "hunter2" not in answer.failure.message


@pytest.mark.parametrize("key", ["two words", "line\n", "schl\u00fcssel"])
def test_a_key_that_no_header_carries_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiClient("http://127.0.0.1:1", api_key=key, zero=0.0)
    assert key not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://a", "http://", "http://user:pw@host:1", "http://[::1", "", "http://a:99999999"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiClient(url, zero=0.0)
    assert "pw" not in caught.value.message


def test_half_a_surrogate_pair_can_be_asked() -> None:
    request = ASKED.model_copy(update={"messages": ({"role": "user", "content": "\ud83d"},)})

    async def work(client: ApiClient, server: RawServer) -> Any:
        assert (await client.chat(request, timeout_s=20)).failure is None
        return server.received[0].document()["messages"][0]["content"]

    assert run(lambda _: chunked([ROLE, delta({"content": "a"}, finish="stop"), usage(1), DONE]), work) == "\ud83d"
