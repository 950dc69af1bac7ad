"""What the lines of a run's file hold: header, warm-ups, samples, blocks, end. Read and written by `records`.

Times are seconds since the run's zero, as in `openai_api.model`; rates are tokens per second.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from dspark_ops.bench.corpus.model import ContentClass
from dspark_ops.bench.plan import BenchPlan, BlockClass, CacheState, Load
from dspark_ops.bench.predictable import PredictableFlag, TextSignals
from dspark_ops.openai_api.model import EngineCounters, FailureKind, Record

DEFINITIONS: dict[str, str] = {
    "T0": "just before the bytes of the request are written",
    "TTFT": "T0 to the first chunk with content, reasoning or a tool-call delta; a role-only chunk does not count",
    "n": "usage.completion_tokens of the last usage the server sent; without it the sample is invalid, never estimated",
    "n1": "tokens in the first such chunk, by the server's running usage or token ids; unknown: no rate, only a bound",
    "decode tok/s": "(n up to the last chunk with text - n1) / (t_last - t_first), of one stream; n where no running "
    "usage tells the former; none where all came within 0.1 s",
    "decode rate at most": "(n - 1) / (t_last - t_first) where n1 is unknown: the rate is not above it",
    "TPOT": "the inverse of decode tok/s: without the time to the first token",
    "step interval": "time between two chunks of a stream; with speculative decoding one step gives several tokens",
    "tokens/step": "1 + accepted / drafts, from counter deltas of the block",
    "acceptance": "accepted / drafted tokens, from counter deltas of the block; per position: accepted there / drafts",
    "goodput": "sum of n over valid and correct answers / wall time of the block",
    "aggregate": "sum of n over whole answers / (first T0 to last end) of the block",
    "identity": "tokens by the answers' usage against tokens by the engine's counters, over the same streams' seconds: "
    "tok/s = steps/s x tokens/step; more than 5 % apart voids the block",
    "cold": "a cache_salt of its own per request and no prefix hit; a hit makes the sample invalid",
    "warm": "the same salt and prompt asked once before the block; a sample without a hit is invalid",
    "closed": "as many streams as the concurrency says, each sends its next request when the last has ended",
    "open": "requests sent at Poisson arrivals whatever the server does",
    "failed": "no whole answer; it stays in the denominator of every share",
    "invalid": "a whole answer that cannot be measured; its reasons are in the sample",
    "predictable": "content that a drafter guesses: never in the headline; its reasons are in the records",
}


class Server(Record):
    """One arm's server. base_url: without credentials. boot: its process start (UNIX seconds), None: it does not say.

    image_digest, release, flags: of a site's release; None or empty: nobody told.
    """

    arm: str = ""
    base_url: str
    model: str
    max_model_len: int | None = None
    version: str | None = None
    boot: float | None = None
    image_digest: str | None = None
    release: str | None = None
    flags: tuple[str, ...] = ()
    draft_tokens: int | None = None


class PromptLine(Record):
    """A prompt that the run may use, by its hash; the text is made again from the tool's version and the seed."""

    key: str
    content_class: ContentClass
    template: str
    sha256: str
    chars: int
    max_tokens: int


class Header(Record):
    """The conditions. skipped: what the plan asked for and the model under test cannot hold, with the reason."""

    record: Literal["header"] = "header"
    format: Literal[1] = 1
    run_id: str
    began: AwareDatetime
    tool: str
    servers: tuple[Server, ...]
    plan: BenchPlan
    definitions: dict[str, str]
    prompts: tuple[PromptLine, ...]
    chars_per_token: float | None = None
    client: dict[str, str] = Field(default_factory=dict)
    skipped: tuple[str, ...] = ()


class WarmUp(Record):
    """One warm-up. rates: decode tok/s of its generations in order; stable: the last ones changed less than asked."""

    record: Literal["warm-up"] = "warm-up"
    arm: str = ""
    at_s: float
    rates: tuple[float, ...]
    stable: bool
    failures: int = 0
    why: str


class SampleFailure(Record):
    """Why a request has no whole answer; the message is redacted."""

    kind: FailureKind
    status: int | None = None
    message: str


class Sample(Record):
    """One request. outcome: failed, no whole answer; invalid, one that cannot be measured (reasons say why).

    correct: None, it cannot be told. step_s, step_p95_s: median and 95th percentile of the gaps between chunks.
    late_s: an open-loop request's start after its planned arrival.
    """

    record: Literal["sample"] = "sample"
    block: int
    number: int
    arm: str = ""
    prompt: str
    content_class: ContentClass
    concurrency: int
    cache: CacheState
    load: Load
    sent_s: float
    first_s: float | None = None
    last_s: float | None = None
    end_s: float
    wall: AwareDatetime
    outcome: Literal["valid", "invalid", "failed"]
    reasons: tuple[str, ...] = ()
    correct: bool | None = None
    failure: SampleFailure | None = None
    finish_reason: str | None = None
    n: int | None = None
    n1: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    chunks: int = 0
    ttft_s: float | None = None
    decode_rate: float | None = None
    decode_rate_at_most: float | None = None
    step_s: float | None = None
    step_p95_s: float | None = None
    late_s: float | None = None
    tool_calls: int = 0
    text: TextSignals | None = None
    predictable: PredictableFlag | None = None
    text_sha256: str | None = None


class Identity(Record):
    """Tokens by usage against tokens by counters. off: (counters - usage) / usage, after what may rightly differ.

    engine_rate = steps_per_s x tokens_per_step, client_rate from usage: both per second of the streams' decoding. by:
    which counters. chunks_per_step: chunks that came per step; far from 1, the chunks were not steps. None: unknown.
    """

    by: Literal["drafts", "generation"]
    client_tokens: int
    engine_tokens: float
    client_rate: float
    steps_per_s: float
    tokens_per_step: float
    engine_rate: float
    chunks_per_step: float | None = None
    off: float


class Speculation(Record):
    """From the counter deltas of a block. last_position: accepted at the last position / drafts."""

    drafts: float
    draft_tokens: float
    accepted: float
    acceptance: float
    tokens_per_step: float
    per_position: tuple[float, ...] = ()
    depth: float

    @property
    def last_position(self) -> float | None:
        """The rate at the last position; None: the server gives no positions."""
        return self.per_position[-1] if self.per_position else None

    @classmethod
    def of(cls, drafts: float, draft_tokens: float, accepted: float, per_position: tuple[float, ...]) -> Speculation:
        """The rates of these counts; drafts and draft_tokens are not zero."""
        return cls(
            drafts=drafts,
            draft_tokens=draft_tokens,
            accepted=accepted,
            acceptance=accepted / draft_tokens,
            tokens_per_step=1 + accepted / drafts,
            per_position=per_position,
            depth=draft_tokens / drafts,
        )


class Block(Record):
    """One block. state: void, its samples are not used (reasons say why); unchecked, the counters that would have
    caught a foreign request or a wrong count were not to be had.

    wall_s: first T0 to last end. server_ttft_s: the engine's own mean. cpu_share: of one core, this client's.
    """

    record: Literal["block"] = "block"
    index: int
    round: int
    arm: str = ""
    content_class: BlockClass
    concurrency: int
    cache: CacheState
    load: Load
    prompt_tokens: int | None = None
    began: AwareDatetime
    began_s: float
    ended_s: float
    wall_s: float
    requests: int
    before: EngineCounters | None = None
    after: EngineCounters | None = None
    state: Literal["sound", "unchecked", "void"]
    reasons: tuple[str, ...] = ()
    identity: Identity | None = None
    speculation: Speculation | None = None
    predictable: PredictableFlag
    server_ttft_s: float | None = None
    arrival_rate: float | None = None
    cpu_share: float | None = None


class End(Record):
    """The run came to its end. reason: done, or budget when its time was over first."""

    record: Literal["end"] = "end"
    at: AwareDatetime
    reason: Literal["done", "budget"]
    blocks_planned: int
    blocks_run: int
    elapsed_s: float


Line = Header | WarmUp | Sample | Block | End
KINDS: dict[str, type[Line]] = {"header": Header, "warm-up": WarmUp, "sample": Sample, "block": Block, "end": End}
