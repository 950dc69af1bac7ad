"""vLLM's own figures over the last interval: acceptance, steps, the KV pool that it really made, its window."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.http_get import Get, get
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import whole

Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]
#: Name of the systemd credential with the engine's key, where it has one.
CREDENTIAL = "engine-key"


@dataclass(frozen=True)
class EngineReading:
    """One scrape, summed over engines. None: this release does not say it, or draft tokens are off.

    steps: engine steps with outputs. accepted_at: of the drafts, how many had this position's token accepted.
    """

    drafts: float | None = None
    draft_tokens: float | None = None
    accepted_tokens: float | None = None
    accepted_at: Mapping[str, float] = field(default_factory=dict)
    steps: float | None = None
    generated_tokens: float | None = None
    start_s: float | None = None
    pool_tokens: int | None = None
    blocks: int | None = None
    block_size: int | None = None


def parse_scrape(text: str) -> EngineReading:
    """A scrape of vLLM.

    Raises:
        SourceError: it is not whole, not the text format, or not vLLM's.
    """
    if not text.endswith("\n"):
        raise SourceError("the scrape of the engine is cut")
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        raise SourceError("what the engine answered is not the text format of Prometheus") from None
    if not any(name.startswith("vllm:") for name in samples):
        raise SourceError("what answered is not vLLM: it has no metric of that name")
    positions: dict[str, float] = {}
    for labels, value in samples.get("vllm:spec_decode_num_accepted_tokens_per_pos_total", ()):
        position = labels.get("position", "")
        if position.isascii() and position.isdecimal() and len(position) < 4:
            positions[position] = positions.get(position, 0.0) + value
    cache = next((labels for labels, _ in samples.get("vllm:cache_config_info", ())), {})
    starts = [value for _, value in samples.get("process_start_time_seconds", ())]
    return EngineReading(
        drafts=_sum(samples, "vllm:spec_decode_num_drafts_total"),
        draft_tokens=_sum(samples, "vllm:spec_decode_num_draft_tokens_total"),
        accepted_tokens=_sum(samples, "vllm:spec_decode_num_accepted_tokens_total"),
        accepted_at=positions,
        steps=_sum(samples, "vllm:iteration_tokens_total_count"),
        generated_tokens=_sum(samples, "vllm:generation_tokens_total"),
        start_s=max(starts, default=None),
        pool_tokens=whole(cache.get("kv_cache_size_tokens")),
        blocks=whole(cache.get("num_gpu_blocks")),
        block_size=whole(cache.get("block_size")),
    )


def _sum(samples: Samples, name: str) -> float | None:
    values = [value for _, value in samples.get(name, ())]
    return math.fsum(values) if values else None


class Engine:
    """Scrapes the engine again and again: every rate needs the scrape before, of the same process."""

    def __init__(self, url: str, fetch: Get = get, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._before: tuple[float, EngineReading] | None = None

    def read(self, into: Families) -> None:
        """One scrape, and the rates since the one before.

        Raises:
            SourceError: the engine does not answer, or not as vLLM does.
        """
        before, self._before = self._before, None
        now = parse_scrape(self._fetch(f"{self._url}/metrics"))
        at = self._clock()
        self._before = (at, now)
        into.add("dspark_engine_start_timestamp_seconds", now.start_s)
        into.add("dspark_kv_pool_blocks", now.blocks)
        into.add("dspark_kv_block_size_tokens", now.block_size)
        if now.pool_tokens is not None:
            into.add("dspark_kv_pool_tokens", now.pool_tokens, basis="engine")
        elif now.blocks and now.block_size:
            # Older releases say only blocks. With several kinds of attention layers a token takes more than one.
            into.add("dspark_kv_pool_tokens", now.blocks * now.block_size, basis="blocks")
        if before is not None and before[1].start_s == now.start_s and at > before[0]:
            export_rates(before[1], now, at - before[0], into)


def export_rates(before: EngineReading, now: EngineReading, elapsed_s: float, into: Families) -> None:
    """What happened between two scrapes of one process. A count that went back tells nothing."""
    into.add("dspark_engine_interval_seconds", elapsed_s)
    steps = _growth(before.steps, now.steps)
    into.add("dspark_steps_per_second", None if steps is None else steps / elapsed_s)
    generated = _growth(before.generated_tokens, now.generated_tokens)
    into.add("dspark_tokens_per_step", generated / steps if generated is not None and steps else None)
    drafts = _growth(before.drafts, now.drafts)
    into.add("dspark_acceptance_drafts", drafts)
    drafted, accepted = (
        _growth(before.draft_tokens, now.draft_tokens),
        _growth(before.accepted_tokens, now.accepted_tokens),
    )
    into.add("dspark_acceptance_ratio", accepted / drafted if drafted and accepted is not None else None)
    for position, value in sorted(now.accepted_at.items(), key=lambda item: int(item[0])):
        grown = _growth(before.accepted_at.get(position), value)
        ratio = grown / drafts if drafts and grown is not None else None
        into.add("dspark_acceptance_position_ratio", ratio, position=position)


def _growth(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None or now < before else now - before


def export_models(url: str, wanted: int | None, into: Families, fetch: Get | None = None) -> None:
    """The window of the served model, as the engine tells its clients.

    Raises:
        SourceError: the engine does not answer, or its list has no model.
    """
    into.add("dspark_model_wanted_max_len", wanted)
    text = (fetch or get_with_key)(f"{url}/v1/models")
    windows = parse_models(text)
    if not windows:
        raise SourceError("/v1/models has no model with max_model_len")
    for model, window in windows.items():
        into.add("dspark_model_max_len", window, model=model)


def parse_models(text: str) -> dict[str, int]:
    """Window in tokens by model id, of those that say it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    entries = document.get("data") if isinstance(document, dict) else None
    found: dict[str, int] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        name, window = entry.get("id"), entry.get("max_model_len")
        if isinstance(name, str) and isinstance(window, int) and not isinstance(window, bool) and window > 0:
            found[name] = window
    return found


def get_with_key(url: str) -> str:
    """As get, with the engine's key where systemd gave one; it is read each time and kept nowhere."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    headers: dict[str, str] = {}
    if directory:
        try:
            key = (Path(directory) / CREDENTIAL).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        if key:
            headers["Authorization"] = f"Bearer {key}"
    return get(url, headers)
