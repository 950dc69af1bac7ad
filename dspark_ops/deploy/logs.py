"""The logs of both ranks on one timeline, by Docker's own time stamps."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Iterator

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.errors import DsparkError, NoVerdictError
from dspark_ops.facts.rank import RANK_CONTAINER
from dspark_ops.transport.base import Command
from dspark_ops.transport.ssh import SshRunner, open_runner

# A line waits this long for an earlier one of the other rank: the two sessions deliver at their own pace.
_SETTLE_S = 0.3
_Item = tuple[Role, str | DsparkError | None]


def pair_logs(loaded: LoadedSite, *, tail: int, follow: bool) -> Iterator[str]:
    """Yield `TIME RANK TEXT` lines of both ranks in the order of time; follow: until the caller stops.

    Raises:
        NoVerdictError: neither node can be reached. One that cannot is named in a line of its own.
    """
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    arrived: queue.Queue[_Item] = queue.Queue(maxsize=10_000)
    for role, runner in runners.items():
        threading.Thread(target=_pump, args=(role, runner, tail, follow, arrived), daemon=True).start()
    try:
        yield from _merge(arrived)
    finally:
        for runner in runners.values():
            runner.close()


def _pump(role: Role, runner: SshRunner, tail: int, follow: bool, arrived: queue.Queue[_Item]) -> None:
    argv = ["docker", "logs", "--timestamps", "--tail", str(tail), *(["--follow"] if follow else []), RANK_CONTAINER]
    try:
        for line in runner.stream(Command("logs", tuple(argv), root=True)):
            arrived.put((role, line))
    except DsparkError as error:
        arrived.put((role, error))
    finally:
        arrived.put((role, None))


def _merge(arrived: queue.Queue[_Item]) -> Iterator[str]:
    waiting: list[tuple[str, int, str, float]] = []
    open_roles, failures, count = set(ROLES), [], 0
    while open_roles or waiting:
        try:
            role, item = arrived.get(timeout=0.1)
            if item is None:
                open_roles.discard(role)
            elif isinstance(item, DsparkError):
                failures.append(item)
                yield f"-- {role}: {item.message}"
            else:
                stamp, _, text = item.partition(" ")
                count += 1
                heapq.heappush(waiting, (stamp, count, f"{stamp[:23]} {role:<6} {text}", time.monotonic()))
        except queue.Empty:
            pass
        while waiting and (not open_roles or time.monotonic() - waiting[0][3] > _SETTLE_S):
            yield heapq.heappop(waiting)[2]
    if len(failures) == len(ROLES):
        raise NoVerdictError("neither node could be reached", hint=failures[0].hint)
