"""An answer is scored behind exactly the prompt that it answered, and only where the server gave a number per token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dspark_ops.openai_api.client import ApiClient
from dspark_ops.openai_api.model import ChatRequest
from tests.unit.openai_api.raw_server import Piece, RawServer, Received, Wait, document, serving

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ASKED = ChatRequest(
    model="tiny",
    messages=({"role": "user", "content": "hello"},),
    tools=(TOOL,),
    max_tokens=16,
    extra={"chat_template_kwargs": {"thinking": False}, "reasoning_effort": "none", "top_k": 1},
)
PROMPT, ANSWER = [11, 12, 13], [21, 22]


def entry(token: int, value: float, **others: float) -> dict[str, Any]:
    found = {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"}}
    return {name.lstrip("t"): {"logprob": other} for name, other in others.items()} | found


GIVEN = [None, entry(12, -1.0), entry(13, -2.0), entry(21, -0.25, t7=-0.1), entry(22, -9999.0)]


class Server:
    """Answers `/tokenize` of messages and of text, and `/v1/completions`."""

    def __init__(self, **instead: Any) -> None:
        self.instead = instead
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: Received) -> list[Piece]:
        body = request.document()
        self.asked.append((request.path, body))
        if request.path == "/tokenize":
            name = "prompt" if "messages" in body else "answer"
            tokens = PROMPT if name == "prompt" else ANSWER
            given = self.instead.get(name, {"count": len(tokens), "max_model_len": 99, "tokens": tokens})
        else:
            given = self.instead.get(
                "scored", {"choices": [{"index": 0, "text": "y", "prompt_logprobs": GIVEN}], "usage": {}}
            )
        return given if isinstance(given, list) else [document(given)]


def run(server: Server, work: Callable[[ApiClient], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        raw: RawServer
        async with serving(server) as raw, ApiClient(raw.url, zero=0.0) as client:
            return await work(client)

    return asyncio.run(inside())


def scored(server: Server, *, timeout_s: float = 20.0) -> Any:
    return run(server, lambda client: client.prompt_logprobs(ASKED, "an answer", timeout_s=timeout_s))


def test_the_answers_own_tokens_behind_the_prompt() -> None:
    server = Server()
    assert scored(server) == (-0.25, -9999.0)
    (_, prompt), (_, answer), (path, scoring) = server.asked
    # The same prompt as the chat had: its messages, its tools and what its template was told.
    assert prompt["messages"] == list(ASKED.messages)
    assert prompt["tools"] == [TOOL]
    assert prompt["add_generation_prompt"] is True
    assert prompt["chat_template_kwargs"] == {"thinking": False, "reasoning_effort": "none", "enable_thinking": False}
    assert "top_k" not in prompt
    assert answer == {"model": "tiny", "prompt": "an answer", "add_special_tokens": False}
    assert path == "/v1/completions"
    assert scoring["prompt"] == PROMPT + ANSWER
    assert scoring["prompt_logprobs"] == 0


@pytest.mark.parametrize("name", ["prompt", "answer", "scored"])
def test_a_server_that_cannot(name: str) -> None:
    assert scored(Server(**{name: [document({"detail": "Not Found"}, status="404 Not Found")]})) is None


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        GIVEN[:-1],
        [*GIVEN, entry(9, -1.0)],
        [*GIVEN[:-1], entry(99, -1.0)],
        [*GIVEN[:-1], None],
        [*GIVEN[:-1], entry(22, float("nan"))],
        [*GIVEN[:-1], entry(22, 3.0)],
        [*GIVEN[:-1], {"22": {"logprob": None}}],
        [*GIVEN[:-1], {"22": -1.0}],
    ],
)
def test_no_number_for_each_token_is_none(given: Any) -> None:
    assert scored(Server(scored={"choices": [{"prompt_logprobs": given}]})) is None


@pytest.mark.parametrize("tokens", [None, ["a"], [True], [-1], 5, []])
def test_tokens_that_are_none(tokens: Any) -> None:
    assert scored(Server(answer={"tokens": tokens})) is None
    assert scored(Server(prompt={"tokens": tokens})) is None


def test_the_whole_of_it_has_one_limit() -> None:
    began = time.perf_counter()
    slow: list[Piece] = [Wait(30)]
    assert scored(Server(scored=slow), timeout_s=0.4) is None
    assert time.perf_counter() - began < 20


def test_how_many_tokens_a_prompt_has() -> None:
    server = Server()
    assert run(server, lambda client: client.tokenize(ASKED)) == 3
    assert run(Server(prompt={"error": {}}), lambda client: client.tokenize(ASKED)) is None
