"""What a vLLM boot log says of its KV cache. Tolerates prefixes, clocks, colours and both ranks in one file. Pure.

The lines are those of vLLM 0.32.0: v1/core/kv_cache_utils.py (size and concurrency), v1/worker/gpu_worker.py and
cpu_worker.py (memory), entrypoints (the arguments that are not defaults), v1/engine/core.py (the configuration).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dspark_ops.kv.caches import Model

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_SIZE = re.compile(r"\b[A-Za-z]+ KV cache size: ([\d,]{1,24}) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]{1,24}) tokens per request: ([\d.]+)x")
_BLOCKS = re.compile(
    r"# (?:GPU|CPU) blocks: (\d{1,15})\b|num_gpu_blocks_override=(\d{1,15})\b"
    r"|\bnum_gpu_blocks(?: is|[=:]) ?(\d{1,15})\b"
)
_MEMORY = (
    re.compile(r"Available KV cache memory: ([\d.]+) GiB"),
    re.compile(r"reserved ([\d.]+) GiB memory for KV Cache"),
    re.compile(r"Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache"),
)
_ARGUMENTS = "non-default args: {"
_ENGINE = re.compile(r"Initializing a V1 LLM engine \(v([^)\s]+)\)")
_NUMBERS = {
    "pool_bytes": re.compile(r"'kv_cache_memory_bytes': (\d{1,18})\b"),
    "max_num_batched_tokens": re.compile(r"'max_num_batched_tokens': (\d{1,18})\b"),
}
_ASYNC = re.compile(r"'async_scheduling': (True|False)")
_DTYPE = re.compile(r"\bkv_cache_dtype=([a-z0-9_]+)")
_RANKS = re.compile(r"\btensor_parallel_size=(\d{1,18})\b")


class BootFacts(Model):
    """One boot, as its log tells it. None: the log does not say.

    memory_gib: of each rank that said so, in the log's two decimals. pool_bytes: given as an argument.
    asynchronous and max_num_batched_tokens: given as arguments; a default is not printed.
    """

    tokens: int
    max_model_len: int | None = None
    concurrency: float | None = None
    blocks: int | None = None
    memory_gib: tuple[float, ...] = ()
    pool_bytes: int | None = None
    max_num_batched_tokens: int | None = None
    asynchronous: bool | None = None
    kv_cache_dtype: str | None = None
    ranks: int | None = None
    vllm: str | None = None


def parse_boot_log(text: str) -> BootFacts | None:
    """The last boot that reached a size, or None when the log holds no size of a KV cache.

    What follows it without a size of its own is the other rank: its memory counts too.
    """
    boots = _boots([_ESCAPES.sub("", line) for line in text.splitlines()])
    with_size = [index for index, lines in enumerate(boots) if any(_SIZE.search(line) for line in lines)]
    if not with_size:
        return None
    chosen = with_size[-1]
    facts = _facts(boots[chosen])
    others = [gib for lines in boots[chosen + 1 :] for gib in _memory(lines)]
    return facts.model_copy(update={"memory_gib": (*facts.memory_gib, *others)})


def _boots(lines: Sequence[str]) -> list[list[str]]:
    """The log cut where another process tree begins: at a second line of arguments or of an engine's start."""
    parts: list[list[str]] = [[]]
    seen: set[str] = set()
    for line in lines:
        mark = "arguments" if _ARGUMENTS in line else "engine" if _ENGINE.search(line) else None
        if mark is not None and (mark in seen or (mark == "arguments" and "engine" in seen)):
            parts.append([])
            seen = set()
        if mark is not None:
            seen.add(mark)
        parts[-1].append(line)
    return parts


def _facts(lines: Sequence[str]) -> BootFacts:
    told: dict[str, object] = {"memory_gib": _memory(lines)}
    for line in lines:
        if size := _SIZE.search(line):
            told["tokens"] = _number(size[1])
        if most := _CONCURRENCY.search(line):
            told |= {"max_model_len": _number(most[1]), "concurrency": _decimal(most[2])}
        if blocks := _BLOCKS.search(line):
            told["blocks"] = int(next(group for group in blocks.groups() if group))
        if _ARGUMENTS in line:
            told |= {name: int(found[1]) for name, rule in _NUMBERS.items() if (found := rule.search(line))}
            if scheduling := _ASYNC.search(line):
                told["asynchronous"] = scheduling[1] == "True"
        if engine := _ENGINE.search(line):
            told["vllm"] = engine[1]
            if dtype := _DTYPE.search(line):
                told["kv_cache_dtype"] = dtype[1]
            if ranks := _RANKS.search(line):
                told["ranks"] = int(ranks[1])
    return BootFacts.model_validate(told)


def _memory(lines: Sequence[str]) -> tuple[float, ...]:
    found = (_decimal(match[1]) for line in lines for rule in _MEMORY if (match := rule.search(line)))
    return tuple(gib for gib in found if gib is not None)


def _number(text: str) -> int:
    return int(text.replace(",", "") or 0)


def _decimal(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
