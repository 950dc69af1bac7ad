"""The ends of the logs of both nodes, bounded in size and time. What could not be had is said, never waited for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import DsparkError
from dspark_ops.transport.base import Command
from dspark_ops.transport.ssh import SshRunner

LINES = 5000
KERNEL_LINES = 3000
LIMIT_BYTES = 4 << 20
TIMEOUT_S = 45.0
_LONGEST_LINE = 8192


@dataclass(frozen=True)
class LogEnd:
    """The end of one log. problem: why there is none, or not all of what was asked for."""

    text: str
    problem: str | None = None


def wanted(container: str) -> dict[str, Command]:
    """What is read on a node, by the name of its file."""
    since_boot = ("--no-pager", "-o", "short-iso-precise", "-b")
    return {
        "rank.log": Command("logs", ("docker", "logs", "--timestamps", "--tail", str(LINES), container), root=True),
        "kernel.log": Command("kernel", ("journalctl", "-k", "-n", str(KERNEL_LINES), *since_boot), root=True),
        "system-warnings.log": Command(
            "journal", ("journalctl", "-p", "warning", "-n", str(KERNEL_LINES), *since_boot), root=True
        ),
    }


def read_ends(
    runners: Mapping[Role, SshRunner],
    containers: Mapping[Role, str | None],
    *,
    timeout_s: float = TIMEOUT_S,
    limit_bytes: int = LIMIT_BYTES,
) -> dict[tuple[Role, str], LogEnd]:
    """The ends of all logs of the nodes of `runners`, side by side. A node without a container has no rank's log."""
    jobs: list[tuple[Role, str, Command]] = []
    for role in ROLES:
        if role not in runners:
            continue
        container = containers.get(role)
        for name, command in wanted(container or "").items():
            if name != "rank.log" or container is not None:
                jobs.append((role, name, command))
    with ThreadPoolExecutor(max_workers=len(jobs) or 1) as pool:
        pending = [
            pool.submit(read_end, runners[role], command, timeout_s=timeout_s, limit_bytes=limit_bytes)
            for role, _, command in jobs
        ]
        return {(role, name): future.result() for (role, name, _), future in zip(jobs, pending, strict=True)}


def read_end(
    runner: SshRunner, command: Command, *, timeout_s: float = TIMEOUT_S, limit_bytes: int = LIMIT_BYTES
) -> LogEnd:
    """The last lines of a program's output; a program that does not end is left after timeout_s with what it said."""
    lines: deque[str] = deque()
    state = _State()

    def pump() -> None:
        try:
            for line in runner.stream(command):
                if state.stopped:
                    return
                _keep(lines, state, line, limit_bytes)
            state.ended = True
        except DsparkError as error:
            state.problem = error.message
        except Exception as error:  # a session that breaks, a byte that is no text: this log ends here, and says so
            state.problem = f"broke off: {type(error).__name__}: {error}; what came until then is here"

    worker = threading.Thread(target=pump, daemon=True)
    worker.start()
    worker.join(timeout_s)
    state.stopped = True
    problem = state.problem
    if problem is None and not state.ended:
        problem = f"no end within {timeout_s:g} s; what came until then is here"
    if problem is None and state.dropped:
        problem = f"longer than {limit_bytes >> 20} MiB; {state.dropped} earlier lines are left out"
    return LogEnd("".join(f"{line}\n" for line in tuple(lines)), problem)


@dataclass
class _State:
    ended: bool = False
    stopped: bool = False
    size: int = 0
    dropped: int = 0
    problem: str | None = None


def _keep(lines: deque[str], state: _State, line: str, limit_bytes: int) -> None:
    kept = line[:_LONGEST_LINE]
    lines.append(kept)
    state.size += len(kept) + 1
    while state.size > limit_bytes and len(lines) > 1:
        state.size -= len(lines.popleft()) + 1
        state.dropped += 1


def problems_of(ends: Mapping[tuple[Role, str], LogEnd]) -> Sequence[str]:
    """What is not whole, in words."""
    return [f"{role} {name}: {end.problem}" for (role, name), end in ends.items() if end.problem is not None]
