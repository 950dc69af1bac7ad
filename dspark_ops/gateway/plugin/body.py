"""The request's body: what a client may say. Everything else could steer LiteLLM instead of the model. Pure."""

from __future__ import annotations

import json
from typing import Any

from .fit import BadRequestError

#: Fields of OpenAI's chat and text completions.
_OPENAI = frozenset(
    {
        "model",
        "messages",
        "prompt",
        "suffix",
        "echo",
        "best_of",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning_effort",
        "verbosity",
        "functions",
        "function_call",
    }
)
#: What vLLM understands beyond; a cloud is not sent these.
ENGINE_ONLY = frozenset(
    {
        "top_k",
        "min_p",
        "repetition_penalty",
        "length_penalty",
        "min_tokens",
        "stop_token_ids",
        "ignore_eos",
        "include_stop_str_in_output",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "bad_words",
        "allowed_token_ids",
        "prompt_logprobs",
        "chat_template_kwargs",
        "include_reasoning",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "cache_salt",
        "use_beam_search",
        "truncate_prompt_tokens",
        "add_special_tokens",
        "return_token_ids",
        "thinking_token_budget",
    }
)
#: Bookkeeping for a provider's console. It would become LiteLLM's own metadata, so it ends here.
_DROPPED = frozenset(
    {"metadata", "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)


def parse(raw: bytes) -> dict[str, Any]:
    """A body as an object with known fields alone.

    Raises:
        BadRequestError: no JSON object, a field that is not known, or one of a wrong kind.
    """
    try:
        body = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body is no JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError(f"the body is a JSON {type(body).__name__}; expected an object")
    body = {name: value for name, value in body.items() if name not in _DROPPED}
    unknown = sorted(body.keys() - _OPENAI - ENGINE_ONLY)
    if unknown:
        raise BadRequestError(
            f"the field {unknown[0][:60]!r} is not known to this gateway; leave it out", unknown[0][:60]
        )
    if not isinstance(body.get("model"), str):
        raise BadRequestError("model is missing or no text", "model")
    if not isinstance(body.get("stream", False), bool | None):
        raise BadRequestError("stream is neither true nor false", "stream")
    if not isinstance(body.get("stream_options"), dict | None):
        raise BadRequestError("stream_options is no object", "stream_options")
    if "messages" in body and "prompt" in body:
        raise BadRequestError("messages and prompt are both there; expected one", "prompt")
    return body


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def fingerprint(body: dict[str, Any]) -> bytes:
    """What two requests of a loop have in common: the prompt, not how it is sampled."""
    kept = [body.get(name) for name in ("messages", "prompt", "suffix", "tools", "functions")]
    return json.dumps(kept, sort_keys=True, ensure_ascii=True).encode()
