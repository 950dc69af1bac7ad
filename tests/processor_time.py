"""A limit of processor time around a block: what hangs is ended, and a busy machine ends nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def limited(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """End the block with the error after so many processor seconds of this process."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
