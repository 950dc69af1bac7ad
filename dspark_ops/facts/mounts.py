"""Where file systems are mounted, of which kind, and whether they may be written."""

from __future__ import annotations

from pathlib import PurePosixPath

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Files("mounts.table", ("/proc/self/mounts",), max_bytes=1 << 18),)

_PSEUDO = frozenset(
    {
        *("proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "pstore"),
        *(
            "bpf",
            "configfs",
            "fusectl",
            "hugetlbfs",
            "autofs",
            "binfmt_misc",
            "rpc_pipefs",
            "nsfs",
            "efivarfs",
            "devtmpfs",
        ),
    }
)
_KEPT = 256


class MountFacts(Fact):
    """One mount. kind: as ext4, overlay, nfs4, tmpfs."""

    path: str
    kind: str
    read_only: bool


def parse_mounts(text: str | None) -> tuple[MountFacts, ...] | None:
    """The mounts of /proc/self/mounts that hold files; a later one of the same path hides an earlier one."""
    if text is None:
        return None
    found: dict[str, MountFacts] = {}
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) < 4 or words[2] in _PSEUDO or not words[1].startswith("/"):
            continue
        # The layers of containers are hundreds, and none of them is asked about.
        if (words[2] == "overlay" and words[1] != "/") or words[1].startswith(("/run/docker/", "/snap/")):
            continue
        path = words[1].replace("\\040", " ")
        found[path] = MountFacts(path=path, kind=words[2], read_only="ro" in words[3].split(","))
    return tuple(found.values())[:_KEPT] if found else None


def mount_of(mounts: tuple[MountFacts, ...], path: str) -> MountFacts | None:
    """The mount that a path lies on: the one with the longest path above it."""
    above = {str(PurePosixPath(path)), *map(str, PurePosixPath(path).parents)}
    return max((m for m in mounts if m.path in above), key=lambda m: len(m.path), default=None)


def read_mounts(reading: NodeReading) -> tuple[MountFacts, ...] | None:
    """The mounts of a reading."""
    return parse_mounts((reading.get("mounts.table").files or {}).get("/proc/self/mounts"))
