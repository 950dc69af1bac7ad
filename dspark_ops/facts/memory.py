"""Unified memory: MemAvailable is the only number to trust on a GB10."""

from __future__ import annotations

import re

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Files("memory.meminfo", ("/proc/meminfo",)),)

_LINE = re.compile(r"^([A-Za-z0-9_()]+):\s+(\d{1,18})(?: kB)?\s*$", re.MULTILINE)
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
    """Figures of /proc/meminfo. unaccounted_kib: what belongs to no counter, as freed pages that the driver keeps."""

    mem_total_kib: int | None = None
    mem_available_kib: int | None = None
    mem_free_kib: int | None = None
    swap_total_kib: int | None = None
    swap_free_kib: int | None = None
    cma_total_kib: int | None = None
    cma_free_kib: int | None = None
    unaccounted_kib: int | None = None

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
    )


def read_memory(reading: NodeReading) -> MemoryFacts | None:
    """The figures of a reading."""
    return parse_meminfo((reading.get("memory.meminfo").files or {}).get("/proc/meminfo"))
