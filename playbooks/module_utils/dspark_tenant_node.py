"""Tenants: programs and processes of the node, read and asked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_tenant_rules import TenantError, parse_argv, parse_kib, parse_stat

PROC = Path("/proc")
_POLL_S = 0.2


def attempt(*argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """One program, whatever its exit code.

    Raises:
        TenantError: it is not there or does not end.
    """
    env = dict(os.environ, LC_ALL="C.UTF-8")
    try:
        return subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise TenantError("failed", f"there is no {argv[0]} command here [tenant.owner]") from None
    except subprocess.TimeoutExpired:
        raise TenantError("failed", f"{' '.join(argv[:3])} did not end within {timeout_s:g} s [tenant.owner]") from None


def must(*argv: str, timeout_s: float = 60) -> str:
    """One program that has to succeed; its output."""
    done = attempt(*argv, timeout_s=timeout_s)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise TenantError("failed", f"{' '.join(argv)} failed: {said} [tenant.owner]")
    return done.stdout


def wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until it is so; False when the time is over."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)
    return True


def available_kib() -> int | None:
    """MemAvailable, the only number to trust."""
    return parse_kib((PROC / "meminfo").read_text(), "MemAvailable")


def processes() -> dict[int, dict[str, Any]]:
    """Every process that runs, by pid; zombies hold nothing and are left out."""
    found = {}
    for path in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stat = parse_stat(path.read_text(errors="replace"))
            if stat is not None and stat["state"] not in ("Z", "X"):
                found[stat["pid"]] = stat
    return found


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether this very process runs; another one under a reused pid is not it."""
    try:
        stat = parse_stat((PROC / str(pid) / "stat").read_text(errors="replace"))
    except OSError:
        return False
    return stat is not None and stat["start_ticks"] == start_ticks and stat["state"] not in ("Z", "X")


def tree(roots: set[int], table: dict[int, dict[str, Any]]) -> set[int]:
    """The processes and all their descendants, with those of a session or group that a root leads."""
    found = {pid for pid in roots if pid in table}
    leaders = set(found)
    while True:
        more = {
            pid
            for pid, stat in table.items()
            if stat["ppid"] in found or stat["session"] in leaders or stat["group"] in leaders
        }
        if more <= found:
            return found
        found |= more


def in_control_group(path: str) -> set[int]:
    """The processes of a control group and of those below it, in any hierarchy."""
    found = set()
    for file in PROC.glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            for line in file.read_text().splitlines():
                where = line.split(":", 2)[-1]
                if where == path or where.startswith(path + "/"):
                    found.add(int(file.parent.name))
    return found


def held_kib(pids: set[int]) -> int | None:
    """What is given back when these processes end: their anonymous and shared memory, shared pages once.

    Mapped files are left out: their pages count as available already. None when no process could be read.
    """
    total = None
    for pid in pids:
        with contextlib.suppress(OSError):
            text = (PROC / str(pid) / "smaps_rollup").read_text()
            part = parse_kib(text, "Pss_Anon", "Pss_Shmem")
            if part is not None:
                total = (total or 0) + part
    return total


def command_line(pid: int) -> list[str]:
    """Its arguments; empty when it is gone."""
    try:
        return parse_argv((PROC / str(pid) / "cmdline").read_bytes())
    except OSError:
        return []


def send(pid: int, start_ticks: int, number: signal.Signals) -> None:
    """Signal this very process: a handle is taken first and then checked, so that no other one is ever hit."""
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return
    try:
        if is_alive(pid, start_ticks):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
