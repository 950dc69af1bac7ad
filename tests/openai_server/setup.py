"""What a test asks of the server: its engine, its clockwork, its faults and its lies. All of it is seeded."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TextFault = Literal[
    "char-run",
    "loop-8",
    "loop-30",
    "cjk-30",
    "cjk-6",
    "dsml-close",
    "tool-xml",
    "bos",
    "apostrophe-opening",
    "mid-word",
    "schema-dump",
    "word-salad",
    "narration",
    "empty",
    "off-by-one",
]
CallFault = Literal[
    "truncated-call",
    "malformed-arguments",
    "trailing-bytes",
    "duplicate-keys",
    "extra-property",
    "wrong-value",
    "wrong-name",
    "dsml-in-arguments",
    "duplicate-ids",
    "lost-call",
    "needless-call",
    "unary-differs",
]
EngineFault = Literal["nan", "forgets", "http-500", "http-503", "cut", "hang", "in-band", "bad-json"]
FaultKind = TextFault | CallFault | EngineFault
When = Literal["always", "cold", "concurrent", "cold-concurrent"]

TEXT_FAULTS: tuple[TextFault, ...] = TextFault.__args__  # type: ignore[attr-defined]
CALL_FAULTS: tuple[CallFault, ...] = CallFault.__args__  # type: ignore[attr-defined]
ENGINE_FAULTS: tuple[EngineFault, ...] = EngineFault.__args__  # type: ignore[attr-defined]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Model):
    """One kind of harm.

    rate: of the requests that meet `when` and that the fault can touch (a call fault needs a call in the answer; only
    `needless-call` needs tools and an answer without one). when: `cold` is a prompt of which no block came from the
    cache; `concurrent` is one whose prefill shared some time with another's. correlation: 0 draws for each request by
    itself, 1 once for a whole burst (requests less than `ServerSetup.burst_gap_s` apart), between: a mixture that
    keeps the rate. keep_answer: a text fault is put after the right answer instead of in its place.

    `forgets` is drawn at a session's cold turn, which is answered rightly; later turns that find its blocks in the
    cache are answered wrongly. `nan` only counts in `corrupted_requests`: the text stays right. `unary-differs`
    touches answers that are not streamed.
    """

    kind: FaultKind
    rate: float = Field(ge=0, le=1)
    when: When = "always"
    correlation: float = Field(default=0.0, ge=0, le=1)
    keep_answer: bool = False


class Speculation(_Model):
    """Draft tokens for each step, and the share of drafts whose token at each position was accepted (never rising)."""

    acceptance: tuple[float, ...] = (0.826, 0.725, 0.572, 0.471, 0.399)

    @model_validator(mode="after")
    def _falls(self) -> Speculation:
        if any(b > a for a, b in zip(self.acceptance, self.acceptance[1:], strict=False)):
            raise ValueError("acceptance by position cannot rise: a later token stands on the earlier ones")
        return self

    @property
    def k(self) -> int:
        return len(self.acceptance)


class KnownRate(_Model):
    """Answers on a fixed timetable of their own, whatever else runs: what a client measures is known beforehand.

    ttft_s: from the request's arrival to its first token. step_s: between two steps. per_step: tokens of each step,
    repeated from the start. held: so many tokens are kept back (at least) and come with the first chunk. burst: steps
    whose tokens come together, in one chunk. empty_every: of each so many chunks one has no text; its text comes with
    the next.
    """

    ttft_s: float = Field(default=0.2, ge=0)
    step_s: float = Field(default=0.02, gt=0)
    per_step: tuple[int, ...] = Field(default=(1,), min_length=1)
    held: int = Field(default=0, ge=0)
    burst: int = Field(default=1, ge=1)
    empty_every: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _positive(self) -> KnownRate:
        if min(self.per_step) < 1:
            raise ValueError("a step gives at least one token")
        return self

    def steps(self, tokens: int) -> list[int]:
        """Tokens of each step of an answer of so many tokens; the first step is the prefill's one token."""
        sizes, left, at = [min(1, tokens)], tokens - 1, 0
        while left > 0:
            size = min(left, self.per_step[at % len(self.per_step)])
            sizes.append(size)
            left, at = left - size, at + 1
        return sizes

    def timetable(self, tokens: int) -> list[tuple[float, int]]:
        """(seconds after arrival, tokens) of each delivery to the client, the hold-back and bursts applied."""
        sizes = self.steps(tokens)
        deliveries: list[tuple[float, int]] = []
        held, waiting = 0, 0
        for index, size in enumerate(sizes):
            held, waiting = held + size, waiting + 1
            last = index == len(sizes) - 1
            due = held >= max(self.held, 1) if not deliveries else waiting >= self.burst
            if due or last:
                deliveries.append((self.ttft_s + index * self.step_s, held))
                held, waiting = 0, 0
        return deliveries

    def first_tokens(self, tokens: int) -> int:
        """Tokens in the first chunk that is sent, for an answer of so many tokens."""
        return self.timetable(tokens)[0][1]

    def true_rate(self, tokens: int) -> float:
        """Tokens per second between the first delivery and the last, the first ones not counted; at time_scale 1."""
        table = self.timetable(tokens)
        seconds = table[-1][0] - table[0][0]
        if seconds <= 0:
            raise ValueError("an answer of one delivery has no rate")
        return (tokens - table[0][1]) / seconds


class Lies(_Model):
    """Ways in which requests are not as cold or as concurrent as their sender believes; the counters stay truthful
    unless hide_hits is set.

    ignore_salt: the cache does not look at cache_salt. always_warm: from the second request on every prompt counts as
    cached but for its last block. cold_of_burst: only the first so many of a burst are cold. serialise: one request
    at a time is let in, the others wait. hide_hits: warm requests are counted and reported as cold.
    """

    ignore_salt: bool = False
    always_warm: bool = False
    cold_of_burst: int | None = Field(default=None, ge=0)
    serialise: bool = False
    hide_hits: bool = False


class ServerSetup(_Model):
    """One server. Times are seconds, multiplied by time_scale; rates are tokens per second.

    known_rate: answers follow its timetable and the scheduler is not used. prose_tokens: length of the plain prose
    that answers an unknown prompt (its max_tokens if less). usage: `continuous` as vLLM on request, `end` only in the
    last chunk, `missing` never. metrics: `full` as a real scrape, `lean` only what matters and no buckets (a tenth of
    the text), `none` is 404. stream_interval: vLLM's option, tokens between two chunks. nan_counter: the engine runs
    with VLLM_COMPUTE_NANS_IN_LOGITS, else `corrupted_requests` does not exist. restart_after: so many answers and the
    engine starts anew: counters at zero, cache empty, another process start. context_length: max_model_len.
    """

    model: str = "tiny"
    seed: int = 0
    api_key: str | None = None
    context_length: int = 131_072
    max_num_seqs: int = Field(default=6, ge=1)
    max_num_batched_tokens: int = Field(default=8192, ge=1)
    prefill_rate: float = Field(default=1700.0, gt=0)
    decode_step_s: float = Field(default=0.0725, ge=0)
    time_scale: float = Field(default=1.0, gt=0)
    kv_blocks: int = Field(default=120_000, ge=1)
    block_size: int = Field(default=16, ge=1)
    prefix_caching: bool = True
    speculation: Speculation | None = Speculation()
    known_rate: KnownRate | None = None
    stream_interval: int = Field(default=1, ge=1)
    prose_tokens: int = Field(default=600, ge=1)
    usage: Literal["continuous", "end", "missing"] = "continuous"
    prompt_details: bool = True
    reasoning_overcount: bool = False
    token_ids: bool = True
    prompt_logprobs: bool = True
    tokenize: bool = True
    spec_per_request: bool = False
    nan_counter: bool = True
    metrics: Literal["full", "lean", "none"] = "full"
    faults: tuple[Fault, ...] = ()
    lies: Lies = Lies()
    burst_gap_s: float = Field(default=0.25, ge=0)
    restart_after: int | None = Field(default=None, ge=1)

    @property
    def k(self) -> int:
        """Draft tokens for each step; 0 without speculation. At a known rate, as many as its largest step needs."""
        if self.known_rate is not None:
            return max(self.known_rate.per_step) - 1
        return 0 if self.speculation is None else self.speculation.k
