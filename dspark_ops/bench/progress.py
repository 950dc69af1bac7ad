"""The line of a run's progress, with the time left; the same as the gate's where the two are alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dspark_ops.bench.runner import Progress
from dspark_ops.releases.view import duration

_WIDTH = 24
_EVERY_S = 10.0


def line(progress: Progress) -> str:
    """The bar, blocks done, the time left, what is done now."""
    share = min(1.0, progress.done / progress.total) if progress.total else 0.0
    filled = round(share * _WIDTH)
    parts = [f"[{'#' * filled}{'.' * (_WIDTH - filled)}]"]
    if progress.total:
        parts.append(f"{progress.done} of {progress.total}")
    if progress.left_s is not None:
        parts.append(f"{duration(progress.left_s)} left")
    return "  ".join((*parts, progress.text))


@dataclass
class ProgressLine:
    """Draws the line again in place on a terminal; elsewhere says it when a block is done, and now and then."""

    write: Callable[[str], None]
    in_place: bool
    clock: Callable[[], float] = time.monotonic
    _said_s: float = field(default=float("-inf"))
    _said_done: int = -1
    _drawn: bool = False

    def say(self, progress: Progress) -> None:
        """The state now."""
        if self.in_place:
            self._drawn = True
            self.write(f"\r\x1b[2K{line(progress)[:160]}")
            return
        moment = self.clock()
        if progress.done != self._said_done or moment - self._said_s >= _EVERY_S:
            self._said_s, self._said_done = moment, progress.done
            self.write(line(progress) + "\n")

    def end(self) -> None:
        """Leave the line."""
        if self._drawn:
            self.write("\r\x1b[2K")
