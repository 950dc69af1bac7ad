"""Each source in a thread of its own: one that hangs is told as stale, and no scrape ever waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dspark_ops.observe.exporter.families import Families

Clock = Callable[[], float]


class SourceError(Exception):
    """A source could not be read; the text is for the log."""


@dataclass(frozen=True)
class Source:
    """One source. read fills what it is given, and raises SourceError or OSError when it could not tell."""

    name: str
    read: Callable[[Families], None]
    interval_s: float


@dataclass(frozen=True)
class Standing:
    """What is known of a source now. families: None when nothing current is known. age_s: since its last success."""

    name: str
    up: bool
    families: Families | None
    age_s: float | None
    duration_s: float | None
    errors: int


class Poller:
    """One source's thread and its last result."""

    def __init__(self, source: Source, stale_after_s: float, log: Callable[[str], None], clock: Clock) -> None:
        self.source = source
        self._stale_after_s = stale_after_s
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._families: Families | None = None
        self._at: float | None = None
        self._failed = False
        self._told: str | None = None
        self._duration_s: float | None = None
        self._errors = 0

    def once(self) -> None:
        """Read the source now. Only its own failure is caught, whatever it is: the others go on."""
        begun = self._clock()
        families = Families()
        problem: str | None = None
        try:
            self.source.read(families)
        except Exception as error:  # a source fails alone
            problem = f"{type(error).__name__}: {error}"
        ended = self._clock()
        with self._lock:
            self._duration_s = ended - begun
            self._failed = problem is not None
            if problem is None:
                # The reading is as old as its beginning.
                self._families, self._at = families, begun
            else:
                self._errors += 1
            changed, self._told = problem != self._told, problem
        if changed:
            self._log(f"{self.source.name}: {problem or 'read again'}")

    def standing(self) -> Standing:
        """What is known now; never waits for a reading."""
        with self._lock:
            age = None if self._at is None else max(0.0, self._clock() - self._at)
            fresh = age is not None and age <= self._stale_after_s and not self._failed
            return Standing(
                self.source.name, fresh, self._families if fresh else None, age, self._duration_s, self._errors
            )

    def start(self, stop: threading.Event) -> None:
        """Read it again and again in a thread that does not outlive the process."""
        threading.Thread(target=self._run, args=(stop,), name=f"source-{self.source.name}", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            begun = self._clock()
            self.once()
            stop.wait(max(0.5, self.source.interval_s - (self._clock() - begun)))


def make_pollers(
    sources: list[Source], stale_after_s: float, log: Callable[[str], None], clock: Clock = time.monotonic
) -> list[Poller]:
    """A poller for each source."""
    return [Poller(source, stale_after_s, log, clock) for source in sources]
