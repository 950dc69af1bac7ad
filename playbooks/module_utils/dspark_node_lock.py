"""One at a time on a node: waiting for a file lock that a killed run loses by itself."""

from __future__ import annotations

import fcntl
import time

_POLL_S = 0.5


def lock_within(descriptor: int, wait_s: float) -> bool:
    """Take the exclusive lock of an open file; False when another process still holds it after wait_s seconds."""
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(min(_POLL_S, wait_s))
        else:
            return True
