"""The floor: two readings in a row or one far below; what cannot be read is said, not judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.models import Role, Site
from dspark_ops.memory.floor import FloorWatch
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.memory.conftest import SITE, kib


def reading(role: Role, gib: float | None) -> NodeReading:
    text = "nothing of use\n" if gib is None else f"MemTotal: {kib(121.7)} kB\nMemAvailable: {kib(gib)} kB\n"
    result = ProbeResult(id="memory.meminfo", files={"/proc/meminfo": text})
    return NodeReading(node=role, reachable=True, results={"memory.meminfo": result})


def judged(watch: FloorWatch, figures: Sequence[float | None], role: Role = "worker") -> list[str | None]:
    return [watch.judge(role, reading(role, gib)) for gib in figures]


@pytest.fixture
def watch(make_site: Callable[..., Site]) -> FloorWatch:
    return FloorWatch(make_site(floor_gib=4.0))


def test_two_readings_in_a_row_below_the_floor_cross_it(watch: FloorWatch) -> None:
    assert judged(watch, [9.0, 3.1, 3.1]) == [None, None, "worker: 3.1 GiB of memory available, the floor is 4 GiB"]


def test_a_moment_below_it_is_no_crossing(watch: FloorWatch) -> None:
    assert judged(watch, [3.9, 4.0, 3.9, 5.0, 2.1]) == [None] * 5
    assert watch.lowest_gib == {"worker": pytest.approx(2.1, abs=0.01)}


def test_one_reading_below_half_of_it_is_enough(watch: FloorWatch) -> None:
    assert judged(watch, [9.0, 1.9])[-1] is not None


def test_the_nodes_are_judged_each_for_itself(watch: FloorWatch) -> None:
    assert judged(watch, [3.9], "head") == [None]
    assert judged(watch, [3.9], "worker") == [None]
    assert judged(watch, [3.9], "head") != [None]


def test_what_cannot_be_read_is_no_crossing_and_is_said_once(make_site: Callable[..., Site]) -> None:
    said: list[str] = []
    watch = FloorWatch(make_site(floor_gib=4.0), warn=said.append)
    assert judged(watch, [None] * 20) == [None] * 20
    assert len(said) == 1
    assert "worker" in said[0]
    # A gap does not make two crossings of one: the figure before it still counts as the last one known.
    assert judged(watch, [3.9, None, 3.9])[-1] is not None


def test_a_floor_of_nothing_is_never_crossed(make_site: Callable[..., Site]) -> None:
    assert judged(FloorWatch(make_site(floor_gib=0)), [0.0, 0.0, 0.0]) == [None] * 3


def test_watching_only_reads() -> None:
    assert_read_only(FloorWatch.probes())


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(4.01, 120)))
def test_above_the_floor_nothing_is_ever_crossed(figures: list[float | None]) -> None:
    site = Site.model_validate({**SITE, "serve": {"max_model_len": 16, "max_num_seqs": 1}})
    assert not any(judged(FloorWatch(site), figures))
