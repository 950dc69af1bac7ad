"""/proc/meminfo of the node alone, that follows what the node really uses.

The total is the limit of the node's cgroup; where it has none, a GB10's, of which an idle system's use comes off.
total - what the node's cgroup holds (page cache aside) - claims = MemAvailable. A claim is a file
/run/dspark-lab/claims/<pid> with a number of MiB: a process that stands for one that fills unified memory without the
machine having that much. It counts while the process lives.
"""

from __future__ import annotations

import os
from pathlib import Path

from board import RUN

FILE = RUN / "meminfo"
CLAIMS = RUN / "claims"
TOTAL_KIB = 127_600_748
IDLE_KIB = 3_670_016
SWAP_KIB = 16_777_212
CMA_KIB = 131_072
_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


def prepare() -> None:
    """Write the first figures."""
    CLAIMS.mkdir(parents=True, exist_ok=True)
    refresh()


def refresh() -> None:
    """Write the figures of now, in place: the file is bind-mounted, so it must stay the same file."""
    used, cache = cgroup_use_kib()
    text = render(
        used_kib=used, cache_kib=cache, claimed_kib=sum(claims_mib().values()) * 1024, limit_kib=cgroup_limit_kib()
    )
    descriptor = os.open(FILE, os.O_WRONLY | os.O_CREAT, 0o444)
    try:
        # One write of a text whose length never changes, so a reader never meets a mixture.
        os.pwrite(descriptor, text.encode("ascii"), 0)
    finally:
        os.close(descriptor)


def render(*, used_kib: int, cache_kib: int, claimed_kib: int, limit_kib: int | None = None) -> str:
    """The file's text. MemFree is MemAvailable less the page cache."""
    total = TOTAL_KIB if limit_kib is None else limit_kib
    idle = IDLE_KIB if limit_kib is None else 0
    available = max(0, total - idle - used_kib - claimed_kib)
    cached = min(cache_kib, available)
    fields = {
        "MemTotal": total,
        "MemFree": available - cached,
        "MemAvailable": available,
        "Buffers": 0,
        "Cached": cached,
        "SwapCached": 0,
        "Active": used_kib,
        "Inactive": cached,
        "SwapTotal": SWAP_KIB,
        "SwapFree": SWAP_KIB,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": used_kib,
        "Mapped": 0,
        "Shmem": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SUnreclaim": 0,
        "CommitLimit": total // 2 + SWAP_KIB,
        "Committed_AS": used_kib,
        "VmallocTotal": 133_141_626_880,
        "CmaTotal": CMA_KIB,
        "CmaFree": CMA_KIB // 2,
    }
    return "".join(f"{name + ':':<15} {value:>12} kB\n" for name, value in fields.items())


def cgroup_limit_kib() -> int | None:
    """The limit of the node's own cgroup in KiB, from cgroup v1 or v2; None when it has none."""
    for path in (_V1 / "memory.limit_in_bytes", _V2 / "memory.max"):
        if path.is_file():
            text = path.read_text(encoding="ascii").strip()
            limit = int(text) // 1024 if text.isdigit() else TOTAL_KIB
            # v1 writes "no limit" as the largest number of whole pages.
            return limit if limit < TOTAL_KIB else None
    return None


def cgroup_use_kib() -> tuple[int, int]:
    """(held, page cache) of the node's own cgroup in KiB, from cgroup v1 or v2."""
    usage = _V1 / "memory.usage_in_bytes"
    if usage.is_file():
        stat = _numbers(_V1 / "memory.stat")
        cache = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    else:
        usage = _V2 / "memory.current"
        stat = _numbers(_V2 / "memory.stat")
        cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    held = int(usage.read_text(encoding="ascii")) if usage.is_file() else 0
    return max(0, held - cache) // 1024, cache // 1024


def claims_mib() -> dict[int, int]:
    """Claims of processes that live; those of dead ones are taken off."""
    found: dict[int, int] = {}
    for path in CLAIMS.iterdir() if CLAIMS.is_dir() else ():
        if not path.name.isdigit():
            continue
        if not Path("/proc", path.name).exists():
            path.unlink(missing_ok=True)
            continue
        try:
            found[int(path.name)] = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return found


def _numbers(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    pairs = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
