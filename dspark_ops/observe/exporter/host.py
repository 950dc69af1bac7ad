"""Memory and PCIe errors of this node."""

from __future__ import annotations

import re

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import Tree, whole

_MEMINFO = re.compile(r"^(MemTotal|MemAvailable):\s+(\d{1,18}) kB\s*$", re.MULTILINE)
_PCI = "/sys/bus/pci/devices"
_SEVERITIES = ("correctable", "nonfatal", "fatal")


def export_memory(tree: Tree, floor_bytes: int | None, into: Families) -> None:
    """MemAvailable, and how far it is above the floor.

    Raises:
        SourceError: /proc/meminfo does not say MemAvailable.
    """
    found = parse_meminfo(tree.text("/proc/meminfo"))
    available = found.get("MemAvailable")
    if available is None:
        raise SourceError("/proc/meminfo does not say MemAvailable")
    into.add("dspark_memory_available_bytes", available)
    into.add("dspark_memory_total_bytes", found.get("MemTotal"))
    into.add("dspark_memory_floor_bytes", floor_bytes)
    into.add("dspark_memory_floor_margin_bytes", None if floor_bytes is None else available - floor_bytes)


def parse_meminfo(text: str | None) -> dict[str, int]:
    """MemTotal and MemAvailable in bytes, those that are there."""
    return {name: int(number) * 1024 for name, number in _MEMINFO.findall(text or "")}


def export_aer(tree: Tree, into: Families) -> None:
    """The errors that PCIe functions reported, by severity; a function without the files reports none and is left out.

    Raises:
        SourceError: there is no PCI bus to look at.
    """
    devices = tree.names(_PCI)
    if devices is None:
        raise SourceError(f"{_PCI} is not there")
    for device in devices:
        for severity in _SEVERITIES:
            count = parse_aer(tree.text(f"{_PCI}/{device}/aer_dev_{severity}"))
            if count is not None:
                driver = tree.last_of_link(f"{_PCI}/{device}/driver") or ""
                into.add("dspark_pcie_aer_errors_total", count, device=device, driver=driver, severity=severity)


def parse_aer(text: str | None) -> int | None:
    """The total of a file of `NAME COUNT` lines: its own TOTAL line, else the sum; None where no line is one."""
    total = None
    summed: int | None = None
    for line in (text or "").splitlines():
        name, _, number = line.rpartition(" ")
        count = whole(number)
        if not name or count is None or count < 0:
            continue
        if name.startswith("TOTAL_"):
            total = count
        else:
            summed = (summed or 0) + count
    return summed if total is None else total
