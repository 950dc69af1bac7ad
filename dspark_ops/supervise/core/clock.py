"""Time without trust in the wall clock: everything is seconds since the head booted, carried over a reboot once.

A wall clock may jump by an hour and more. Within a boot it is never used. Over a reboot it tells only how much longer
than the present boot the head was off, and only when the kernel called it synchronised both before and after: setting
a clock by hand takes that mark away, so a clock that jumped does not carry it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from dspark_ops.supervise.core.memory import Instant, Memory, Watch
from dspark_ops.supervise.core.sight import Observation

T = TypeVar("T")
#: A head that was off for longer than this was off for this long: every limit is shorter.
OFF_LIMIT_S = 30 * 24 * 3600.0


def now_of(observation: Observation) -> Instant:
    return Instant(monotonic_s=observation.monotonic_s, wall_s=observation.wall_s)


def since(moment: Instant | None, now: Instant) -> float:
    """Seconds from a moment until now, never negative; 0 for none."""
    return 0.0 if moment is None else max(0.0, now.monotonic_s - moment.monotonic_s)


def carry_over(memory: Memory, observation: Observation) -> Memory:
    """The memory with all its moments in seconds of the present boot. The same memory when nothing happened.

    Without a clock to trust, time that the head was off counts as nothing: a backoff and a budget last longer, and
    never shorter, than they should. It is made good once the clock is synchronised.
    """
    now, seen = now_of(observation), memory.seen
    if seen is None:
        return memory
    if memory.boot_id == observation.boot_id:
        if now.monotonic_s < seen.monotonic_s:  # a clock that must not go back did: nothing has passed
            return replace(_moved(memory, now.monotonic_s - seen.monotonic_s), watch=Watch(), witnesses=())
        return _make_good(memory, observation)
    synced = memory.seen_synced and observation.head.clock_synced is True
    off_s = _off_s(now.wall_s - seen.wall_s - now.monotonic_s) if synced else 0.0
    moved = _moved(memory, -seen.monotonic_s - off_s)
    unsure = moved.seen if memory.seen_synced and not synced else None
    return replace(moved, watch=Watch(prefilling=memory.watch.prefilling), witnesses=(), unsure=unsure)


def _make_good(memory: Memory, observation: Observation) -> Memory:
    unsure = memory.unsure
    if unsure is None or observation.head.clock_synced is not True:
        return memory
    now = now_of(observation)
    off_s = _off_s(now.wall_s - unsure.wall_s - (now.monotonic_s - unsure.monotonic_s))
    return replace(_moved(memory, -off_s, until_s=unsure.monotonic_s), unsure=None)


def _off_s(wall_says_s: float) -> float:
    return min(max(0.0, wall_says_s), OFF_LIMIT_S)


def _moved(value: T, by_s: float, until_s: float | None = None) -> T:
    """Every Instant inside, moved; those later than until_s stay."""
    if isinstance(value, Instant):
        if until_s is not None and value.monotonic_s > until_s:
            return value
        return replace(value, monotonic_s=value.monotonic_s + by_s)
    if isinstance(value, tuple):
        items: Any = tuple(_moved(item, by_s, until_s) for item in value)
        return items  # type: ignore[no-any-return]
    if is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _moved(getattr(value, f.name), by_s, until_s) for f in fields(value)}
        return replace(value, **changes)
    return value
