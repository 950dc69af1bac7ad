"""How an answer is scored as a prompt: a plain forward pass over prompt and answer, without drafts and without caches.

vLLM gives the log-probabilities of a prompt's tokens (`prompt_logprobs`) and reads no cached prefix then. What is
scored is made of two parts, each by `/tokenize`: the request's messages and tools through the server's own chat
template, up to where the answer begins, and the answer's bare text behind it. The way by an assistant message and
`continue_final_message` is not taken: vLLM's renderer of DeepSeek-V4 does not know that option, and templates drop the
reasoning of a past message, so that it would be another context than the answer had.

What to know of the result:
- The answer's text is cut into tokens anew. The engine may have cut it otherwise; then the numbers are of another
  spelling of the same text. No token spans the border, since the prompt ends with a special token in the templates of
  DeepSeek-V4; where a template ends in text, the first token or two may differ.
- The text is what the model wrote: with reasoning, `reasoning + "</think>" + content`. Special tokens in it are
  understood as such.
- The server keeps one row of logits for each token of a step: 1,024 rows at a time with vLLM's runner V2, a whole
  prefill step with V1 (8,192 tokens of 129,280 entries in float32 are 4 GiB).
"""

from __future__ import annotations

from typing import Any

from dspark_ops.openai_api.fields import prompt_logprobs_of
from dspark_ops.openai_api.model import ChatRequest

_OF_THE_TEMPLATE = ("chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs")


def prompt_tokens_body(request: ChatRequest) -> dict[str, Any]:
    """What `/tokenize` is asked for the request's prompt, up to where the answer begins."""
    extra = request.extra
    body: dict[str, Any] = {
        "model": request.model,
        "messages": list(request.messages),
        "add_generation_prompt": extra.get("add_generation_prompt", True),
        "add_special_tokens": extra.get("add_special_tokens", False),
    }
    if request.tools:
        body["tools"] = list(request.tools)
    body |= {name: extra[name] for name in _OF_THE_TEMPLATE if name in extra}
    effort = extra.get("reasoning_effort")
    if effort is not None:
        # `/tokenize` has no such field; a chat hands it to the template so.
        told = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        body["chat_template_kwargs"] = told | (body.get("chat_template_kwargs") or {})
    return body


def answer_tokens_body(request: ChatRequest, text: str) -> dict[str, Any]:
    """What `/tokenize` is asked for the answer's bare text."""
    return {"model": request.model, "prompt": text, "add_special_tokens": False}


def scoring_body(request: ChatRequest, tokens: list[int]) -> dict[str, Any]:
    """What `/v1/completions` is asked: the tokens as they are, and one token more, since it must make one."""
    return {
        "model": request.model,
        "prompt": tokens,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "stream": False,
    }


def tokens_of(document: dict[str, Any]) -> list[int] | None:
    """The token ids of an answer of `/tokenize`."""
    tokens = document.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        return None
    return tokens


def logprobs_of_answer(document: dict[str, Any], prompt: list[int], answer: list[int]) -> tuple[float, ...] | None:
    """The answer's part of what `/v1/completions` gave; None where it is not one number for each token."""
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    given = first.get("prompt_logprobs") if isinstance(first, dict) else None
    found = prompt_logprobs_of(given, prompt + answer)
    return None if found is None else found[-len(answer) :]
