"""The table over the levers: what each one would make of the same memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from dspark_ops.kv.caches import Model
from dspark_ops.kv.geometry import V4Geometry
from dspark_ops.kv.plan import Capacity
from dspark_ops.kv.records import RECORDS
from dspark_ops.kv.setting import Setting

#: The length that two Sparks are bought for.
MILLION_TOKENS = 1_048_576
_IN_FLIGHT = (16384, 8192, 4096, 2048)
_LENGTHS = (1_048_576, 524_288, 262_144, 131_072)

Lever = Literal["record and in flight", "async scheduling", "max_model_len"]


class Row(Model):
    """One setting beside the site's own. what: the lever's value, for people.

    concurrency_1m: requests of 1,048,576 tokens that the pool would hold. gain: tokens by those of the site's own
    setting; None at another max_model_len, where tokens are another unit.
    """

    lever: Lever
    what: str
    record: str | None
    in_flight_tokens: int
    max_model_len: int
    block_bytes: int
    request_blocks: int
    tokens: int
    concurrency: float
    concurrency_1m: float
    gain: float | None
    fits: bool


def lever_rows(setting: Setting, pool_bytes: int) -> tuple[Row, ...]:
    """Every row of the table, in order."""
    own = setting.capacity(pool_bytes)
    return tuple(
        _row(lever, what, setting.model_copy(update=update), own) for lever, what, update in _variants(setting)
    )


def _variants(setting: Setting) -> Iterator[tuple[Lever, str, dict[str, Any]]]:
    if isinstance(setting.geometry, V4Geometry):
        for record in RECORDS.values():
            for tokens in _IN_FLIGHT:
                # The table is over F itself, however it comes about.
                update = {"record": record, "max_num_batched_tokens": tokens, "asynchronous": False}
                yield "record and in flight", record.honest, update
        for asynchronous in (True, False):
            state = "on: two batches in flight" if asynchronous else "off: one batch in flight"
            yield "async scheduling", state, {"asynchronous": asynchronous}
    for length in sorted({*_LENGTHS, setting.max_model_len}, reverse=True):
        yield "max_model_len", f"{length:,} tokens", {"max_model_len": length}


def _row(lever: Lever, what: str, setting: Setting, own: Capacity) -> Row:
    made = setting.capacity(own.pool_bytes)
    million = setting.model_copy(update={"max_model_len": MILLION_TOKENS}).capacity(own.pool_bytes)
    comparable = made.max_model_len == own.max_model_len and own.tokens > 0
    return Row(
        lever=lever,
        what=what,
        record=setting.record.name if setting.record else None,
        in_flight_tokens=made.in_flight_tokens,
        max_model_len=made.max_model_len,
        block_bytes=made.block_bytes,
        request_blocks=made.request_blocks,
        tokens=made.tokens,
        concurrency=made.concurrency,
        concurrency_1m=million.concurrency,
        gain=made.tokens / own.tokens if comparable else None,
        fits=made.fits,
    )
