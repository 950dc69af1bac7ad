"""Kernel settings, read where the kernel shows them."""

from __future__ import annotations

from dspark_ops.facts.model import whole_number
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files(
        "sysctl.files",
        (
            "/proc/sys/vm/swappiness",
            "/proc/sys/vm/min_free_kbytes",
            "/proc/sys/net/ipv4/conf/*/rp_filter",
            "/proc/sys/net/ipv4/conf/*/arp_ignore",
            "/proc/sys/net/ipv4/conf/*/arp_announce",
        ),
        max_bytes=64,
    ),
)


def read_sysctl(reading: NodeReading) -> dict[str, int] | None:
    """Setting to value, named by its path below /proc/sys (a device name may hold a dot)."""
    files = reading.get("sysctl.files").files
    if files is None:
        return None
    values = {path.removeprefix("/proc/sys/"): whole_number(text) for path, text in files.items()}
    return {name: value for name, value in values.items() if value is not None}
