"""One verb at a time per site: a lock that dies with its holders, and that says who they are."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.paths import state_dir

_POLL_S = 0.2


class _Held:
    """Descriptors of the locks this process holds: children inherit them, so a survivor keeps the lock."""

    descriptors: list[int] = []  # noqa: RUF012 (one list per process is the point)


def inherited_descriptors() -> tuple[int, ...]:
    """What a child must inherit for the lock to outlive us as long as the child lives."""
    return tuple(_Held.descriptors)


@contextlib.contextmanager
def site_lock(
    name: str, *, verb: str | None = None, wait_s: float = 60, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock of a site. Waits while another verb holds it and says so once through `on_wait`.

    The kernel drops the lock when the last holder ends, however it ends: there is no stale lock to remove.

    Raises:
        RefusedError: still busy after wait_s, naming the holder.
        NoVerdictError: the lock directory cannot be written.
    """
    descriptor = _open(_path(name))
    try:
        _acquire(descriptor, name, wait_s, on_wait)
        _write_holder(descriptor, verb or _verb_of_process())
        _Held.descriptors.append(descriptor)
        try:
            yield
        finally:
            _Held.descriptors.remove(descriptor)
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ValueError(f"not a lock name: {name!r}")
    return state_dir() / "locks" / f"{name}.lock"


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoVerdictError(
            f"the lock {path} cannot be opened: {error.strerror or error}",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error


def _acquire(descriptor: int, name: str, wait_s: float, on_wait: Callable[[str], None] | None) -> None:
    until = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(descriptor)
            if time.monotonic() >= until:
                raise RefusedError(
                    f"site {name!r} is busy: {holder} holds its lock (waited {wait_s:g} s)",
                    hint="wait for it to end, or end it, and run again",
                ) from None
            if on_wait is not None and not told:
                on_wait(f"waiting for {holder}, which works on site {name!r}")
                told = True
            time.sleep(_POLL_S)
        else:
            return


def _write_holder(descriptor: int, verb: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "verb": verb}).encode(), 0)


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        pid, verb = int(holder["pid"]), str(holder["verb"])
    except (ValueError, KeyError, TypeError):
        return "another dspark-ops"
    if Path(f"/proc/{pid}").exists():
        return f"pid {pid} (dspark-ops {verb})"
    return f"what pid {pid} (dspark-ops {verb}, itself gone) left running"


def _verb_of_process() -> str:
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "?")
