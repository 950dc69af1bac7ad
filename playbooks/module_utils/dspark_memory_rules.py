"""What dropping the page cache can give back, from /proc/meminfo. Pure."""

from __future__ import annotations

import re

_LINE = re.compile(r"^([A-Za-z0-9_()]+):\s+(\d{1,18}) kB\s*$", re.MULTILINE)
_KIB_PER_MIB = 1024
_KIB_PER_GIB = 1024 * 1024


def figures(text: str) -> dict[str, int]:
    """Every figure of /proc/meminfo in KiB."""
    return {name: int(number) for name, number in _LINE.findall(text)}


def droppable_kib(meminfo: dict[str, int]) -> int | None:
    """Page cache that can be dropped at once: Cached and Buffers without shared memory and without what is dirty.

    None when the figures are not there: then nothing is known, and nothing is dropped.
    """
    if "Cached" not in meminfo:
        return None
    kept = sum(meminfo.get(name, 0) for name in ("Shmem", "Dirty", "Writeback"))
    return max(0, meminfo["Cached"] + meminfo.get("Buffers", 0) - kept)


def decide(meminfo: dict[str, int], at_least_mib: int, own: bool) -> tuple[bool, str]:
    """(whether to drop, why or why not). own: the settings below /proc/sys/vm are the running kernel's."""
    if not own:
        return False, "the kernel's settings of this node belong to its machine (rehearsal): nothing was dropped"
    droppable = droppable_kib(meminfo)
    if droppable is None:
        return False, "/proc/meminfo does not say how large the page cache is: nothing was dropped"
    if droppable < at_least_mib * _KIB_PER_MIB:
        return False, f"the page cache holds {droppable / _KIB_PER_GIB:.1f} GiB: nothing to gain"
    return True, f"the page cache holds {droppable / _KIB_PER_GIB:.1f} GiB"


def told(meminfo: dict[str, int]) -> str:
    """MemFree and MemAvailable for people; dropping moves the first, compaction what one allocation may ask for."""
    free, available = meminfo.get("MemFree"), meminfo.get("MemAvailable")
    shown = (("free", free), ("available", available))
    return ", ".join(f"{'?' if kib is None else f'{kib / _KIB_PER_GIB:.1f}'} GiB {name}" for name, kib in shown)
