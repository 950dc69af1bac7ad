"""The few completions that the doctor asks for: the canary again and streamed, cut short, and with a tool."""

from __future__ import annotations

import json
from typing import Any

from dspark_ops.config.models import Profile, Site
from dspark_ops.facts.model import Fact
from dspark_ops.facts.service import api_url
from dspark_ops.transport.base import Http, NodeReading, ProbeResult

_TIMEOUT_S = 30.0
#: A call that a model of any size makes: two values that the question gives, nothing to look up.
TOOL = "get_weather"
TOOL_ARGUMENTS: dict[str, str | int] = {"city": "Paris", "days": 3}
_QUESTION = "What will the weather be in Paris for the next 3 days? Use the tool."
_TOOL_MAX_TOKENS = 256
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "The weather of a city for a number of days.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
]


class ToolCall(Fact):
    """One call. arguments: the text that should be a JSON object."""

    name: str | None = None
    arguments: str | None = None


class ReplyFacts(Fact):
    """One completion. error: why there is none; then the rest is None. content, reasoning: None when absent or null."""

    error: str | None = None
    content: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    completion_tokens: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()


class StreamFacts(Fact):
    """A streamed completion. done: it ended with `[DONE]`. empty_tool_lists: deltas with content and `tool_calls: []`.

    errors: messages that came inside the stream, after the status 200.
    """

    error: str | None = None
    content: str | None = None
    finish_reason: str | None = None
    done: bool = False
    events: int = 0
    empty_tool_lists: int = 0
    errors: tuple[str, ...] = ()


class RepliesFacts(Fact):
    """All of them. None: not asked for."""

    canary: ReplyFacts | None = None
    stream: StreamFacts | None = None
    short: ReplyFacts | None = None
    tool: ReplyFacts | None = None


def probes(site: Site, profile: Profile) -> tuple[Http, ...]:
    """Three requests beside the canary, all at once and bounded in time: a stream, a cut and a tool call."""
    url = f"{api_url(site)}/v1/chat/completions"
    canary: dict[str, Any] = {
        "model": site.model.served_name,
        "messages": [{"role": "user", "content": profile.canary.prompt}],
        "max_tokens": profile.canary.max_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"thinking": profile.canary.thinking},
    }
    tool = canary | {
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": _TOOL_MAX_TOKENS,
        "tools": _TOOLS,
        "chat_template_kwargs": {"thinking": False},
    }
    bodies = {"stream": canary | {"stream": True}, "short": canary | {"max_tokens": 1}, "tool": tool}
    return tuple(Http(f"reply.{name}", url, body=body, timeout_s=_TIMEOUT_S) for name, body in bodies.items())


def parse_reply(text: str | None) -> ReplyFacts | None:
    """A chat completion's first choice; None when the text is no completion."""
    try:
        document = json.loads(text or "")
        choice = document["choices"][0]
        message = choice["message"]
        usage = document.get("usage") or {}
        calls = message.get("tool_calls") or ()
        return ReplyFacts(
            content=_text(message.get("content")),
            reasoning=_text(message.get("reasoning")) or _text(message.get("reasoning_content")),
            finish_reason=_text(choice.get("finish_reason")),
            completion_tokens=_whole(usage.get("completion_tokens")),
            tool_calls=tuple(
                ToolCall(name=_text(call["function"].get("name")), arguments=_text(call["function"].get("arguments")))
                for call in calls
            ),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def parse_stream(text: str | None) -> StreamFacts | None:
    """Server-sent events of a streamed chat completion; None when there is not one event of it."""
    pieces: list[str] = []
    errors: list[str] = []
    finish: str | None = None
    done, events, empty = False, 0, 0
    for line in (text or "").splitlines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            done = True
            continue
        event = _object(data)
        if event is None:
            continue
        events += 1
        if event.get("error") is not None:
            errors.append(str(event["error"])[:200])
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if not isinstance(delta, dict):
                continue
            piece = _text(delta.get("content"))
            pieces.append(piece or "")
            empty += bool(piece) and delta.get("tool_calls") == []
            finish = _text(choice.get("finish_reason")) or finish
    if not events:
        return None
    return StreamFacts(
        content="".join(pieces),
        finish_reason=finish,
        done=done,
        events=events,
        empty_tool_lists=empty,
        errors=tuple(errors),
    )


def read_replies(reading: NodeReading) -> RepliesFacts | None:
    """The completions of a reading; None where none was asked for."""
    if not any(name.startswith("reply.") for name in reading.results):
        return None
    streamed = reading.results.get("reply.stream")
    stream = None if streamed is None else parse_stream(streamed.text())
    if streamed is not None and stream is None:
        stream = StreamFacts(error=_why(streamed))
    return RepliesFacts(
        canary=_reply(reading.results.get("service.canary")),
        stream=stream,
        short=_reply(reading.results.get("reply.short")),
        tool=_reply(reading.results.get("reply.tool")),
    )


def _reply(result: ProbeResult | None) -> ReplyFacts | None:
    if result is None:
        return None
    return parse_reply(result.text()) or ReplyFacts(error=_why(result))


def _why(result: ProbeResult) -> str:
    return result.error or f"status {result.rc}: {(result.stdout or '')[:200]}"


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
