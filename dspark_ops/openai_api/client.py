"""The client of one OpenAI-compatible server: what it does with a request becomes an answer, never an exception.

HTTP/1.1, no proxy, no redirect, a connection for each request. The API key is sent as a header and is nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.openai_api.fields import error_text, parsed
from dspark_ops.openai_api.model import Answer, ChatRequest, EngineCounters, Record
from dspark_ops.openai_api.rescoring import (
    answer_tokens_body,
    logprobs_of_answer,
    prompt_tokens_body,
    scoring_body,
    tokens_of,
)
from dspark_ops.openai_api.scrape import read_counters
from dspark_ops.openai_api.shown import Shown
from dspark_ops.openai_api.stream import MAX_BODY_BYTES, Assembly, BodyTooLongError, limited, read_events
from dspark_ops.openai_api.wire import (
    authorization,
    base_of,
    begin_of_body,
    kind_of,
    raw_pieces,
    said_by,
    tls_context,
    whole_body,
)

_CONNECT_S = 10.0
# For what costs the server no forward pass.
_QUICK_S = 10.0
_ERROR_BODY_BYTES = 64 << 10
_HEADERS_BEGIN = "send_request_headers.started"


class ServedModel(Record):
    """One entry of `/v1/models`. max_model_len: vLLM's own field, in tokens."""

    id: str
    max_model_len: int | None = None


class _Sent:
    """When a request's first bytes were about to be written; until then, when it was handed over."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.stamp()

    def stamp(self) -> None:
        self.at_s = self._now_s()
        self.wall = datetime.now(UTC)

    async def trace(self, name: str, _: dict[str, Any]) -> None:
        """httpcore's `trace` extension; the event names begin with the protocol, as `http11.`."""
        if name.endswith(_HEADERS_BEGIN):
            self.stamp()


class ApiClient:
    """Asks one server. zero: the run's own zero, a value of `clock`; all times of answers are seconds since then.

    base_url: with or without `/v1`. transport: in place of the network. ca: PEM file to trust in place of the system's.
    Raises ConfigError for an address or a key that cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        zero: float,
        transport: httpx.AsyncBaseTransport | None = None,
        ca: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base = base_of(base_url)
        # httpx shows no Authorization where it shows its headers; a dict would.
        self._headers = httpx.Headers(
            {"Accept-Encoding": "identity", "User-Agent": "dspark-ops"} | authorization(api_key)
        )
        self._show = Shown(api_key)
        self._zero = zero
        self._clock = clock
        self._transport = transport
        self._tls = tls_context(self._base, ca)
        self._client = self._new_client(keep=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def _new_client(self, *, keep: bool) -> httpx.AsyncClient:
        kept = 1 if keep else 0
        return httpx.AsyncClient(
            base_url=self._base,
            headers=self._headers,
            transport=self._transport,
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=60.0),
            # The whole request has one limit, below; only connecting has its own.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
        )

    def _now_s(self) -> float:
        return self._clock() - self._zero

    async def chat(self, request: ChatRequest, *, timeout_s: float) -> Answer:
        """One chat completion, streamed or not. timeout_s: from now to the end of the answer."""
        return await self._ask(self._client, self._chat_request(self._client, request), request.stream, timeout_s)

    async def burst(self, requests: Sequence[ChatRequest], *, timeout_s: float) -> list[Answer]:
        """All of them at once, in the given order: each has its connection before the first is written.

        Whether they really began together is seen from the answers' sent_s. timeout_s: of each, from the release.
        """
        async with AsyncExitStack() as stack:
            clients = [await self._connected(stack) for _ in requests]
            ready = [
                (client, self._chat_request(client, request), request.stream)
                for client, request in zip(clients, requests, strict=True)
            ]
            await asyncio.gather(*(self._open(client) for client in clients))
            release = asyncio.Event()

            async def ask(client: httpx.AsyncClient, http: httpx.Request, stream: bool) -> Answer:
                await release.wait()
                return await self._ask(client, http, stream, timeout_s)

            asking = asyncio.gather(*(ask(*one) for one in ready))
            await asyncio.sleep(0)
            release.set()
            return list(await asking)

    async def _connected(self, stack: AsyncExitStack) -> httpx.AsyncClient:
        """A client of its own, so that it has a connection of its own; a transport that was given is shared."""
        if self._transport is not None:
            return self._client
        return await stack.enter_async_context(self._new_client(keep=True))

    async def _open(self, client: httpx.AsyncClient) -> None:
        """Have the connection open. Where this fails, the request that follows says why."""
        await self._fetch(client.build_request("GET", "/health"), _QUICK_S, client=client)

    async def models(self) -> tuple[ServedModel, ...]:
        """What the server says that it serves. Raises NoVerdictError where it does not say."""
        status, body = await self._fetch(self._client.build_request("GET", "/v1/models"), _QUICK_S)
        document = parsed(body) if status == 200 else None
        listed = None if document is None else document.get("data")
        if not isinstance(listed, list):
            raise NoVerdictError(f"{self._base} does not say which models it serves: {self._why(status, body)}")
        return tuple(model for entry in listed if (model := _served(entry)) is not None)

    async def version(self) -> str | None:
        """vLLM's own version; None where the server does not say."""
        status, body = await self._fetch(self._client.build_request("GET", "/version"), _QUICK_S)
        document = parsed(body) if status == 200 else None
        found = None if document is None else document.get("version")
        return self._show(found) if isinstance(found, str) else None

    async def scrape(self) -> EngineCounters:
        """The engine's counters now; all None where they could not be read. at_s: when the text had come."""
        status, body = await self._fetch(self._client.build_request("GET", "/metrics"), _QUICK_S)
        at_s = self._now_s()
        return read_counters(body.decode("utf-8", "replace") if status == 200 else None, at_s)

    async def tokenize(self, request: ChatRequest) -> int | None:
        """How many tokens the request's prompt has after the chat template; None where the server cannot say."""
        tokens = await self._tokens(prompt_tokens_body(request), _QUICK_S)
        return None if tokens is None else len(tokens)

    async def prompt_logprobs(
        self, request: ChatRequest, answer_text: str, *, timeout_s: float
    ) -> tuple[float, ...] | None:
        """The log-probability of each token of a text as the answer to the request, by a plain forward pass.

        Nothing is drafted and no cached prefix is read. None where the server cannot (see `rescoring`). Unit: nats.
        timeout_s: for all of it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                prompt = await self._tokens(prompt_tokens_body(request), timeout_s)
                if not prompt:
                    return None
                answer = await self._tokens(answer_tokens_body(request, answer_text), timeout_s)
                if not answer:
                    return None
                body = scoring_body(request, prompt + answer)
                status, found = await self._fetch(self._post(self._client, "/v1/completions", body), timeout_s)
        except TimeoutError:
            return None
        document = parsed(found) if status == 200 else None
        return None if document is None else logprobs_of_answer(document, prompt, answer)

    async def _tokens(self, body: dict[str, Any], timeout_s: float) -> list[int] | None:
        status, found = await self._fetch(self._post(self._client, "/tokenize", body), timeout_s)
        document = parsed(found) if status == 200 else None
        return None if document is None else tokens_of(document)

    def _chat_request(self, client: httpx.AsyncClient, request: ChatRequest) -> httpx.Request:
        return self._post(client, "/v1/chat/completions", request.body(), stream=request.stream)

    def _post(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], *, stream: bool = False
    ) -> httpx.Request:
        # ASCII, so that half a surrogate pair in a prompt can be sent as well.
        content = json.dumps(body, separators=(",", ":")).encode("ascii")
        accept = "text/event-stream" if stream else "application/json"
        return client.build_request(
            "POST", path, content=content, headers={"Content-Type": "application/json", "Accept": accept}
        )

    async def _fetch(
        self, http: httpx.Request, timeout_s: float, *, client: httpx.AsyncClient | None = None
    ) -> tuple[int | None, bytes]:
        """Status and body; without a status, the body says why there is none."""
        status: int | None = None
        try:
            async with asyncio.timeout(timeout_s):
                response = await (client or self._client).send(http, stream=True)
                try:
                    status, body = response.status_code, await whole_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            return None, f"no whole answer within {timeout_s:g} s".encode()
        except BodyTooLongError:
            return None, _too_long().encode()
        except (httpx.HTTPError, OSError) as error:
            return None, said_by(error).encode("utf-8", "replace")
        return status, body

    async def _ask(self, client: httpx.AsyncClient, http: httpx.Request, stream: bool, timeout_s: float) -> Answer:
        assembly = Assembly(self._show)
        sent = _Sent(self._now_s)
        http.extensions = http.extensions | {"trace": sent.trace}
        status: int | None = None
        end_s: float | None = None
        try:
            async with asyncio.timeout(timeout_s):
                response = await client.send(http, stream=True)
                try:
                    status = response.status_code
                    await self._receive(response, assembly, stream)
                finally:
                    end_s = self._now_s()
                    await response.aclose()
        except TimeoutError:
            assembly.fail("timeout", f"no whole answer within {timeout_s:g} s", status)
        except BodyTooLongError:
            assembly.fail("malformed", _too_long(), status)
        except (httpx.HTTPError, OSError) as error:
            assembly.fail(kind_of(error), said_by(error), status)
        if end_s is None:
            end_s = self._now_s()
        return assembly.answer(sent_s=sent.at_s, end_s=end_s, wall=sent.wall, status=status)

    async def _receive(self, response: httpx.Response, assembly: Assembly, stream: bool) -> None:
        status = response.status_code
        if status != 200:
            assembly.fail("http", self._why(status, await begin_of_body(response, _ERROR_BODY_BYTES)), status)
            return
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            assembly.fail("malformed", f"the body came as {coding}, which was not asked for", status)
            return
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if stream and kind == "text/event-stream":
            async with aclosing(raw_pieces(response)) as raw, aclosing(limited(raw)) as pieces:
                await read_events(pieces, assembly, self._now_s)
            return
        body = await whole_body(response)
        document = parsed(body)
        if stream and not (document and document.get("error")):
            assembly.fail("malformed", f"a stream was asked for, {kind or 'no content type'} came", status)
            return
        assembly.take_document(body)

    def _why(self, status: int | None, body: bytes) -> str:
        text = body.decode("utf-8", "replace").strip()
        said = self._show(error_text(parsed(body) or text) if text else "")
        if status is None:
            return said
        return f"status {status}: {said}" if said else f"status {status}"


def _served(entry: Any) -> ServedModel | None:
    if not isinstance(entry, dict):
        return None
    length = entry.get("max_model_len")
    try:
        return ServedModel(id=entry["id"], max_model_len=length if type(length) is int and length > 0 else None)
    except (KeyError, ValidationError):
        return None


def _too_long() -> str:
    return f"more than {MAX_BODY_BYTES >> 20} MiB came"
