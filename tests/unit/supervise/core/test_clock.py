"""Time over reboots and jumps: never shorter than it was, made good once the clock can be trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dspark_ops.supervise.core.clock import carry_over, since
from dspark_ops.supervise.core.model import Attempt, Instant, Memory, NodeSight, Observation
from dspark_ops.supervise.core.policy import backoff_wait_s, chance, epoch_of, exhausted, recent
from tests.unit.supervise.core.world import SETTINGS

WALL = 1.7e9


def _seen(at: float, *, synced: bool = True) -> Memory:
    """An attempt at 100 s of the old boot, last looked at `at` of it."""
    attempt = Attempt(epoch="e", at=Instant(monotonic_s=100.0, wall_s=WALL + 100))
    now = Instant(monotonic_s=at, wall_s=WALL + at)
    return Memory(seed="s", boot_id="old", seen=now, seen_synced=synced, attempts=(attempt,))


def _now(monotonic: float, wall: float, *, boot: str = "new", synced: bool | None = True) -> Observation:
    return Observation(monotonic_s=monotonic, wall_s=wall, boot_id=boot, head=NodeSight(clock_synced=synced))


def _age(memory: Memory, observation: Observation) -> float:
    carried = carry_over(memory, observation)
    return since(carried.attempts[0].at, Instant(monotonic_s=observation.monotonic_s, wall_s=observation.wall_s))


@pytest.mark.parametrize("jump", [-3600.0, 0.0, 3600.0, 86400.0])
def test_within_a_boot_the_wall_clock_is_not_asked(jump: float) -> None:
    assert _age(_seen(500.0), _now(700.0, WALL + 700 + jump, boot="old")) == 600.0


def test_over_a_reboot_a_trusted_clock_tells_how_long_the_head_was_off() -> None:
    # 400 s of the old boot, 1000 s off, 50 s of the new one.
    assert _age(_seen(500.0), _now(50.0, WALL + 500 + 1000 + 50)) == 1450.0


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, None), (False, False)])
def test_a_clock_that_is_not_trusted_counts_only_what_is_sure(before: bool, after: bool | None) -> None:
    age = _age(_seen(500.0, synced=before), _now(50.0, WALL + 500 + 9000, synced=after))
    assert age == 450.0


def test_a_clock_that_went_back_over_the_reboot_counts_only_what_is_sure() -> None:
    assert _age(_seen(500.0), _now(50.0, WALL - 7200)) == 450.0


def test_what_was_not_sure_is_made_good_once() -> None:
    carried = carry_over(_seen(500.0), _now(50.0, WALL, synced=False))
    carried = replace(carried, boot_id="new", seen=Instant(monotonic_s=50.0, wall_s=WALL))
    later = _now(80.0, WALL + 500 + 1000 + 80, boot="new")
    good = carry_over(carried, later)
    assert since(good.attempts[0].at, Instant(monotonic_s=80.0, wall_s=0.0)) == 1480.0
    assert good.unsure is None
    assert carry_over(replace(good, seen=Instant(monotonic_s=80.0, wall_s=0.0)), later) == replace(
        good, seen=Instant(monotonic_s=80.0, wall_s=0.0)
    )


def test_a_boot_clock_that_goes_back_loses_no_time() -> None:
    assert _age(_seen(500.0), _now(20.0, WALL, boot="old")) == 400.0


def test_the_budget_forgets_a_start_after_its_window_and_not_for_serving_well() -> None:
    attempts = tuple(
        Attempt(epoch=f"e{n}", at=Instant(monotonic_s=n * 100.0, wall_s=0.0), served=True) for n in range(4)
    )
    memory = Memory(seed="s", attempts=attempts)
    assert exhausted(SETTINGS, memory, Instant(monotonic_s=7200.0, wall_s=0.0)) is not None
    assert exhausted(SETTINGS, memory, Instant(monotonic_s=6 * 3600.0, wall_s=0.0)) is None
    assert len(recent(SETTINGS, memory, Instant(monotonic_s=6 * 3600.0, wall_s=0.0))) == 3


def test_the_backoff_grows_and_the_jitter_only_prolongs_it() -> None:
    waits = [backoff_wait_s(SETTINGS, Memory(seed="s", failures=n, number=n)) for n in range(7)]
    for wait, base in zip(waits, (0, 60, 300, 900, 1800, 1800, 1800), strict=True):
        assert base <= wait <= base * 1.2
    assert backoff_wait_s(SETTINGS, Memory(seed="a", failures=1)) != backoff_wait_s(
        SETTINGS, Memory(seed="b", failures=1)
    )


def test_epochs_never_repeat_and_chance_is_the_same_each_time() -> None:
    epochs = {epoch_of(Memory(seed=seed, number=n)) for seed in ("a", "b") for n in range(500)}
    assert len(epochs) == 1000
    assert chance("a", "x") == chance("a", "x") != chance("a", "y")
