"""A source that hangs, fails or answers late never holds a scrape, and what is old is not told as current."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import Poller, Source, SourceError
from tests.unit.observe.exporter.recording import HeldClock

NAME = "dspark_memory_total_bytes"


def poller(read: Callable[[Families], None], clock: HeldClock, log: list[str] | None = None) -> Poller:
    return Poller(Source("memory", read, 15.0), 60.0, (log if log is not None else []).append, clock)


def good(into: Families) -> None:
    into.add(NAME, 1.0)


def test_before_the_first_reading_nothing_is_known() -> None:
    standing = poller(good, HeldClock()).standing()
    assert (standing.up, standing.families, standing.age_s, standing.duration_s) == (False, None, None, None)


def test_a_reading_ages_and_ends() -> None:
    clock = HeldClock()
    source = poller(good, clock)
    source.once()
    clock.now += 60
    assert source.standing().up
    clock.now += 1
    standing = source.standing()
    assert (standing.up, standing.families, standing.age_s) == (False, None, 61.0)


def test_a_failure_takes_the_old_values_away_at_once() -> None:
    clock, log = HeldClock(), list[str]()
    answers = [None, SourceError("gone"), None]

    def read(into: Families) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        good(into)

    source = poller(read, clock, log)
    source.once()
    assert source.standing().families is not None
    source.once()
    standing = source.standing()
    assert (standing.up, standing.families, standing.errors) == (False, None, 1)
    source.once()
    assert source.standing().up
    assert log == ["memory: SourceError: gone", "memory: read again"]


def test_the_same_failure_is_logged_once() -> None:
    log: list[str] = []

    def read(_into: Families) -> None:
        raise RecursionError("whatever it is")

    source = poller(read, HeldClock(), log)
    for _ in range(3):
        source.once()
    assert log == ["memory: RecursionError: whatever it is"]
    assert source.standing().errors == 3


def test_half_a_reading_is_not_shown() -> None:
    """What a source had added before it failed is thrown away with it."""

    def read(into: Families) -> None:
        good(into)
        raise SourceError("then it broke")

    source = poller(read, HeldClock())
    source.once()
    assert source.standing().families is None


def test_a_source_that_hangs_is_asked_about_without_waiting() -> None:
    clock, begun, release, stop = HeldClock(), threading.Event(), threading.Event(), threading.Event()

    def read(into: Families) -> None:
        good(into)
        if begun.is_set():
            release.wait(60)

    source = poller(read, clock)
    source.once()
    begun.set()
    source.start(stop)
    clock.now += 61
    standing = source.standing()
    assert (standing.up, standing.age_s) == (False, 61.0)
    stop.set()
    release.set()


def test_a_name_that_the_catalogue_does_not_have_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="the catalogue has no"):
        Families().add("dspark_memory_totl_bytes", 1.0)
    with pytest.raises(ValueError, match="the catalogue has no"):
        Families().add(NAME, 1.0, rail="p0a")
    with pytest.raises(ValueError, match="the catalogue has no"):
        Families().add("dspark_supervisor_detect_seconds", 1.0)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_not_known_makes_no_sample(value: float | None) -> None:
    into = Families()
    into.add(NAME, value)
    assert into.metrics() == []
