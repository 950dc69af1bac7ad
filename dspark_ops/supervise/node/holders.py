"""Who stands in the way of a start on this node: listeners on its ports, holders of much memory, what an end left."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from dspark_ops.supervise.node.containers import left_of

_LISTENING = "0A"
_MUCH_KIB = 4 << 20
_MOST = 5


def listeners(proc: Path = Path("/proc")) -> dict[int, set[str]] | None:
    """By port, the sockets (inodes) that listen on it under any address; None when the tables cannot be read."""
    found: dict[int, set[str]] = {}
    readable = False
    for name in ("tcp", "tcp6"):
        with suppress(OSError, ValueError, IndexError):
            text = (proc / "net" / name).read_text(encoding="ascii", errors="replace")
            readable = True
            for line in text.splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING:
                    found.setdefault(int(words[1].rpartition(":")[2], 16), set()).add(words[9])
    return found if readable else None


def of_ports(ports: Collection[int], proc: Path = Path("/proc")) -> list[str]:
    """The holders of these ports, in words; one whose process cannot be found is told all the same."""
    table = listeners(proc) or {}
    wanted = {inode: port for port in ports for inode in table.get(port, ())}
    if not wanted:
        return []
    found: dict[int, str] = {}
    for pid in _pids(proc):
        if len(found) == len(set(wanted.values())):
            break
        with suppress(OSError):
            for handle in os.scandir(proc / str(pid) / "fd"):
                with suppress(OSError):
                    target = os.readlink(handle.path)  # noqa: PTH115 - thousands of them
                    port = wanted.get(target[8:-1]) if target.startswith("socket:[") else None
                    if port is not None:
                        found.setdefault(port, f"port {port}: {_name(pid, proc)} (process {pid})")
    unknown = set(wanted.values()) - set(found)
    return [*found.values(), *(f"port {port}: a process that cannot be seen" for port in sorted(unknown))]


def of_memory(proc: Path = Path("/proc")) -> list[str]:
    """The processes with more than 4 GiB of resident memory, the largest first."""
    found = []
    page_kib = os.sysconf("SC_PAGE_SIZE") // 1024
    for pid in _pids(proc):
        with suppress(OSError, ValueError, IndexError):
            kib = int((proc / str(pid) / "statm").read_text().split()[1]) * page_kib
            if kib >= _MUCH_KIB:
                found.append((kib, pid))
    found.sort(reverse=True)
    return [f"{_name(pid, proc)} (process {pid}) holds {kib / (1 << 20):.1f} GiB" for kib, pid in found[:_MOST]]


def of_ended(container_id: str | None, proc: Path = Path("/proc")) -> list[str]:
    """Processes of a rank that has ended and are still there, as those stuck in a driver: they may hold the GPU.

    One that is only waited for by nobody holds nothing, unless one of its threads is still there.
    """
    if container_id is None:
        return []
    left = [pid for pid in left_of(container_id, proc) if _holds(pid, proc)]
    return [f"{_name(pid, proc)} (process {pid}) is left of the ended rank" for pid in left[:_MOST]]


def _holds(pid: int, proc: Path) -> bool:
    """Whether a thread of the process has not ended. One that went while we looked holds nothing."""
    try:
        threads = os.listdir(proc / str(pid) / "task")  # noqa: PTH208 - names only
    except OSError:
        return False
    for thread in threads:
        with suppress(OSError, IndexError):
            # The name before the state may hold anything but the last closing bracket.
            words = (proc / str(pid) / "task" / thread / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if words[0] not in ("Z", "X"):
                return True
    return False


def _pids(proc: Path) -> list[int]:
    return [int(name) for name in os.listdir(proc) if name.isdecimal()]  # noqa: PTH208 - names only


def _name(pid: int, proc: Path) -> str:
    with suppress(OSError):
        return (proc / str(pid) / "comm").read_text(errors="replace").strip() or "a process"
    return "a process"
