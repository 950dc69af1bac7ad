"""Waiting until memory is given back: a process that has ended is not memory that is free, on a GB10 for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable

from dspark_ops.config.models import Profile, Role, Site
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.memory.gate import MemoryRefusal, memory_refusals

#: A node that gave nothing back for so long gives nothing more.
STILL_S = 20.0
_GROWTH_KIB = 64 * 1024


def wait_for_room(
    look: Callable[[], PairFacts],
    site: Site,
    profile: Profile,
    *,
    progress: Callable[[str], None],
    limit_s: float = 180.0,
    poll_s: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[MemoryRefusal]:
    """Look again until both nodes have room; what is refused still when memory has stopped coming back.

    It goes on while a node that lacks memory gives some back: at most `limit_s`, and 20 s without any. What never fits
    is refused at once.
    """
    began = last_growth = clock()
    most: dict[Role, int] = {}
    said = False
    while True:
        pair = look()
        refusals = memory_refusals(site, profile, pair)
        if not refusals or any(refusal.never_fits for refusal in refusals):
            return refusals
        now = clock()
        for refusal in refusals:
            memory = pair.of(refusal.role).memory
            available_kib = (memory.mem_available_kib if memory is not None else None) or 0
            if available_kib >= most.get(refusal.role, 0) + _GROWTH_KIB:
                most[refusal.role] = available_kib
                last_growth = now
        if now - last_growth >= STILL_S or now - began >= limit_s:
            return refusals
        if not said:
            progress(f"waiting for memory to come back: {refusals[0].observed}")
            said = True
        sleep(poll_s)
