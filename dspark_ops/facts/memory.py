"""Unified memory: MemAvailable is the only number to trust on a GB10."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files("memory.meminfo", ("/proc/meminfo",)),
    Files("memory.state", ("/proc/pressure/memory", "/proc/buddyinfo", "/etc/default/earlyoom"), max_bytes=8192),
)

_LINE = re.compile(r"^([A-Za-z0-9_()]+):\s+(\d{1,18})(?: kB)?\s*$", re.MULTILINE)
_ORDER_2_MIB = 9
_EARLYOOM_DEFAULT = 10.0
_ACCOUNTED = (
    "MemFree",
    "Buffers",
    "Cached",
    "SwapCached",
    "AnonPages",
    "Slab",
    "KernelStack",
    "PageTables",
    "Percpu",
    "Hugetlb",
)


class MemoryFacts(Fact):
    """Figures of /proc/meminfo. unaccounted_kib: what belongs to no counter, as freed pages that the driver keeps.

    shared_kib: shared memory and tmpfs. huge_pages_kib: set aside for huge pages. stalled_pct: of the last ten seconds,
    in which nothing could run for want of memory. large_free_kib: free in pieces of 2 MiB and more. earlyoom_pct: below
    how much free memory earlyoom ends a process; None when it has no settings.
    """

    mem_total_kib: int | None = None
    mem_available_kib: int | None = None
    mem_free_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    cma_total_kib: int | None = None
    cma_free_kib: int | None = None
    unaccounted_kib: int | None = None
    shared_kib: int | None = None
    huge_pages_kib: int | None = None
    stalled_pct: float | None = None
    large_free_kib: int | None = None
    earlyoom_pct: float | None = None

    @property
    def total_gib(self) -> float | None:
        return None if self.mem_total_kib is None else self.mem_total_kib / 1024**2

    @property
    def available_gib(self) -> float | None:
        return None if self.mem_available_kib is None else self.mem_available_kib / 1024**2


def parse_meminfo(text: str | None) -> MemoryFacts | None:
    """The figures; None when there is no figure in the text at all."""
    if text is None:
        return None
    values = {name: int(number) for name, number in _LINE.findall(text)}
    if not values:
        return None
    unaccounted = None
    if "MemTotal" in values and {"MemFree", "Cached", "AnonPages"} <= values.keys():
        slab = values.get("Slab", values.get("KReclaimable", 0) + values.get("SUnreclaim", 0))
        accounted = sum(values.get(name, 0) for name in _ACCOUNTED if name != "Slab") + slab
        unaccounted = max(0, values["MemTotal"] - accounted)
    return MemoryFacts(
        mem_total_kib=values.get("MemTotal"),
        mem_available_kib=values.get("MemAvailable"),
        mem_free_kib=values.get("MemFree"),
        swap_total_kib=values.get("SwapTotal"),
        swap_free_kib=values.get("SwapFree"),
        cma_total_kib=values.get("CmaTotal"),
        cma_free_kib=values.get("CmaFree"),
        unaccounted_kib=unaccounted,
        shared_kib=values.get("Shmem"),
        huge_pages_kib=values.get("Hugetlb", _huge_pages(values)),
    )


def _huge_pages(values: dict[str, int]) -> int | None:
    pages, size = values.get("HugePages_Total"), values.get("Hugepagesize")
    return None if pages is None or size is None else pages * size


def parse_stall(text: str | None) -> float | None:
    """avg10 of the line `full` in /proc/pressure/memory, in percent."""
    found = re.search(r"^full avg10=(\d{1,3}\.\d{1,4}) ", text or "", re.MULTILINE)
    return float(found[1]) if found else None


def parse_buddyinfo(text: str | None) -> int | None:
    """Free KiB in pieces of at least 2 MiB, with pages of 4 KiB: the columns from the tenth on. None without a row."""
    rows = re.findall(r"^Node +\d+, zone +\w+((?: +\d{1,9}){10,20})\s*$", text or "", re.MULTILINE)
    if not rows:
        return None
    total = 0
    for row in rows:
        counts = [int(word) for word in row.split()]
        total += sum(count * (4 << order) for order, count in enumerate(counts) if order >= _ORDER_2_MIB)
    return total


def parse_earlyoom(text: str | None) -> float | None:
    """The first figure of -m in EARLYOOM_ARGS, in percent; 10, which is its default, when there is no -m."""
    if text is None:
        return None
    lines = re.findall(r"^[ \t]*EARLYOOM_ARGS=(.*)$", text, re.MULTILINE)
    found = re.search(r"(?:^|[\s\"'])-m[ =]?(\d{1,3}(?:\.\d{1,3})?)", lines[-1]) if lines else None
    return float(found[1]) if found else _EARLYOOM_DEFAULT


def read_memory(reading: NodeReading) -> MemoryFacts | None:
    """The figures of a reading."""
    figures = parse_meminfo((reading.get("memory.meminfo").files or {}).get("/proc/meminfo"))
    state = reading.get("memory.state").files or {}
    if figures is None:
        return None
    return figures.model_copy(
        update={
            "stalled_pct": parse_stall(state.get("/proc/pressure/memory")),
            "large_free_kib": parse_buddyinfo(state.get("/proc/buddyinfo")),
            "earlyoom_pct": parse_earlyoom(state.get("/etc/default/earlyoom")),
        }
    )
