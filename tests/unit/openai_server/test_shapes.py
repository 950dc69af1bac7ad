"""Every document of the server has the keys of the real one's, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.openai_server.answers import Call, Solution
from tests.openai_server.app import Server, ServerSetup, Speculation, make_app
from tests.unit.openai_server.asking import body, in_virtual_time, streamed, whole

_FIXTURES = Path(__file__).parents[2] / "fixtures"
_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
_REAL = ServerSetup(spec_per_request=True, context_length=4096)


def shape(value: Any) -> Any:
    """A document's keys and the types of its values; None is a type, and lists have the shapes of their entries."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def real_events(path: str) -> list[Any]:
    lines = (_FIXTURES / path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def thinking(_: dict[str, Any]) -> Solution:
    return Solution("It is forty-two!", reasoning="First, weigh the facts.")


def distinct(documents: list[Any]) -> set[str]:
    return {json.dumps(shape(d), sort_keys=True) for d in documents}


def test_a_stream_with_running_usage_has_the_real_chunks() -> None:
    """Role chunk, reasoning, content, end, usage: the same five shapes, none missing and none new."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> list[Any]:
        return (await streamed(client, body("Is it?"))).documents

    # No draft is ever right: the end token comes alone, as in the recording.
    slow = _REAL.model_copy(update={"speculation": Speculation(acceptance=(0.0,) * 5)})
    ours = in_virtual_time(make_app(slow, solver=thinking), scenario)
    assert distinct(ours) == distinct(real_events("vllm-api/stream-running-usage.sse"))


def test_a_stream_without_running_usage_has_the_real_chunks() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> list[Any]:
        asked = body(stream_options={"include_usage": True}, max_tokens=60)
        return (await streamed(client, asked)).documents

    assert distinct(in_virtual_time(_REAL, scenario)) == distinct(real_events("vllm-metrics/stream.sse"))


def test_a_whole_answer_has_the_real_keys() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> Any:
        return await whole(client, body("Is it?"))

    real = json.loads((_FIXTURES / "vllm-api/answers.json").read_text(encoding="utf-8"))["chat-thinking"]["body"]
    assert shape(in_virtual_time(make_app(_REAL, solver=thinking), scenario)) == shape(real)


def test_a_whole_tool_call_has_the_real_keys() -> None:
    def calls(_: dict[str, Any]) -> Solution:
        return Solution(tool_calls=(Call("get_weather", '{"city": "Paris", "days": 3}'),))

    async def scenario(client: httpx.AsyncClient, _: Server) -> Any:
        return await whole(client, body("Weather?", tools=_TOOLS))

    real = json.loads((_FIXTURES / "vllm-api/tool-call-choice.json").read_text(encoding="utf-8"))
    ours = in_virtual_time(make_app(_REAL, solver=calls), scenario)
    assert shape(ours["choices"]) == shape(real["choices"])
    assert shape(ours["usage"]) == shape(real["usage"])
    message = real["choices"][0]["message"]["tool_calls"][0]["function"]
    assert ours["choices"][0]["message"]["tool_calls"][0]["function"] == message
    assert ours["choices"][0]["finish_reason"] == real["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("max-tokens-too-large", {"max_tokens": 10_000_000}),
        ("unknown-model", {"model": "nope"}),
        ("malformed", None),
    ],
)
def test_a_refusal_is_the_real_document(name: str, asked: dict[str, Any] | None) -> None:
    """Status and body, word for word."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[int, Any]:
        sent = {"model": "tiny"} if asked is None else body(stream=False) | asked
        response = await client.post("/v1/chat/completions", json=sent)
        return response.status_code, response.json()

    real = json.loads((_FIXTURES / "vllm-api/answers.json").read_text(encoding="utf-8"))[name]
    assert in_virtual_time(_REAL, scenario) == (real["status"], real["body"])


def test_a_prompt_past_the_window_is_refused_in_the_real_words() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[int, Any]:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": " word" * 5000}]}
        response = await client.post("/v1/chat/completions", json=asked)
        return response.status_code, response.json()

    real = json.loads((_FIXTURES / "vllm-api/answers.json").read_text(encoding="utf-8"))["prompt-too-long"]
    status, document = in_virtual_time(_REAL, scenario)
    numbers = re.compile(r"\b50\d\d\b")
    assert (status, numbers.sub("N", str(document))) == (real["status"], numbers.sub("N", str(real["body"])))


def test_the_model_list_has_the_real_keys() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> Any:
        return (await client.get("/v1/models")).json()

    real = json.loads((_FIXTURES / "vllm-api/answers.json").read_text(encoding="utf-8"))["models"]["body"]
    ours = in_virtual_time(_REAL, scenario)
    assert shape(ours) == shape(real)
    assert ours["data"][0]["max_model_len"] == real["data"][0]["max_model_len"] == 4096


def test_a_text_completion_streams_the_real_keys() -> None:
    """As vLLM 0.32.0 streamed one; it says nothing of reasoning."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> list[Any]:
        asked = {"model": "tiny", "prompt": "Go on", "max_tokens": 9, "stream": True}
        text = (await client.post("/v1/completions", json=asked | {"stream_options": {"include_usage": True}})).text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]

    *chunks, last = in_virtual_time(ServerSetup(), scenario)
    choice = {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"}
    assert [set(chunk["choices"][0]) for chunk in chunks] == [choice] * len(chunks)
    assert {frozenset(chunk) for chunk in chunks} == {frozenset(("id", "object", "created", "model", "choices"))}
    assert set(last) == {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 9


def _series(text: str) -> set[str]:
    """Names with labels, the values of numbers and of what differs between builds left out."""
    found = set()
    for line in text.splitlines():
        if line.startswith("vllm:"):
            series = line.rsplit(" ", 1)[0]
            found.add(re.sub(r"(vllm:cache_config_info\{).*", r"\1", series))
    return found


def test_metrics_have_every_series_of_the_real_scrape() -> None:
    """Name by name and label by label; only the NaN counter, which vLLM has on request, comes to it."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> str:
        await streamed(client, body(tools=_TOOLS))
        return (await client.get("/metrics")).text

    real = (_FIXTURES / "vllm-metrics/half-draft.prom").read_text(encoding="utf-8")
    ours = in_virtual_time(_REAL, scenario)
    new = {s for s in _series(ours) - _series(real) if "corrupted_requests" not in s}
    assert (_series(real) - _series(ours), new) == (set(), set())
    heads = {line for line in real.splitlines() if line.startswith(("# HELP vllm:", "# TYPE vllm:"))}
    assert heads <= set(ours.splitlines())


def test_metrics_without_speculation_and_nan_check_lack_their_series() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> str:
        return (await client.get("/metrics")).text

    text = in_virtual_time(ServerSetup(speculation=None, nan_counter=False), scenario)
    assert "spec_decode" not in text
    assert "corrupted" not in text
    assert "vllm:num_requests_running" in text


def test_the_key_guards_only_the_versioned_paths() -> None:
    """As vLLM does it: /tokenize and /metrics stay open."""

    async def scenario(client: httpx.AsyncClient, _: Server) -> list[int]:
        key = {"Authorization": "Bearer k-1"}
        asked = [
            await client.get("/v1/models"),
            await client.get("/v1/models", headers=key),
            await client.get("/metrics"),
            await client.post("/tokenize", json={"prompt": "a b"}),
            await client.get("/health"),
        ]
        return [response.status_code for response in asked]

    assert in_virtual_time(ServerSetup(api_key="k-1"), scenario) == [401, 200, 200, 200, 200]
