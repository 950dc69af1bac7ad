"""Time that jumps: an event loop whose clock stands still while anything can run, and leaps to the next timer when
nothing can. A run of hours takes the seconds of its own work, and is the same each time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# So long a thread is waited for at a time, in real seconds; its end wakes the loop at once.
_THREAD_WAIT_S = 1.0


class Stuck(RuntimeError):  # noqa: N818
    """Everything waits for something that nothing in the loop will bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asks for what is ready; with nothing ready it moves the loop's clock instead of sleeping."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.threads_at_work:
            return super().select(_THREAD_WAIT_S)
        if timeout is None:
            raise Stuck("virtual time: everything waits and no timer is set; nothing can ever happen")
        self.loop.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual `time()`. Threads (`run_in_executor`) are real: time stands still until they end.

    Nothing outside may wake it: sockets and subprocesses belong to real time.
    """

    def __init__(self, begin: float = 1000.0) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = begin
        self.threads_at_work = 0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the clock on."""
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        self.threads_at_work += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self.threads_at_work -= 1

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self.threads_at_work -= 1


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in virtual time. Stuck where everything waits for ever."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
