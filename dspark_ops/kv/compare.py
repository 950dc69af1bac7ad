"""A boot's own figure against the plan, and which lever would explain a difference. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from dspark_ops.errors import NoVerdictError
from dspark_ops.kv.bootlog import BootFacts
from dspark_ops.kv.caches import Model
from dspark_ops.kv.geometry import V4Geometry
from dspark_ops.kv.memory import Pool, rounded_pool
from dspark_ops.kv.plan import Capacity
from dspark_ops.kv.records import RECORDS
from dspark_ops.kv.setting import Setting


class Comparison(Model):
    """The verdict. low_tokens and high_tokens: the plan within one block, and within the rounding of the memory.

    explained_by: changes of the setting that would give the log's figure; empty when none does, or none is needed.
    """

    boot: BootFacts
    planned_tokens: int
    low_tokens: int
    high_tokens: int
    agrees: bool
    explained_by: tuple[str, ...]


def pool_of_log(boot: BootFacts) -> Pool | None:
    """The pool that the log names: the argument, or the smallest rank's memory; None when it names none."""
    if boot.pool_bytes is not None:
        exact = boot.pool_bytes
        return Pool(pool_bytes=exact, low_bytes=exact, high_bytes=exact, sureness="exact", source="the boot's argument")
    if boot.memory_gib:
        return rounded_pool(min(boot.memory_gib), "the boot log, two decimals of GiB")
    return None


def compare(boot: BootFacts, setting: Setting, pool: Pool | None) -> Comparison:
    """The boot's tokens against the plan's.

    Raises:
        NoVerdictError: nobody says how large the pool was.
    """
    used = pool or pool_of_log(boot)
    if used is None:
        raise NoVerdictError(
            f"the boot log has a size ({boot.tokens:,} tokens) and not the memory that it was cut from",
            hint="give the pool with --memory-gib or --available-gib",
        )
    low, middle, high = _band(setting, used)
    agrees = _within(boot, setting, used)
    return Comparison(
        boot=boot,
        planned_tokens=middle.tokens,
        low_tokens=low,
        high_tokens=high,
        agrees=agrees,
        explained_by=() if agrees else tuple(_explanations(boot, setting, used)),
    )


def _band(setting: Setting, pool: Pool) -> tuple[int, Capacity, int]:
    middle = setting.capacity(pool.pool_bytes)
    fewest = max(pool.low_bytes // middle.block_bytes - 1, 0)
    most = pool.high_bytes // middle.block_bytes + 1
    low, high = (int(blocks / middle.request_blocks * setting.max_model_len) for blocks in (fewest, most))
    return low, middle, high


def _within(boot: BootFacts, setting: Setting, pool: Pool) -> bool:
    low, _, high = _band(setting, pool)
    same_length = boot.max_model_len is None or boot.max_model_len == setting.max_model_len
    return same_length and low <= boot.tokens <= high


def _explanations(boot: BootFacts, setting: Setting, pool: Pool) -> Iterator[str]:
    """One change that gives the log's figure; else two together."""
    changes = list(_changes(boot, setting, pool))
    for count in (1, 2):
        found = False
        for together in combinations(changes, count):
            keys = [key for _, update, _ in together for key in update]
            if len(keys) != len(set(keys)) or sum(other is not None for _, _, other in together) > 1:
                continue
            update: dict[str, Any] = {key: value for _, change, _ in together for key, value in change.items()}
            other = next((named for _, _, named in together if named is not None), pool)
            if _within(boot, setting.model_copy(update=update), other):
                found = True
                yield " and ".join(text for text, _, _ in together)
        if found:
            return


def _changes(boot: BootFacts, setting: Setting, pool: Pool) -> Iterator[tuple[str, dict[str, Any], Pool | None]]:
    """What the boot may have had otherwise: the words, the change of the setting, another pool or None."""
    if boot.max_model_len is not None and boot.max_model_len != setting.max_model_len:
        length = boot.max_model_len
        yield f"max_model_len {length} instead of {setting.max_model_len}", {"max_model_len": length}, None
    logged = pool_of_log(boot)
    if logged is not None and not logged.low_bytes <= pool.pool_bytes <= logged.high_bytes:
        words = f"a pool of {logged.pool_bytes:,} bytes ({logged.source}) instead of {pool.pool_bytes:,}"
        yield words, {}, logged
    if not isinstance(setting.geometry, V4Geometry):
        if boot.ranks is not None and boot.ranks != setting.ranks:
            yield f"tensor parallelism {boot.ranks} instead of {setting.ranks}", {"ranks": boot.ranks}, None
        return
    state = "off" if setting.asynchronous else "on (two batches in flight)"
    yield f"asynchronous scheduling {state}", {"asynchronous": not setting.asynchronous}, None
    batched = boot.max_num_batched_tokens
    if batched is not None and batched != setting.max_num_batched_tokens:
        words = f"max_num_batched_tokens {batched} instead of {setting.max_num_batched_tokens}"
        yield words, {"max_num_batched_tokens": batched}, None
    for record in RECORDS.values():
        if record != setting.record:
            yield f"record {record.name} ({record.label})", {"record": record}, None
