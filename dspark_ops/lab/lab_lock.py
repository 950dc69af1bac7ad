"""One `lab up` or `lab down` at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dspark_ops.errors import RefusedError

_POLL_S = 0.5


@contextmanager
def lab_lock(path: Path, *, wait_s: float, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock for the block. Another holder is waited for, and named; after `wait_s` it is a refusal.

    The file may be unlinked inside the block (`lab down` leaves nothing): a waiter that then gets a lock on the
    unlinked file notices and starts over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise RefusedError(
                    f"another dspark-ops lab command (pid {holder}) has been running for {wait_s:.0f} s",
                    hint="wait for it, or end it; an interrupted `lab up` is finished by the next one",
                ) from None
            if not told:
                progress(f"waiting for another dspark-ops lab command (pid {holder})")
                told = True
            time.sleep(_POLL_S)
            continue
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
