"""Free space where images and weights live."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Filesystem, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Filesystem("disk./", "/"), Filesystem("disk./var/lib/docker", "/var/lib/docker"))


class DiskFacts(Fact):
    """One file system, named by the path that was asked. The files are None where it does not count them."""

    path: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    total_files: int | None = None
    free_files: int | None = None

    @property
    def free_gib(self) -> float | None:
        return None if self.free_bytes is None else self.free_bytes / 1024**3

    @property
    def free_files_pct(self) -> float | None:
        """Files that may still be made, as a share of all; None where they are not counted."""
        return None if not self.total_files or self.free_files is None else 100 * self.free_files / self.total_files


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
                    total_files=result.numbers.get("total_files") or None,
                    free_files=result.numbers.get("free_files"),
                )
            )
    return tuple(found) or None
