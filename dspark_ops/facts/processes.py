"""The processes of a node: who they are, whose child, under which control group, how much memory is resident."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, NodeReading, Probe

PROBES: tuple[Probe, ...] = (
    Files("proc.stat", ("/proc/[0-9]*/stat",), max_bytes=1024, root=True),
    Files("proc.status", ("/proc/[0-9]*/status",), max_bytes=2048, root=True),
    Files("proc.cgroup", ("/proc/[0-9]*/cgroup",), max_bytes=4096, root=True),
    Files("proc.cmdline", ("/proc/[0-9]*/cmdline",), max_bytes=8192, root=True),
    # Read by the program that reads all this: its own number.
    Files("proc.self", ("/proc/self/stat",), max_bytes=1024),
    Files("proc.host", ("/proc/stat",)),
    Files("proc.users", ("/etc/passwd",), max_bytes=1 << 20),
)
#: What the kernel counts start times in, per second, on every architecture that Linux runs on today.
TICKS_PER_S = 100
_KERNEL_THREAD = 0x00200000
_PID = re.compile(r"/proc/(\d{1,10})/")


class ProcessFacts(Fact):
    """One process. name: as the kernel has it, at most 15 bytes. argv: empty for a kernel thread or a zombie.

    start_ticks: since the machine's boot. rss_kib: pages that other processes share are in it, as often as they are
    shared. cgroups: the path in every hierarchy, that of systemd (v1) or of v2 first.
    """

    pid: int
    ppid: int
    start_ticks: int
    name: str
    argv: tuple[str, ...] = ()
    uid: int | None = None
    rss_kib: int | None = None
    kernel: bool = False
    cgroups: tuple[str, ...] = ()


class ResidentFacts(Fact):
    """`smaps_rollup` in KiB. pss: each shared page by its share. file: of it, pages of files, which can be dropped."""

    pss_kib: int
    file_kib: int | None = None


def parse_stat(text: str | None) -> ProcessFacts | None:
    """`/proc/PID/stat`; the name is in parentheses and may hold any byte, parentheses too."""
    if text is None:
        return None
    front, opened, rest = text.partition("(")
    name, closed, tail = rest.rpartition(")")
    fields = tail.split()
    pid = whole_number(front)
    if not opened or not closed or pid is None or len(fields) < 20:
        return None
    ppid, flags, ticks = (whole_number(fields[index]) for index in (1, 6, 19))
    if ppid is None or ticks is None:
        return None
    return ProcessFacts(
        pid=pid, ppid=ppid, start_ticks=ticks, name=name, kernel=bool((flags or 0) & _KERNEL_THREAD) or pid == 2
    )


def parse_cgroup(text: str | None) -> tuple[str, ...]:
    """The paths of `/proc/PID/cgroup`: those that systemd keeps first, each once."""
    named: list[tuple[int, str]] = []
    for line in (text or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            rank = 0 if parts[1] == "name=systemd" else 1 if parts[1] == "" else 2
            named.append((rank, parts[2]))
    return tuple(dict.fromkeys(path for _, path in sorted(named, key=lambda item: item[0])))


def parse_cmdline(text: str | None) -> tuple[str, ...]:
    """The arguments. A process that titled itself has one, with blanks and NULs behind it."""
    words = (text or "").rstrip("\0 ").split("\0")
    return tuple(words) if words != [""] else ()


def parse_rollup(text: str | None) -> ResidentFacts | None:
    """`smaps_rollup`; None where there is no figure, as of a process that ended meanwhile."""
    found = {key: int(number) for key, number in re.findall(r"^(\w+):\s+(\d{1,15}) kB$", text or "", re.MULTILINE)}
    return ResidentFacts(pss_kib=found["Pss"], file_kib=found.get("Pss_File")) if "Pss" in found else None


def parse_users(text: str | None) -> dict[int, str]:
    """User names of `/etc/passwd` by number; the first of a number counts."""
    found: dict[int, str] = {}
    for line in (text or "").splitlines():
        parts = line.split(":")
        if len(parts) >= 3 and parts[0] and parts[2].isascii() and parts[2].isdecimal() and len(parts[2]) < 11:
            found.setdefault(int(parts[2]), parts[0])
    return found


def parse_boot_time(text: str | None) -> int | None:
    """When the machine started, in seconds since 1970: the line `btime` of `/proc/stat`."""
    found = re.search(r"^btime (\d{1,12})$", text or "", re.MULTILINE)
    return int(found[1]) if found else None


def parse_processes(
    stats: Mapping[str, str], statuses: Mapping[str, str], cgroups: Mapping[str, str], cmdlines: Mapping[str, str]
) -> tuple[ProcessFacts, ...]:
    """The processes of which state and control group were read; one that ended meanwhile is not there."""
    found = []
    for path, text in stats.items():
        process = parse_stat(text)
        place = path.removesuffix("stat")
        if process is None or place + "status" not in statuses or place + "cgroup" not in cgroups:
            continue
        status = statuses[place + "status"]
        resident = re.search(r"^VmRSS:\s+(\d{1,15}) kB$", status, re.MULTILINE)
        user = re.search(r"^Uid:\s+(\d{1,10})\b", status, re.MULTILINE)
        found.append(
            process.model_copy(
                update={
                    "argv": parse_cmdline(cmdlines.get(place + "cmdline")),
                    "uid": int(user[1]) if user else None,
                    "rss_kib": int(resident[1]) if resident else None,
                    "cgroups": parse_cgroup(cgroups[place + "cgroup"]),
                }
            )
        )
    return tuple(found)


def read_processes(reading: NodeReading) -> tuple[ProcessFacts, ...] | None:
    """The processes of a reading; None when they could not be read."""
    parts = [reading.get(f"proc.{part}").files for part in ("stat", "status", "cgroup", "cmdline")]
    if any(part is None for part in parts):
        return None
    processes = parse_processes(*(part or {} for part in parts))
    return processes or None


def read_resident(reading: NodeReading, probe: str = "proc.rollup") -> dict[int, ResidentFacts]:
    """By process, what `rollup_probe` saw."""
    found: dict[int, ResidentFacts] = {}
    for path, text in (reading.get(probe).files or {}).items():
        number, resident = _PID.match(path), parse_rollup(text)
        if number is not None and resident is not None:
            found[int(number[1])] = resident
    return found


def rollup_probe(pids: tuple[int, ...], probe: str = "proc.rollup") -> Files:
    """The resident memory of processes, shared pages by their share: only root may read it of all of them."""
    return Files(probe, tuple(f"/proc/{pid}/smaps_rollup" for pid in pids), max_bytes=2048, root=True)
