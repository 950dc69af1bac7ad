"""How far a long transfer is, in a small file that is read while it runs; and its end when nobody listens any more."""

from __future__ import annotations

import contextlib
import json
import select
import sys
import threading
from pathlib import Path
from types import TracebackType

PROGRESS = Path("/run/dspark-model-progress.json")
_EVERY_S = 0.5


class Progress:
    """Counts bytes of several threads. `stop` is set when the run that started us is gone: its end of our output is
    closed, and a transfer that nobody waits for would hold the cache against the next run.
    """

    def __init__(self, what: str, total: int, path: Path = PROGRESS, *, listener: int | None = None) -> None:
        self.stop = threading.Event()
        self.orphaned = False
        self._what, self._total, self._path = what, total, path
        self._done, self._lock, self._ended = 0, threading.Lock(), threading.Event()
        self._listener = listener
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count

    def __enter__(self) -> Progress:
        if self._listener is None:
            with contextlib.suppress(OSError, ValueError):
                self._listener = sys.__stdout__.fileno() if sys.__stdout__ is not None else None
        self._tell()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._tell()
            if not self.stop.is_set() and self._nobody_listens():
                self.orphaned = True
                self.stop.set()

    def _tell(self) -> None:
        document = {"what": self._what, "done_bytes": self._done, "total_bytes": self._total}
        fresh = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps(document), encoding="utf-8")
            fresh.replace(self._path)

    def _nobody_listens(self) -> bool:
        if self._listener is None:
            return False
        poll = select.poll()
        poll.register(self._listener, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
