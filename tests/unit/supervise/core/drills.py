"""Every fault of the matrix that the machine answers for, played in virtual time.

`python -m tests.unit.supervise.core.drills` prints what each was detected by, how long that took, and how long until
it served again. No figure here is of a real pair: loading takes what the world says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dspark_ops.supervise.core.model import Role
from tests.unit.supervise.core.world import Load, World, one_epoch, serving_world


@dataclass(frozen=True)
class Drill:
    """One fault. until_s: how soon it must be noticed. by: the witnesses that must be named."""

    name: str
    inject: Callable[[World], None]
    until_s: float
    by: frozenset[str]
    load: Load = "decode"


@dataclass(frozen=True)
class Outcome:
    """Seconds from the fault to the verdict, and from the verdict to serving again. epoch: that serves now."""

    detect_s: float
    recover_s: float
    witnesses: tuple[str, ...]
    disruptive: tuple[str, ...]
    epoch: str


def _dies(role: Role) -> Callable[[World], None]:
    return lambda world: world.end(role)


def _freezes(world: World) -> None:
    world.frozen = True


def _falls_silent(world: World) -> None:
    world.silent = True


def _loses_power(world: World) -> None:
    world.reset("worker", off_s=200.0)


def _garbles(world: World) -> None:
    """Every answer is wrong until the pair is started anew."""
    world.garbled = True
    old = one_epoch(world)

    def cured(w: World) -> None:
        container = w.rank("worker")
        w.garbled = container is not None and container.epoch == old

    world.on_look = cured


DEATH = frozenset({"process"})
WEDGE = frozenset({"counters", "canary"})
DRILLS = (
    Drill("head dies, decoding", _dies("head"), 10, DEATH),
    Drill("head dies, idle", _dies("head"), 10, DEATH, "idle"),
    Drill("worker dies, decoding", _dies("worker"), 10, DEATH),
    Drill("worker dies, idle", _dies("worker"), 10, DEATH, "idle"),
    Drill("a rank freezes, decoding", _freezes, 300, WEDGE),
    Drill("a rank freezes, idle", _freezes, 300, WEDGE, "idle"),
    Drill("a rank freezes, in a prefill", _freezes, 300, WEDGE, "prefill"),
    Drill("a rank freezes, saturated", _freezes, 300, WEDGE, "saturated"),
    Drill("the API falls silent", _falls_silent, 300, frozenset({"api", "canary"})),
    Drill("worker loses power, decoding", _loses_power, 120, frozenset({"node", "canary"})),
    Drill("every answer is wrong", _garbles, 120, frozenset({"canary", "gate"}), "idle"),
)


def play(drill: Drill) -> Outcome:
    """Inject, wait for the verdict, wait for serving."""
    world = serving_world(load=drill.load)
    began, old = world.t, one_epoch(world)
    drill.inject(world)
    detect_s = world.run_until(lambda w: w.state in ("draining", "stopping", "failed"), 600)
    incident = world.memory.incident
    assert incident is not None
    world.load = "idle"
    recover_s = world.run_until(lambda w: w.state == "serving", 1800)
    epoch = one_epoch(world)
    assert epoch != old
    return Outcome(detect_s, recover_s, incident.witnesses, tuple(world.disruptive(since=began)), epoch)


def main() -> None:
    """Print the table."""
    print(f"{'fault':32}{'detected by':20}{'detect s':>9}{'serve s':>9}")  # noqa: T201
    for drill in DRILLS:
        seen = play(drill)
        print(f"{drill.name:32}{'+'.join(seen.witnesses):20}{seen.detect_s:9.0f}{seen.recover_s:9.0f}")  # noqa: T201


if __name__ == "__main__":
    main()
