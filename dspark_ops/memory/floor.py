"""The floor that is watched from launch until ready: below it both ranks are stopped before the host hangs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dspark_ops.config.models import Role, Site
from dspark_ops.facts.memory import PROBES, read_memory
from dspark_ops.transport.base import NodeReading, Probe

#: A reading below the floor may be a moment of loading; two in a row, or one below half of it, are not.
_CROSSINGS = 2
#: Readings without a figure before it is said that nobody watches.
_UNREAD_LIMIT = 5


def _unheard(_: str) -> None:
    """Warnings that nobody reads."""


@dataclass
class FloorWatch:
    """Judges `MemAvailable` of one reading after the other against `guards.memory_floor_gib`, per node.

    warn is told, once per spell, of a node whose figure cannot be read: that is no crossing, and no watch either.
    """

    site: Site
    warn: Callable[[str], None] = _unheard
    lowest_gib: dict[Role, float] = field(default_factory=dict)
    _below: dict[Role, int] = field(default_factory=dict)
    _unread: dict[Role, int] = field(default_factory=dict)

    @staticmethod
    def probes() -> tuple[Probe, ...]:
        """What a reading must hold: one small file."""
        return PROBES

    def judge(self, role: Role, reading: NodeReading) -> str | None:
        """`worker: 3.1 GiB of memory available, the floor is 4 GiB` once the floor is crossed, else None."""
        floor_gib = self.site.guards.memory_floor_gib
        memory = read_memory(reading)
        available_gib = memory.available_gib if memory is not None else None
        if available_gib is None:
            self._unread[role] = self._unread.get(role, 0) + 1
            if self._unread[role] == _UNREAD_LIMIT:
                self.warn(
                    f"{role}: MemAvailable could not be read {_UNREAD_LIMIT} times in a row; its floor is unwatched"
                )
            return None
        self._unread[role] = 0
        self.lowest_gib[role] = min(available_gib, self.lowest_gib.get(role, available_gib))
        self._below[role] = self._below.get(role, 0) + 1 if available_gib < floor_gib else 0
        if self._below[role] >= _CROSSINGS or available_gib < floor_gib / 2:
            return f"{role}: {available_gib:.1f} GiB of memory available, the floor is {floor_gib:g} GiB"
        return None
