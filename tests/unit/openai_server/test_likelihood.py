"""Answers scored as prompts: likely where the model would say it, unlikely where it would not."""

from __future__ import annotations

from statistics import mean
from typing import Any

import httpx
import pytest

from tests.openai_server.app import Fault, Server, ServerSetup
from tests.unit.openai_server.asking import body, in_virtual_time, whole


def rescored(kind: str | None) -> list[float]:
    """Log-probabilities of the answer's tokens, by /tokenize and /v1/completions as a client does it."""
    faults = (Fault.model_validate({"kind": kind, "rate": 1}),) if kind else ()

    async def scenario(client: httpx.AsyncClient, server: Server) -> list[float]:
        asked = body("Say it.", max_tokens=300)
        text = (await whole(client, asked))["choices"][0]["message"]["content"]
        prompt = (await client.post("/tokenize", json={"messages": asked["messages"]})).json()["tokens"]
        plain = {"prompt": text, "add_special_tokens": False}
        tokens = (await client.post("/tokenize", json=plain)).json()["tokens"]
        request = {"model": "tiny", "prompt": prompt + tokens, "max_tokens": 1, "prompt_logprobs": 0}
        document = (await client.post("/v1/completions", json=request)).json()
        entries = document["choices"][0]["prompt_logprobs"]
        assert entries[0] is None
        pairs = zip(tokens, entries[len(prompt) :], strict=True)
        return [entry[str(token)]["logprob"] for token, entry in pairs]

    return in_virtual_time(ServerSetup(faults=faults), scenario)


def worst(values: list[float], window: int) -> float:
    return min(mean(values[at : at + window]) for at in range(max(1, len(values) - window)))


def test_a_healthy_answer_is_likely() -> None:
    values = rescored(None)
    assert len(values) > 200
    assert mean(values) > -0.5
    assert worst(values, 32) > -1.2


def test_salad_is_unlikely_throughout() -> None:
    assert mean(rescored("word-salad")) < -5


@pytest.mark.parametrize(("kind", "window"), [("mid-word", 4), ("apostrophe-opening", 4), ("cjk-6", 4), ("bos", 4)])
def test_a_garbled_spot_is_unlikely_there_alone(kind: str, window: int) -> None:
    values = rescored(kind)
    assert worst(values, window) < -4
    assert mean(values[16:] if kind != "cjk-6" else sorted(values)[8:]) > -0.7


@pytest.mark.parametrize("kind", ["off-by-one", "narration"])
def test_a_fluent_error_is_as_likely_as_the_truth(kind: str) -> None:
    assert mean(rescored(kind)) > -0.6


def test_no_cached_prefix_is_read_for_it() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> list[int]:
        request: dict[str, Any] = {"model": "tiny", "prompt": "word " * 400, "max_tokens": 1}
        seen = []
        for more in ({}, {}, {"prompt_logprobs": 0}):
            used = (await client.post("/v1/completions", json=request | more)).json()["usage"]
            seen.append(used["prompt_tokens_details"]["cached_tokens"])
        return seen

    first, second, third = in_virtual_time(ServerSetup(), scenario)
    assert (first, third) == (0, 0)
    assert second > 300


def test_tokens_go_both_ways() -> None:
    text = "Zwölf „Worte“, 三つ, and\n\n  code_names: x<=3; \U0001f980"

    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[Any, str]:
        made = (await client.post("/tokenize", json={"prompt": text, "return_token_strs": True})).json()
        back = (await client.post("/detokenize", json={"tokens": made["tokens"][1:]})).json()["prompt"]
        return made, back

    made, back = in_virtual_time(ServerSetup(), scenario)
    assert back == text
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"])
    assert made["max_model_len"] == 131_072


def test_a_server_may_lack_it() -> None:
    async def scenario(client: httpx.AsyncClient, _: Server) -> tuple[int, Any]:
        status = (await client.post("/tokenize", json={"prompt": "a"})).status_code
        request = {"model": "tiny", "prompt": "a b c", "max_tokens": 1, "prompt_logprobs": 0}
        return status, (await client.post("/v1/completions", json=request)).json()["choices"][0]["prompt_logprobs"]

    assert in_virtual_time(ServerSetup(tokenize=False, prompt_logprobs=False), scenario) == (404, None)
