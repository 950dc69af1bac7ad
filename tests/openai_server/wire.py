"""The API's documents, key by key as vLLM 0.32 writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.openai_server.request import Request, Script, Token
from tests.openai_server.setup import ServerSetup

FINGERPRINT = "vllm-0.32.0-26d315c7"
VERSION = "0.32.0"


def event(document: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + compact(document) + b"\n\n"


def compact(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def error(message: str, kind: str, code: int, param: str | None = None) -> dict[str, Any]:
    """The error document."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


INTERNAL = error("Internal server error", "InternalServerError", 500)


def usage(setup: ServerSetup, request: Request, tokens: int, *, last: bool, stream: bool = True) -> dict[str, Any]:
    """Token counts after so many completion tokens. last: of the whole answer, with what the cache gave."""
    prompt = len(request.prompt)
    script = request.script
    reasoning = script.reasoning_tokens(tokens) if script is not None else 0
    if setup.reasoning_overcount and reasoning:
        reasoning = tokens + 3
    document: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    if last and setup.prompt_details:
        whole = prompt // setup.block_size * setup.block_size if setup.prefix_caching else 0
        cached = request.reported_cached
        details: dict[str, Any] = {"cached_tokens": cached, "created_cache_tokens": max(0, whole - cached)}
        document["prompt_tokens_details"] = details if stream else details | {"multimodal_tokens": None}
    return document | {"completion_tokens_details": {"reasoning_tokens": reasoning}}


def completion_usage(setup: ServerSetup, request: Request, tokens: int, *, last: bool, stream: bool) -> dict[str, Any]:
    """The same for a text completion, which says less."""
    plain = usage(setup, request, tokens, last=False)
    del plain["completion_tokens_details"]
    cached = {"cached_tokens": request.reported_cached} if last and setup.prompt_details else None
    if stream:
        return plain if cached is None else plain | {"prompt_tokens_details": cached}
    nothing = {"created_cache_tokens": None, "multimodal_tokens": None}
    details = None if cached is None else cached | nothing
    return plain | {"prompt_tokens_details": details, "completion_tokens_details": None}


def spec_stats(request: Request, k: int, *, stream: bool) -> dict[str, Any] | None:
    """The request's own speculation record; None where it had no draft."""
    if not request.drafts:
        return None
    accepted = sum(request.accepted)
    found: dict[str, Any] = {
        "mean_acceptance_length": round(1 + accepted / request.drafts, 6),
        "draft_acceptance_rate": round(accepted / (request.drafts * k), 6),
        "acceptance_histogram": [request.accepted.count(n) for n in range(k + 1)],
        "num_spec_steps": request.drafts,
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": request.drafts * k,
        "num_spec_tokens": k,
    }
    return found if stream else found | {"per_step_accepted": None, "per_step_drafted": None}


_NO_TIMES = dict.fromkeys(
    ("time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second")
)


def finish_reason(request: Request, script: Script, *, called: bool) -> str:
    """The API's reason: `tool_calls` for calls of the model's own choice, and for a named function `stop`."""
    if script.finish is not None:
        return script.finish
    named = isinstance(request.body.get("tool_choice"), dict)
    return "tool_calls" if called and not named and script.engine_finish == "stop" else script.engine_finish


def delta(script: Script, tokens: Sequence[Token], opened: set[int]) -> dict[str, Any]:
    """What some tokens add to the answer, as a stream's delta. opened: calls whose name was sent; it is added to."""
    found: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for token in tokens:
        if token.field in ("content", "reasoning"):
            found[token.field] = found.get(token.field, "") + token.text
        elif token.field == "call":
            opened.add(token.call)
            calls[token.call] = {
                "index": token.call,
                "id": script.call_ids[token.call],
                "type": "function",
                "function": {"name": token.text, "arguments": ""},
            }
        elif token.field == "arguments":
            call = calls.setdefault(token.call, {"index": token.call, "function": {"arguments": ""}})
            call["function"]["arguments"] += token.text
    if calls:
        found["tool_calls"] = list(calls.values())
    return found


def chat_message(request: Request, script: Script) -> dict[str, Any]:
    """The whole answer of a chat that is not streamed."""
    content: str | None = script.content
    calls = script.given_calls()
    forced = request.body.get("tool_choice") == "required" or isinstance(request.body.get("tool_choice"), dict)
    if not content:
        content = None if calls and not forced else ""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if calls:
        message["tool_calls"] = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": raw}} for i, name, raw in calls
        ]
    return message | {"reasoning": script.reasoning or None}


def chat_document(
    setup: ServerSetup, request: Request, script: Script, request_id: str, created: int, extra: dict[str, Any]
) -> dict[str, Any]:
    """The whole document. extra: prompt_logprobs, prompt_token_ids, token_ids where they were asked for."""
    message = chat_message(request, script)
    stats = spec_stats(request, setup.k, stream=False) if setup.spec_per_request else None
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": created,
        "model": setup.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": finish_reason(request, script, called="tool_calls" in message),
                "stop_reason": None,
                "token_ids": extra.get("token_ids"),
                "routed_experts": None,
            }
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(setup, request, request.sent, last=True, stream=False),
        "prompt_logprobs": extra.get("prompt_logprobs"),
        "prompt_token_ids": extra.get("prompt_token_ids"),
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None if stats is None else _NO_TIMES | {"speculative_decoding": stats},
    }
