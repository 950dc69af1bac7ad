"""Waiting for memory: as long as it comes back, and no longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from dspark_ops.config.models import Profile, Site
from dspark_ops.memory.gate import MemoryRefusal
from dspark_ops.memory.room import wait_for_room
from tests.unit.memory.conftest import pair_with

Wait = Callable[[Sequence[float | None]], tuple[list[MemoryRefusal], float, list[str]]]


@pytest.fixture
def wait(make_site: Callable[..., Site], make_profile: Callable[..., Profile]) -> Wait:
    """Wait for 12 GiB on the head, whose MemAvailable is one figure after the other, the last for ever."""
    site = make_site(kv_cache_memory_mib=1024, floor_gib=1.0)
    profile = make_profile("rehearsal", weights_gib=5.0, graphs_gib=0.0, runtime_gib=5.0)

    def go(figures: Sequence[float | None]) -> tuple[list[MemoryRefusal], float, list[str]]:
        left, now, said = list(figures), [0.0], list[str]()

        def sleep(seconds: float) -> None:
            now[0] += seconds

        def look() -> object:
            return pair_with({"head": left.pop(0) if len(left) > 1 else left[0], "worker": 100.0})

        found = wait_for_room(
            look,  # type: ignore[arg-type]
            site,
            profile,
            progress=said.append,
            clock=lambda: now[0],
            sleep=sleep,
        )
        return found, now[0], said

    return go


def test_room_at_once_is_no_wait(wait: Wait) -> None:
    assert wait([12.1]) == ([], 0.0, [])


def test_memory_that_comes_back_late_is_waited_for_and_said_once(wait: Wait) -> None:
    found, waited_s, said = wait([2.0, 2.0, 4.0, 4.0, 8.0, 13.0])
    assert (found, waited_s, len(said)) == ([], 5.0, 1)


def test_memory_that_comes_back_slowly_but_surely_is_waited_for_beyond_the_standstill(wait: Wait) -> None:
    found, waited_s, _ = wait([1.0 + 0.1 * second for second in range(130)])
    assert found == []
    assert waited_s > 60


def test_memory_that_stopped_coming_back_is_refused(wait: Wait) -> None:
    found, waited_s, _ = wait([2.0, 5.0, 6.0])
    assert [refusal.role for refusal in found] == ["head"]
    assert 20 <= waited_s < 30


def test_memory_that_cannot_be_read_is_no_verdict_in_the_end(wait: Wait) -> None:
    found, waited_s, _ = wait([None])
    assert [refusal.could_not_tell for refusal in found] == [True]
    assert waited_s <= 30


def test_one_reading_that_failed_is_asked_again(wait: Wait) -> None:
    assert wait([None, 13.0])[0] == []


def test_what_never_fits_is_refused_at_once(
    make_site: Callable[..., Site], make_profile: Callable[..., Profile]
) -> None:
    site = make_site(kv_cache_memory_mib=200 * 1024)
    found = wait_for_room(
        lambda: pair_with({"head": 100.0, "worker": 100.0}),
        site,
        make_profile("rehearsal", weights_gib=1.0, graphs_gib=0.0, runtime_gib=1.0),
        progress=lambda _: None,
        sleep=lambda _: pytest.fail("waited"),
    )
    assert [refusal.never_fits for refusal in found] == [True, True]
