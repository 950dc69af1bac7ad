"""How many bytes one rank's KV pool has, and how surely that is known. Nothing is assumed that nobody gave."""

from __future__ import annotations

from typing import Literal

from dspark_ops.config.models import ServeSite
from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import Model

GIB = 1 << 30
MIB = 1 << 20
#: vLLM prints GiB with two decimals.
LOG_STEP_BYTES = GIB // 100

Sureness = Literal["exact", "rounded", "estimate"]


class Pool(Model):
    """The pool of one rank. low_bytes and high_bytes: what it may be, where the figure was rounded; else both equal.

    sureness: exact, as rounded in a log, or an estimate from figures that are themselves estimates.
    """

    pool_bytes: int
    low_bytes: int
    high_bytes: int
    sureness: Sureness
    source: str


class MemoryOptions(Model):
    """What the operator said of memory on the command line; None is not said. All of one rank."""

    memory_bytes: int | None = None
    memory_gib: float | None = None
    available_gib: float | None = None
    total_gib: float | None = None
    engine_gib: float | None = None


def pool_of(options: MemoryOptions, serve: ServeSite) -> Pool:
    """The pool: by the command line, else by the site.

    Raises:
        ConfigError: contradicting options, or nothing that says how large the pool is; the hint says what would.
    """
    said = {
        name: value
        for name, value in (
            ("--memory-bytes", options.memory_bytes),
            ("--memory-gib", options.memory_gib),
            ("--available-gib", options.available_gib),
        )
        if value is not None
    }
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(said)} both say how large the pool is", hint="give one of them")
    for name, value in said.items():
        if value <= 0:
            raise ConfigError(f"{name} {value}: expected more than 0")
    if options.memory_bytes is not None:
        return _exact(options.memory_bytes, "--memory-bytes")
    if options.memory_gib is not None:
        return _exact(int(options.memory_gib * GIB), "--memory-gib")
    if options.available_gib is not None:
        return rounded_pool(options.available_gib, "--available-gib, as vLLM's log has it")
    if serve.kv_cache_memory_mib is not None and options.total_gib is None and options.engine_gib is None:
        return _exact(serve.kv_cache_memory_mib * MIB, "serve.kv_cache_memory_mib")
    return _estimate(options, serve.gpu_memory_utilization)


def rounded_pool(gib: float, source: str) -> Pool:
    """A pool that is known as a figure with two decimals of GiB."""
    middle = int(gib * GIB)
    half = LOG_STEP_BYTES // 2 + 1
    return Pool(
        pool_bytes=middle, low_bytes=max(middle - half, 0), high_bytes=middle + half, sureness="rounded", source=source
    )


def _exact(size_bytes: int, source: str) -> Pool:
    return Pool(pool_bytes=size_bytes, low_bytes=size_bytes, high_bytes=size_bytes, sureness="exact", source=source)


def _estimate(options: MemoryOptions, utilization: float | None) -> Pool:
    wanted = (
        "give --memory-gib or --memory-bytes, vLLM's own figure with --available-gib, set serve.kv_cache_memory_mib, "
        "or give --total-gib and --engine-gib (weights, activations and graphs of one rank) for an estimate"
    )
    missing = [
        name
        for name, value in (
            ("the node's memory (--total-gib)", options.total_gib),
            ("what the engine takes besides (--engine-gib)", options.engine_gib),
            ("serve.gpu_memory_utilization", utilization),
        )
        if value is None
    ]
    if missing or options.total_gib is None or options.engine_gib is None or utilization is None:
        raise ConfigError(f"the size of the KV pool is not known: missing {', '.join(missing)}", hint=wanted)
    left = int((utilization * options.total_gib - options.engine_gib) * GIB)
    if left <= 0:
        raise ConfigError(
            f"{utilization:g} of {options.total_gib:g} GiB less {options.engine_gib:g} GiB leaves nothing for the cache"
        )
    source = f"{utilization:g} x {options.total_gib:g} GiB - {options.engine_gib:g} GiB for the engine"
    return Pool(pool_bytes=left, low_bytes=left, high_bytes=left, sureness="estimate", source=source)
