"""The head's `/metrics` as vLLM writes it: state, work, outcome, speculation and the cache that it really made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field

from dspark_ops.config.models import Site
from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Http, NodeReading, ProbeResult

_MAX_BYTES = 1 << 20
Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


class CacheInfo(Fact):
    """`vllm:cache_config_info`: what the engine made of its cache options. None: not said by this release."""

    block_size: int | None = None
    dtype: str | None = None
    prefix_caching: bool | None = None
    memory_bytes: int | None = None
    size_tokens: int | None = None
    concurrency: float | None = None
    blocks: int | None = None


class MeanFacts(Fact):
    """A histogram's sum in seconds and its count."""

    sum_s: float
    count: int


class MetricsFacts(Fact):
    """One scrape, summed over engines and label values that are not named here. None: no such series.

    kv_usage: 0 to 1. finished: requests by reason since the start. accepted_per_position: of the drafts, how many had
    their first, second ... token accepted. answers: HTTP answers by class, as `2xx`. process_start_s: since the epoch,
    of the process that answers.
    """

    running: float | None = None
    waiting: float | None = None
    waiting_for_capacity: float | None = None
    kv_usage: float | None = None
    awake: bool | None = None
    preemptions: int | None = None
    prompt_tokens: int | None = None
    prompt_tokens_cached: int | None = None
    generation_tokens: int | None = None
    finished: dict[str, int] | None = None
    rejections: int | None = None
    corrupted: int | None = None
    drafts: int | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None
    accepted_per_position: tuple[int, ...] | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    token_time: MeanFacts | None = None
    first_token_time: MeanFacts | None = None
    queue_time: MeanFacts | None = None
    cache: CacheInfo | None = None
    answers: dict[str, int] | None = None
    open_files: int | None = None
    open_files_limit: int | None = None
    process_start_s: float | None = None

    @property
    def requests(self) -> int | None:
        """How many requests ended, whatever the reason."""
        return None if self.finished is None else sum(self.finished.values())

    @property
    def acceptance(self) -> float | None:
        """Accepted of drafted tokens; None while nothing was drafted."""
        if self.accepted_tokens is None or not self.draft_tokens:
            return None
        return self.accepted_tokens / self.draft_tokens


class ScrapeFacts(Fact):
    """What `/metrics` gave. error: why there is no first scrape. later: a second one, interval_s or more after it."""

    error: str | None = None
    first: MetricsFacts | None = None
    later: MetricsFacts | None = None
    interval_s: float | None = Field(default=None, ge=0)


def probes(site: Site, *, twice: bool = False) -> tuple[Http, ...]:
    """One scrape of this site's head; twice: another one after everything else of the reading has ended."""
    url = f"{_base(site)}/metrics"
    first = Http("metrics.first", url, max_bytes=_MAX_BYTES)
    return (first, Http("metrics.later", url, max_bytes=_MAX_BYTES, late=True)) if twice else (first,)


def _base(site: Site) -> str:
    host = site.serve.api_host
    return f"http://{IPv4Address('127.0.0.1') if host.is_unspecified else host}:{site.serve.api_port}"


def parse_metrics(text: str | None) -> MetricsFacts | None:
    """A scrape in the Prometheus text format; None for anything else, or where its end is cut off."""
    if text is None or not text.endswith("\n") or "\n# TYPE " not in f"\n{text}":
        return None
    try:
        samples = _samples(text)
    except (ValueError, OverflowError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    if not any(name.startswith("vllm:") for name in samples):
        return None
    finished = _by_label(samples, "vllm:request_success_total", "finished_reason")
    return MetricsFacts(
        running=_sum(samples, "vllm:num_requests_running"),
        waiting=_sum(samples, "vllm:num_requests_waiting"),
        waiting_for_capacity=_where(samples, "vllm:num_requests_waiting_by_reason", "reason", "capacity"),
        kv_usage=_largest(samples, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        awake=_flag(_where(samples, "vllm:engine_sleep_state", "sleep_state", "awake")),
        preemptions=_count(samples, "vllm:num_preemptions_total"),
        prompt_tokens=_count(samples, "vllm:prompt_tokens_total"),
        prompt_tokens_cached=_count(samples, "vllm:prompt_tokens_cached_total"),
        generation_tokens=_count(samples, "vllm:generation_tokens_total"),
        finished=finished,
        rejections=_count(samples, "vllm:admission_rejections_total"),
        corrupted=_count(samples, "vllm:corrupted_requests_total"),
        drafts=_count(samples, "vllm:spec_decode_num_drafts_total"),
        draft_tokens=_count(samples, "vllm:spec_decode_num_draft_tokens_total"),
        accepted_tokens=_count(samples, "vllm:spec_decode_num_accepted_tokens_total"),
        accepted_per_position=_positions(samples),
        prefix_queries=_count(samples, "vllm:prefix_cache_queries_total"),
        prefix_hits=_count(samples, "vllm:prefix_cache_hits_total"),
        token_time=_mean(samples, "vllm:request_time_per_output_token_seconds", "vllm:time_per_output_token_seconds"),
        first_token_time=_mean(samples, "vllm:time_to_first_token_seconds"),
        queue_time=_mean(samples, "vllm:request_queue_time_seconds"),
        cache=_cache(samples),
        answers=_by_label(samples, "http_requests_total", "status"),
        open_files=_count(samples, "process_open_fds"),
        open_files_limit=_count(samples, "process_max_fds"),
        process_start_s=_largest(samples, "process_start_time_seconds"),
    )


def _samples(text: str) -> Samples:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if math.isfinite(sample.value):
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _values(samples: Samples, *names: str) -> list[float]:
    """The values of the first of these names that there is; older releases have other names."""
    return next(([value for _, value in samples[name]] for name in names if name in samples), [])


def _sum(samples: Samples, name: str) -> float | None:
    values = _values(samples, name)
    return _finite(sum(values)) if values else None


def _count(samples: Samples, name: str) -> int | None:
    total = _sum(samples, name)
    return None if total is None else int(total)


def _largest(samples: Samples, *names: str) -> float | None:
    return max(_values(samples, *names), default=None)


def _flag(value: float | None) -> bool | None:
    return None if value is None else value > 0


def _where(samples: Samples, name: str, label: str, wanted: str) -> float | None:
    values = [value for labels, value in samples.get(name, ()) if labels.get(label) == wanted]
    return _finite(sum(values)) if values else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_label(samples: Samples, name: str, label: str) -> dict[str, int] | None:
    if name not in samples:
        return None
    found: dict[str, int] = {}
    for labels, value in samples[name]:
        found[labels.get(label, "")] = found.get(labels.get(label, ""), 0) + int(value)
    return found


def _positions(samples: Samples) -> tuple[int, ...] | None:
    found = _by_label(samples, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "position")
    if not found or not all(place.isascii() and place.isdecimal() and len(place) < 4 for place in found):
        return None
    return tuple(found[place] for place in sorted(found, key=int))


def _mean(samples: Samples, *names: str) -> MeanFacts | None:
    for name in names:
        total, count = _sum(samples, f"{name}_sum"), _count(samples, f"{name}_count")
        if total is not None and count is not None:
            return MeanFacts(sum_s=total, count=count)
    return None


def _cache(samples: Samples) -> CacheInfo | None:
    labels: Mapping[str, str] | None = next((found for found, _ in samples.get("vllm:cache_config_info", ())), None)
    if labels is None:
        return None
    caching = labels.get("enable_prefix_caching")
    return CacheInfo(
        block_size=_whole(labels.get("block_size")),
        dtype=labels.get("cache_dtype"),
        prefix_caching={"True": True, "False": False}.get(caching or ""),
        memory_bytes=_whole(labels.get("kv_cache_memory_bytes")),
        size_tokens=_whole(labels.get("kv_cache_size_tokens")),
        concurrency=_number(labels.get("kv_cache_max_concurrency")),
        blocks=_whole(labels.get("num_gpu_blocks")),
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 20 else None


def _number(text: str | None) -> float | None:
    try:
        return _finite(float(text or ""))
    except ValueError:
        return None


def read_metrics(reading: NodeReading) -> ScrapeFacts | None:
    """The scrapes of a reading; None where none was asked for."""
    if "metrics.first" not in reading.results:
        return None
    result = reading.get("metrics.first")
    first = parse_metrics(result.text())
    later = reading.results.get("metrics.later")
    second = None if later is None else parse_metrics(later.text())
    return ScrapeFacts(
        error=None if first is not None else _why(result),
        first=first,
        later=second,
        interval_s=None if second is None else _interval(result, reading.results.values()),
    )


def _interval(first: ProbeResult, results: Iterable[ProbeResult]) -> float:
    """At least so long lies between the two: the later one waits for the slowest completion, which began no later."""
    slowest = max((r.elapsed_s for r in results if r.id.startswith(("service.", "reply."))), default=0.0)
    return max(0.0, round(slowest - first.elapsed_s, 3))


def _why(result: ProbeResult) -> str:
    if result.error is not None:
        return result.error
    return f"status {result.rc}" if not result.ok else "it is not what vLLM writes, or it is cut"
