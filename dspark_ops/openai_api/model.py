"""What is asked of an OpenAI-compatible server and what came back, with the times at which it came.

Times are seconds of one monotonic clock (`time.perf_counter`) since the run's own zero; `wall` fields are UTC.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A frozen record that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(Record):
    """One call as the server gave it. arguments: its raw text, strict JSON or not. index: its place in the answer."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ChatRequest(Record):
    """One chat completion. messages and tools: as the API takes them.

    cache_salt: vLLM's own field; prefixes with different salts share no cache. extra: further body fields, last word.
    stream asks for the usage chunk and, where the server can, for running usage in each chunk.
    """

    model: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int = Field(ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stream: bool = True
    cache_salt: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON document that is sent."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(self.messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stream": self.stream,
        }
        if self.tools:
            body["tools"] = list(self.tools)
        if self.tool_choice is not None:
            body["tool_choice"] = self.tool_choice
        if self.seed is not None:
            body["seed"] = self.seed
        if self.cache_salt is not None:
            body["cache_salt"] = self.cache_salt
        if self.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return body | self.extra

    def given_text(self) -> str:
        """All that the model was given: system text, messages and tool schemas, for comparison with what it says."""
        return "\n".join([*(json.dumps(m, ensure_ascii=False) for m in self.messages), *map(json.dumps, self.tools)])


class Usage(Record):
    """The server's own token counts. reasoning and cached: None where it does not say."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


class Chunk(Record):
    """One streamed chunk that carried content, reasoning or a tool-call delta.

    at_s: when its bytes were read. tokens: completion tokens so far as the server's running usage says, None without
    it. chars: how much text it carried.
    """

    at_s: float
    tokens: int | None
    chars: int


FailureKind = Literal["connect", "timeout", "http", "cut", "in-band", "malformed"]


class Failure(Record):
    """Why there is no whole answer. kind: in-band is an error event in a stream of status 200; cut: the connection
    ended before the stream did; malformed: what came is not the API's shape. message: redacted, at most 400 characters.
    """

    kind: FailureKind
    status: int | None = None
    message: str


class Answer(Record):
    """One request's whole outcome. sent_s: just before its bytes were written (T0); first_s: first chunk with content,
    reasoning or a tool-call delta (None: none came, or not streamed); last_s: the last such chunk; end_s: the end.

    n: usage.completion_tokens; None without usage, then the sample is invalid and nothing is estimated. n1: tokens in
    the first such chunk; None where the server does not say. failure: None for a whole answer.
    """

    sent_s: float
    first_s: float | None = None
    last_s: float | None = None
    end_s: float
    wall: AwareDatetime
    status: int | None = None
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    n1: int | None = None
    chunks: tuple[Chunk, ...] = ()
    prompt_logprobs: tuple[float, ...] | None = None
    request_id: str | None = None
    failure: Failure | None = None

    @property
    def n(self) -> int | None:
        """Completion tokens by the server's own count."""
        return None if self.usage is None else self.usage.completion_tokens

    @property
    def ttft_s(self) -> float | None:
        """T0 to the first chunk that carries anything. Unit: seconds."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def decode_rate(self) -> float | None:
        """Tokens after the first chunk, per second from the first chunk to the last; None where a count or time lacks.

        The end-of-text token comes with the finish reason and carries no text, so it is counted only where nothing
        tells how many tokens the last chunk with text had reached.
        """
        if self.n is None or self.n1 is None or self.first_s is None or self.last_s is None:
            return None
        reached = self.chunks[-1].tokens if self.chunks else None
        count = (self.n if reached is None else reached) - self.n1
        seconds = self.last_s - self.first_s
        return count / seconds if seconds > 0 and count > 0 else None


class EngineCounters(Record):
    """One scrape of vLLM's `/metrics`, summed over engines. at_s: as the answers' times. None: no such series.

    finished: requests by finished_reason since the start. accepted_per_position: by draft position, from zero.
    """

    at_s: float
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prompt_tokens: float | None = None
    prompt_tokens_cached: float | None = None
    generation_tokens: float | None = None
    finished: dict[str, float] | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    drafts: float | None = None
    draft_tokens: float | None = None
    accepted_tokens: float | None = None
    accepted_per_position: tuple[float, ...] | None = None
    corrupted: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    process_start: float | None = None
