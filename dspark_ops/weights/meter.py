"""How far a long step is, with its rate and the time left: one line now and then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dspark_ops.report.recorder import Progress
from dspark_ops.transport.base import Files
from dspark_ops.transport.ssh import SshRunner

_GIB = float(1 << 30)
_MIB = float(1 << 20)
#: Written by our modules on the node while they move weights.
PROGRESS_FILE = "/run/dspark-model-progress.json"
_EVERY_S = 3.0


def amount(count: float) -> str:
    """Bytes for people."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def line(what: str, done: int, total: int, moved: int, elapsed_s: float) -> str:
    """One line of progress. moved: the bytes of `done` that came in these elapsed_s seconds, which make the rate."""
    rate = moved / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{what}: {amount(done)} of {amount(total)}"
    if rate <= 0:
        return f"{text}, nothing came yet"
    left = duration(max(0, total - done) / rate)
    return f"{text}, {amount(rate)}/s, {left} left"


@dataclass
class Meter:
    """Says a line every few seconds while `add` or `at` is called, from whatever thread."""

    what: str
    total: int
    progress: Progress
    every_s: float = _EVERY_S
    done: int = 0
    _first: int | None = None
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def add(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self.done += count
            self._tell(0)

    def at(self, done: int) -> None:
        """So many bytes in all; those of the first call were there before."""
        with self._lock:
            if self._first is None:
                self._first = done
            self.done = done
            self._tell(self._first)

    def _tell(self, before: int) -> None:
        now = time.monotonic()
        if now - self._said >= self.every_s:
            self._said = now
            self.progress(line(self.what, self.done, self.total, self.done - before, now - self._began))


@contextmanager
def watching(runner: SshRunner, what: str, progress: Progress, every_s: float = _EVERY_S) -> Iterator[None]:
    """Say how far the module on that node is, while the block runs. A node that gives no answer is not waited for."""
    ended = threading.Event()

    def watch() -> None:
        meter: Meter | None = None
        while not ended.wait(every_s):
            told = parse_progress(_ask(runner))
            if told is not None:
                if meter is None or meter.total != told[1]:
                    meter = Meter(what, told[1], progress, every_s=every_s / 2)
                meter.at(told[0])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=15)


def _ask(runner: SshRunner) -> str | None:
    reading = runner.read([Files("weights.progress", (PROGRESS_FILE,))], timeout_s=10)
    return next(iter((reading.get("weights.progress").files or {}).values()), None)


def parse_progress(text: str | None) -> tuple[int, int] | None:
    """Bytes done and in all, or None for anything else than what our modules write."""
    try:
        told = json.loads(text or "")
        return int(told["done_bytes"]), int(told["total_bytes"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
