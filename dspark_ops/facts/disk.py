"""Free space where images and weights live."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Filesystem, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Filesystem("disk./", "/"), Filesystem("disk./var/lib/docker", "/var/lib/docker"))


class DiskFacts(Fact):
    """One file system, named by the path that was asked."""

    path: str
    total_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def free_gib(self) -> float | None:
        return None if self.free_bytes is None else self.free_bytes / 1024**3


def read_disks(reading: NodeReading) -> tuple[DiskFacts, ...] | None:
    """Every file system that was asked; None when none answered."""
    found = []
    for name, result in reading.results.items():
        if name.startswith("disk.") and result.error is None and result.numbers is not None:
            found.append(
                DiskFacts(
                    path=name.removeprefix("disk."),
                    total_bytes=result.numbers.get("total_bytes"),
                    free_bytes=result.numbers.get("free_bytes"),
                )
            )
    return tuple(found) or None
