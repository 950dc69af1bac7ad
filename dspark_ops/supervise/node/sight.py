"""What this node sees of itself, as one document: its container, memory, clock, kernel log, GPU, ports."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dspark_ops.supervise.node import containers, holders, kernel_log, last_boot
from dspark_ops.supervise.node.commands import run


def look_here(
    *, ports: Sequence[int] = (), slow: bool = False, gone_id: str | None = None, proc: Path = Path("/proc")
) -> dict[str, Any]:
    """One look. Each part fails alone: it is then null, and `problems` says why.

    slow: also ask what need not be known every few seconds (clock, GPU, last boot). gone_id: a container that was
    removed; its processes that are still there are told like those of one that has ended. ports: `taken` tells which
    of them somebody listens on; who does, who holds much memory, and what the last rank left is told while ours does
    not run.
    """
    problems: dict[str, str] = {}
    seen: dict[str, Any] = {
        "wall": time.time(),
        "boot_s": time.clock_gettime(time.CLOCK_BOOTTIME),
        "boot_id": _text(proc / "sys/kernel/random/boot_id"),
        "mem_available_bytes": mem_available(read_meminfo(proc)),
        "taken": taken_ports(ports, proc),
        "port_holders": [],
        "memory_holders": [],
        "left": [],
        "container": None,
        "container_known": False,
        "kernel": None,
    }
    asked: dict[str, Callable[[], Any]] = {"container": _container, "kernel": _kernel}
    if slow:
        asked |= {"clock_synced": clock_synced, "gpu": gpu, "ended_in_order": last_boot.ended_in_order}
    answers = _each(asked, 10.0)
    for name, answer in answers.items():
        if isinstance(answer, Exception):
            problems[name] = str(answer)
        else:
            seen[name] = answer
    seen["container_known"] = "container" not in problems
    found = seen["container"]
    if seen["container_known"] and not (found and found["running"]):
        ended = (found or {}).get("id") or gone_id
        unread = ["nobody can tell: the tables of sockets cannot be read"]
        seen["port_holders"] = unread if seen["taken"] is None else holders.of_ports(seen["taken"], proc)
        seen["memory_holders"] = holders.of_memory(proc)
        seen["left"] = holders.of_ended(ended, proc)
    seen["problems"] = problems
    return seen


def _container() -> dict[str, Any] | None:
    found = containers.look()
    return None if found is None else found.document()


def _kernel() -> list[dict[str, Any]] | None:
    lines = kernel_log.read_lines()
    return None if lines is None else [dict(vars(line)) for line in kernel_log.fatal_lines(lines)]


def read_meminfo(proc: Path = Path("/proc")) -> str | None:
    """The text of /proc/meminfo."""
    return _text(proc / "meminfo")


def mem_available(meminfo: str | None) -> int | None:
    """MemAvailable in bytes; None when the text does not say."""
    for line in (meminfo or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "MemAvailable:" and words[1].isdecimal() and words[2] == "kB":
            return int(words[1]) * 1024
    return None


def taken_ports(ports: Sequence[int], proc: Path = Path("/proc")) -> list[int] | None:
    """Which of the ports somebody listens on, under any address; None when the tables cannot be read."""
    if not ports:
        return []
    table = holders.listeners(proc)
    return None if table is None else sorted(set(table) & set(ports))


def clock_synced() -> bool | None:
    """Whether the kernel's clock is held by NTP; None when nobody can tell."""
    done = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], timeout_s=4.0)
    return {"yes": True, "no": False}.get(done.out.strip()) if done.ok else None


def gpu() -> dict[str, float | None] | None:
    """Power in watts and utilisation in percent of the GPU; None without one that answers. N/A is None, never 0."""
    done = run(["nvidia-smi", "--query-gpu=power.draw,utilization.gpu", "--format=csv,noheader,nounits"], timeout_s=6.0)
    if not done.ok:
        return None
    words = [word.strip() for word in done.out.splitlines()[0].split(",")] if done.out.strip() else []
    if len(words) != 2:
        return None
    return {"power_w": _number(words[0]), "util_pct": _number(words[1])}


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if value == value and abs(value) < 1e9 else None


def _each(asked: dict[str, Callable[[], Any]], limit_s: float) -> dict[str, Any]:
    """Ask side by side, so that one that is slow does not make the others old."""
    answers: dict[str, Any] = {name: TimeoutError(f"no answer within {limit_s:g} s") for name in asked}

    def ask(name: str, what: Callable[[], Any]) -> None:
        try:
            answers[name] = what()
        except Exception as error:
            answers[name] = error

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in asked.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
