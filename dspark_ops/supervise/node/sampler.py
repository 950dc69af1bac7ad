"""A thread that asks one thing again and again and keeps the last answer, so that nothing it asks holds up the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Sample(Generic[T]):
    """An answer. began_s, ended_s: monotonic seconds around the asking."""

    value: T
    began_s: float
    ended_s: float


class Sampler(Generic[T]):
    """Asks every so many seconds, at once when poked, and tells when an answer came.

    ask: bounded in time by itself; what it raises counts as no answer.
    """

    def __init__(self, name: str, every_s: float, ask: Callable[[], T], news: Callable[[], None]) -> None:
        self.name = name
        self.every_s = every_s
        self._ask = ask
        self._news = news
        self._last: Sample[T] | None = None
        self._busy_since: float | None = None
        self._poked = threading.Event()
        self._stopped = False
        #: What `ask` raised the last time, None when it did not.
        self.problem: str | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def ask_every(self, every_s: float) -> None:
        """Another rhythm; a quicker one begins now."""
        sooner, self.every_s = every_s < self.every_s, every_s
        if sooner:
            self.poke()

    def poke(self) -> None:
        """Ask now, or once more as soon as the present asking has ended."""
        self._poked.set()

    def stop(self) -> None:
        self._stopped = True
        self._poked.set()

    def last(self, no_older_than_s: float) -> Sample[T] | None:
        """The last answer, None when there is none so young."""
        sample = self._last
        return sample if sample is not None and time.monotonic() - sample.ended_s <= no_older_than_s else None

    def busy_s(self) -> float:
        """For how long the present asking takes already."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _run(self) -> None:
        while not self._stopped:
            self._poked.clear()
            began = self._busy_since = time.monotonic()
            try:
                value = self._ask()
                self._last, self.problem = Sample(value, began, time.monotonic()), None
            except Exception as error:
                self.problem = repr(error)
            self._busy_since = None
            self._news()
            self._poked.wait(max(0.02, began + self.every_s - time.monotonic()))
