"""Results of `vllm bench serve` (`--save-result`, with `--save-detailed` or without): read, and put beside ours with
that tool's own definitions. Keys as written by vLLM 0.21 to 0.33; a key that is missing is unknown, never 0.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.openai_api.model import Record

TOOL = "vllm bench serve"
DEFINITIONS: dict[str, str] = {
    "TTFT": "start of the request to its first streamed event with choices; of the chat API that is the one with the "
    "role alone, which comes with the first token or before it: not above ours",
    "TPOT": "(latency - TTFT) / (n - 1): the first event counts as one token, whatever it holds, and the time to the "
    "last event of the stream counts as decoding",
    "ITL": "time between two events: with speculative decoding a step of several tokens, not a token",
    "output throughput": "all tokens of answers that succeeded / the run's whole time, prefill and queueing in it",
    "n": "usage.completion_tokens; without it the text is tokenised again, or counts as one token",
    "acceptance": "from the server's counters over the whole run, warm-up left out and foreign requests not noticed",
}
CANNOT_TELL: tuple[str, ...] = (
    "whether its answers were correct, so it has no goodput in our sense",
    "an interval: its percentiles are of one run's requests, and its prompts are not told apart",
    "whether prompts were cold or warm, and whether the engine was alone",
    "which kind of content was asked for, so that it cannot be in or out of a headline",
    "whether usage was missing: a tokeniser's count looks the same",
)
_NEEDED = ("duration", "completed", "output_throughput")
_SAMPLE_KEYS = ("ttfts", "itls", "output_lens")


class Percentiles(Record):
    """One quantity as the tool gives it. Seconds."""

    mean: float | None = None
    median: float | None = None
    p99: float | None = None


class ForeignDetail(Record):
    """What only `--save-detailed` can tell, worked out here. requests: those that succeeded.

    events: streamed, the first among them; tokens_per_event: far above 1, ITL and peak figures are not of tokens.
    mean_rate: mean over requests of (n - 1) / (latency - TTFT), tokens per second of one stream.
    """

    requests: int
    events: int
    tokens: int
    tokens_per_event: float | None = None
    mean_rate: float | None = None


class ForeignRun(Record):
    """One result. Throughputs per second; rate_of_mean_tpot: 1 / mean TPOT, tokens per second of one stream.

    failed None: this version does not say; failures are in none of its figures.
    """

    name: str
    sha256: str
    number: int | None = None
    tool: str = TOOL
    date: str | None = None
    backend: str | None = None
    model: str | None = None
    prompts: int | None = None
    request_rate: float | None = None
    max_concurrency: int | None = None
    duration_s: float
    completed: int
    failed: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    request_throughput: float | None = None
    output_throughput: float
    ttft: Percentiles = Percentiles()
    tpot: Percentiles = Percentiles()
    itl: Percentiles = Percentiles()
    latency: Percentiles = Percentiles()
    rate_of_mean_tpot: float | None = None
    acceptance: float | None = None
    per_position: tuple[float, ...] = ()
    tokens_per_step: float | None = None
    detail: ForeignDetail | None = None
    definitions: dict[str, str] = DEFINITIONS
    cannot_tell: tuple[str, ...] = CANNOT_TELL


def looks_foreign(data: bytes) -> bool:
    """Whether it is that tool's result, by its keys: it is one JSON object with none of our records in it."""
    found = _objects(data)
    return bool(found) and all(key in found[0] for key in _NEEDED)


def read_foreign(path: Path) -> ForeignRun:
    """Read a result. A file of several (`--append-result`) is refused: they are of different loads.

    Raises:
        ConfigError: the file cannot be read.
        NoVerdictError: it is no such result.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    found = _objects(data)
    if not found or not all(key in found[0] for key in _NEEDED):
        raise NoVerdictError(f"{path} is no result of {TOOL}: it has not {', '.join(_NEEDED)}")
    if len(found) > 1:
        raise NoVerdictError(
            f"{path} holds {len(found)} results of {TOOL}",
            hint="give each a file; --append-result joins them",
        )
    document = found[0]
    duration, completed = _number(document, "duration"), _number(document, "completed")
    throughput = _number(document, "output_throughput")
    if duration is None or completed is None or throughput is None:
        raise NoVerdictError(f"{path}: duration, completed and output_throughput of {TOOL} are numbers")
    tpot = _percentiles(document, "tpot")
    return ForeignRun(
        name=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        date=_text(document, "date"),
        backend=_text(document, "backend") or _text(document, "endpoint_type"),
        model=_text(document, "model_id"),
        prompts=_whole(document, "num_prompts"),
        request_rate=_number(document, "request_rate"),
        max_concurrency=_whole(document, "max_concurrency"),
        duration_s=duration,
        completed=int(completed),
        failed=_whole(document, "failed"),
        input_tokens=_whole(document, "total_input_tokens"),
        output_tokens=_whole(document, "total_output_tokens"),
        request_throughput=_number(document, "request_throughput"),
        output_throughput=throughput,
        ttft=_percentiles(document, "ttft"),
        tpot=tpot,
        itl=_percentiles(document, "itl"),
        latency=_percentiles(document, "e2el"),
        rate_of_mean_tpot=1 / tpot.mean if tpot.mean else None,
        acceptance=_share(_number(document, "spec_decode_acceptance_rate")),
        # These are shares already, unlike the rate over all positions.
        per_position=tuple(_numbers(document.get("spec_decode_per_position_acceptance_rates"))),
        tokens_per_step=_number(document, "spec_decode_acceptance_length"),
        detail=_detail(document),
    )


def _detail(document: Mapping[str, Any]) -> ForeignDetail | None:
    """From the lists of each request; None without them, or where they do not fit together."""
    lists = [document.get(key) for key in _SAMPLE_KEYS]
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists if one is not None}) != 1:
        return None
    errors = document.get("errors")
    failed = errors if isinstance(errors, list) and len(errors) == len(lists[0] or ()) else [""] * len(lists[0] or ())
    events = tokens = requests = 0
    rates = []
    for ttft, gaps, n, error in zip(*lists, failed, strict=True):  # type: ignore[arg-type]
        if error or not isinstance(n, int) or n < 1:
            continue
        known = _numbers(gaps)
        requests, events, tokens = requests + 1, events + 1 + len(known), tokens + n
        if isinstance(ttft, (int, float)) and n > 1 and sum(known) > 0:
            rates.append((n - 1) / sum(known))
    return ForeignDetail(
        requests=requests,
        events=events,
        tokens=tokens,
        tokens_per_event=tokens / events if events else None,
        mean_rate=statistics.fmean(rates) if rates else None,
    )


def _objects(data: bytes) -> list[dict[str, Any]]:
    """The one JSON object of a file, or those of its lines; empty: it is something else."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        try:
            lines = [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            return []
        return lines if all(isinstance(line, dict) for line in lines) else []
    return [whole] if isinstance(whole, dict) else []


def _percentiles(document: Mapping[str, Any], name: str) -> Percentiles:
    def seconds(kind: str) -> float | None:
        value = _number(document, f"{kind}_{name}_ms")
        return None if value is None else value / 1000

    return Percentiles(mean=seconds("mean"), median=seconds("median"), p99=seconds("p99"))


def _number(document: Mapping[str, Any], key: str) -> float | None:
    """A finite number; "inf", as the tool writes an unlimited rate, is none."""
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _numbers(value: Any) -> list[float]:
    given = value if isinstance(value, list) else []
    return [float(one) for one in given if isinstance(one, (int, float)) and not isinstance(one, bool)]


def _whole(document: Mapping[str, Any], key: str) -> int | None:
    value = _number(document, key)
    return None if value is None else int(value)


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
