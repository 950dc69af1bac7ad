"""Tenants: who comes first, what is still missing, whether memory came back. Pure functions over what a node says."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

# What may stay away of the memory that a tenant held: other programs breathe meanwhile.
TOLERANCE = 0.15
TOLERANCE_FLOOR_KIB = 64 * 1024
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "busybox"})
_LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
}
ACTIVE = ("active", "activating", "reloading")


class TenantError(Exception):
    """One tenant that cannot be stopped or brought back. outcome: the word of the result; the message is a sentence."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def parse_depends_on(label: str | None) -> dict[str, str]:
    """Compose's label `com.docker.compose.depends_on`: service to condition, as `db:service_healthy:false,cache`."""
    found: dict[str, str] = {}
    for part in (label or "").split(","):
        service, _, rest = part.strip().partition(":")
        if service:
            found[service] = rest.split(":", 1)[0] or "service_started"
    return found


def start_order(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Members so that what a service depends on comes before it; a circle keeps the order it had."""
    left, done, ordered = list(members), set(), []
    names = {member.get("service") for member in members}
    while left:
        free = [m for m in left if not (set(m.get("depends_on") or {}) & names) - done - {m.get("service")}]
        for member in free or left[:1]:
            ordered.append(member)
            left.remove(member)
        done |= {member.get("service") for member in ordered if member not in left}
    return ordered


def restart_argument(policy: str | None, retries: int | None) -> str:
    """What `docker update --restart` takes."""
    if policy == "on-failure" and retries:
        return f"on-failure:{retries}"
    return policy or "no"


def parse_show(text: str) -> dict[str, str]:
    """The properties of `systemctl show`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {pair[0]: pair[1] for pair in pairs}


def parse_stat(text: str) -> dict[str, Any] | None:
    """The parts of /proc/PID/stat that matter; None when it is not whole. start_ticks: field 22."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    try:
        return {
            "pid": int(head.split("(", 1)[0]),
            "state": fields[0],
            "ppid": int(fields[1]),
            "group": int(fields[2]),
            "session": int(fields[3]),
            "start_ticks": int(fields[19]),
        }
    except (ValueError, IndexError):
        return None


def parse_kib(text: str, *names: str) -> int | None:
    """The sum of named `NAME:  N kB` lines; None when none of them is there."""
    found = None
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if name in names and words and words[0].isdigit():
            found = (found or 0) + int(words[0])
    return found


def parse_environ(raw: bytes) -> dict[str, str]:
    """/proc/PID/environ; bytes that are no UTF-8 are kept as surrogates."""
    pairs = (part.split(b"=", 1) for part in raw.split(b"\0") if b"=" in part)
    return {pair[0].decode("utf-8", "surrogateescape"): pair[1].decode("utf-8", "surrogateescape") for pair in pairs}


def parse_argv(raw: bytes) -> list[str]:
    """/proc/PID/cmdline."""
    if not raw:
        return []
    return [part.decode("utf-8", "surrogateescape") for part in raw.removesuffix(b"\0").split(b"\0")]


def parse_limits(text: str) -> dict[str, list[int]]:
    """/proc/PID/limits as soft and hard limit by the names of Python's `resource`; -1 is unlimited."""
    found = {}
    for line in text.splitlines():
        name = _LIMITS.get(line[:26].strip())
        words = line[26:].split()
        if name and len(words) >= 2:
            found[name] = [-1 if word == "unlimited" else int(word) for word in words[:2]]
    return found


def restarts_children(argv: list[str]) -> bool:
    """Whether a parent is a shell that runs a script, so that it may start its child again; a login shell does not."""
    if not argv or PurePosixPath(argv[0]).name not in _SHELLS:
        return False
    return any(not word.startswith("-") for word in argv[1:])


def tolerance_kib(held_kib: int) -> int:
    """How much of the memory may stay away."""
    return max(int(held_kib * TOLERANCE), TOLERANCE_FLOOR_KIB)


def returned(held_kib: int, before_kib: int, after_kib: int) -> bool:
    """Whether MemAvailable has grown by what was held, less the tolerance; at least by half of a small holding."""
    return after_kib - before_kib >= max(held_kib - tolerance_kib(held_kib), held_kib // 2)


def drop_in(user: str | None, record: str) -> str:
    """The text that keeps a unit from starting, whoever asks: a socket, a timer, a dependency or a boot."""
    condition = f"ConditionUser=!{user}" if user else f"ConditionPathExists=!{record}"
    return (
        "# Written by dspark-ops: the unit was stopped by consent to make room and is owed a restart.\n"
        "# `dspark-ops tenants restore` removes this file and starts the unit again. Its enablement was not changed.\n"
        f"[Unit]\n{condition}\n"
    )


def lines(told: dict[str, Any]) -> str:
    """A description for a diff, one line each."""
    return "".join(f"{key}: {value}\n" for key, value in told.items())
