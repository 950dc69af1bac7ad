"""The wedge rule as a fold: what is a wedge, what only looks like one, and what nobody can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.supervise.core.model import (
    CanarySight,
    EngineSight,
    NodeSight,
    Observation,
    Settings,
    Watch,
    Witness,
)
from dspark_ops.supervise.core.witness import enough, fold, suspicions

SETTINGS = Settings(memory_needed_gib=97.0)


def engine(
    generation: float = 100.0, kv: float = 0.5, running: int = 1, waiting: int = 0, prompt: float = 50.0
) -> EngineSight:
    return EngineSight(
        health="ok", metrics_answered=True, running=running, waiting=waiting, generation=generation, prompt=prompt,
        kv_usage=kv,
    )  # fmt: skip


def look(at: float, sight: EngineSight | None = None, **more: object) -> Observation:
    return Observation(wall_s=1.7e9 + at, monotonic_s=at, boot_id="b", engine=sight, **more)  # type: ignore[arg-type]


def kinds(looks: Iterable[Observation]) -> set[str]:
    """The witnesses after the last look."""
    watch, last = Watch(), None
    for last in looks:
        watch = fold(SETTINGS, watch, last)
    assert last is not None
    return {witness.kind for witness in suspicions(SETTINGS, watch, last)}


def every(seconds: float, until: float, of: Callable[[float], EngineSight | None]) -> list[Observation]:
    return [look(at * seconds, of(at * seconds)) for at in range(int(until / seconds) + 1)]


def test_requests_without_any_movement_for_four_minutes_are_a_wedge() -> None:
    assert kinds(every(5, 240, lambda _: engine())) == {"counters"}
    assert kinds(every(5, 235, lambda _: engine())) == set()


@pytest.mark.parametrize(
    ("name", "sight"),
    [
        ("a long prefill: KV usage moves with every chunk", lambda t: engine(kv=round(t / 30) / 100)),
        ("decoding", lambda t: engine(generation=100 + t)),
        ("saturated: full and waiting, but tokens come", lambda t: engine(generation=t, kv=0.97, running=6, waiting=9)),
        ("idle", lambda _: engine(running=0)),
        ("prompt tokens are counted", lambda t: engine(prompt=t)),
    ],
)
def test_what_is_no_wedge(name: str, sight: Callable[[float], EngineSight]) -> None:
    assert kinds(every(5, 1800, sight)) == set(), name


def test_requests_that_only_wait_are_asked_for_too() -> None:
    assert kinds(every(5, 240, lambda _: engine(running=0, waiting=3))) == {"counters"}


def test_a_missing_sample_says_nothing_and_forgets_nothing() -> None:
    looks = every(5, 300, lambda t: None if t == 200 else engine())
    assert kinds(looks) == {"counters"}
    assert kinds(looks[:41]) == set()
    assert kinds([*every(5, 300, lambda _: engine()), look(305, None)]) == set()


def test_after_a_gap_the_window_begins_anew() -> None:
    looks = [o for o in every(5, 300, lambda _: engine()) if not 150 < o.monotonic_s < 175]
    assert kinds(looks) == set()
    looks = every(5, 420, lambda t: None if 150 < t < 175 else engine())
    assert kinds([o for o in looks if o.monotonic_s <= 410]) == set()
    assert kinds(looks) == {"counters"}


def test_an_engine_that_was_restarted_counts_from_its_restart() -> None:
    assert kinds(every(5, 300, lambda t: engine(generation=100 if t < 100 else 2))) == set()
    assert kinds(every(5, 340, lambda t: engine(generation=100 if t < 100 else 2))) == {"counters"}


@given(st.lists(st.tuples(st.floats(0.1, 30), st.sampled_from([None, 0.1, 0.2])), min_size=1, max_size=60))
@settings(max_examples=100)
def test_a_wedge_is_only_claimed_after_four_minutes_of_equal_samples(samples: list[tuple[float, float | None]]) -> None:
    at, watch, equal_since, last_at, last = 0.0, Watch(), None, None, None
    for gap, kv in samples:
        at += gap
        now = look(at, None if kv is None else engine(kv=kv))
        watch = fold(SETTINGS, watch, now)
        if kv is not None:
            if kv != last or last_at is None or at - last_at > SETTINGS.gap_s:
                equal_since = at
            last, last_at = kv, at
        claimed = bool(suspicions(SETTINGS, watch, now))
        assert not claimed or (kv is not None and equal_since is not None and at - equal_since >= SETTINGS.wedge_s)


def canary(verdict: str, sent: float, ended: float) -> CanarySight:
    return CanarySight(verdict=verdict, sent_s=sent, ended_s=ended)  # type: ignore[arg-type]


def _asked(sight: Callable[[float], EngineSight | None], verdict: str = "timeout") -> set[str]:
    """A canary is sent at 20 s and ends at 80 s; looked at every 5 s until 85 s."""
    looks = []
    for at in range(0, 90, 5):
        ended = canary(verdict, 20, 80) if at >= 80 else None
        pending = 20.0 if 20 <= at < 80 else None
        looks.append(look(float(at), sight(at), canary=ended, canary_pending_s=pending))
    return kinds(looks)


def test_a_canary_that_waited_while_nothing_moved_is_a_witness() -> None:
    assert _asked(lambda _: engine()) == {"canary"}


def test_one_to_an_engine_core_that_hangs_while_idle_is_too() -> None:
    assert _asked(lambda _: engine(running=0)) == {"canary"}


@pytest.mark.parametrize(
    ("name", "sight"),
    [
        ("it waited behind a prefill", lambda t: engine(kv=round(t / 25) / 100)),
        ("it waited behind others", lambda t: engine(generation=t * 50, waiting=4, running=6)),
        ("nobody could read the counters", lambda _: None),
    ],
)
def test_a_late_canary_is_none_when(name: str, sight: Callable[[float], EngineSight | None]) -> None:
    assert _asked(sight) == set(), name


def test_a_late_canary_stops_counting_as_soon_as_something_moves() -> None:
    assert _asked(lambda t: engine(kv=0.5 if t < 85 else 0.6)) == set()


def test_a_late_canary_counts_when_the_api_answers_nothing_at_all() -> None:
    silent = EngineSight(health="timeout", metrics_answered=False)
    assert _asked(lambda _: silent) == {"canary"}


@pytest.mark.parametrize("verdict", ["busy", "unknown", "correct"])
def test_a_canary_that_was_turned_away_or_could_not_be_asked_is_none(verdict: str) -> None:
    assert _asked(lambda _: engine(), verdict) == set()


@pytest.mark.parametrize(
    ("verdicts", "counts"),
    [
        (["error"], False),
        (["error", "error"], True),
        (["refused", "error"], True),
        (["error", "unknown", "error"], False),
        (["error", "correct", "error"], False),
        (["wrong", "wrong"], False),
        (["wrong", "wrong", "wrong"], True),
        (["wrong", "wrong", "correct", "wrong"], False),
    ],
)
def test_how_many_failed_canaries_are_a_witness(verdicts: list[str], counts: bool) -> None:
    looks = [
        look(15.0 * n, engine(running=0), canary=canary(v, 15.0 * n - 1, 15.0 * n)) for n, v in enumerate(verdicts, 1)
    ]
    assert (kinds(looks) == {"canary"}) is counts


def test_a_canary_is_counted_once_however_often_it_is_seen() -> None:
    seen = canary("error", 1, 2)
    assert kinds([look(float(at), engine(running=0), canary=seen) for at in range(5, 60, 5)]) == set()


def _power(watts: float | None, busy: float | None, until: int = 200) -> set[str]:
    node = NodeSight(gpu_power_w=watts, gpu_util_percent=busy)
    return kinds([look(float(at), engine(running=0), worker=node) for at in range(0, until, 5)])


def test_a_busy_gpu_that_draws_next_to_nothing_is_a_witness_where_power_can_be_read() -> None:
    assert _power(21.0, 96.0) == {"power"}
    assert _power(45.0, 96.0) == set()
    assert _power(12.0, 0.0) == set()
    assert _power(None, None) == set()
    assert _power(0.0, 96.0) == set()
    assert _power(21.0, 96.0, until=170) == set()


def test_a_worker_that_is_lost_is_a_witness_and_one_that_was_not_tried_is_none() -> None:
    def lost(**paths: bool | None) -> set[str]:
        node = NodeSight(**paths)  # type: ignore[arg-type]
        return kinds([look(float(at), engine(running=0), worker=node) for at in range(0, 40, 5)])

    assert lost(by_management=False, by_fabric=False) == {"node"}
    assert lost(by_management=True, by_fabric=False) == {"node"}
    assert lost(by_management=False, by_fabric=True) == set()
    assert lost() == set()


def test_what_nobody_looked_at_for_long_begins_anew() -> None:
    lost = NodeSight(by_management=False, by_fabric=False)
    looks = [look(float(at), engine(running=0), worker=lost) for at in (0, 5, 10, 100)]
    assert kinds(looks) == set()
    assert kinds([look(float(at), engine(running=0), worker=lost) for at in (0, 15, 30)]) == {"node"}


def test_a_port_without_listener_or_a_health_of_503_is_a_witness_after_ten_seconds() -> None:
    def dead(sight: EngineSight, until: int, listening: bool | None = None) -> set[str]:
        head = NodeSight(api_listening=listening)
        return kinds([look(float(at), sight, head=head) for at in range(0, until, 5)])

    assert dead(EngineSight(health="dead"), 15) == {"engine"}
    assert dead(EngineSight(health="dead"), 10) == set()
    assert dead(engine(running=0), 15, listening=False) == {"engine"}
    assert dead(engine(running=0), 15, listening=None) == set()


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([], False),
        (["counters"], False),
        (["canary", "canary"], False),
        (["counters", "canary"], True),
        (["node", "canary"], True),
        (["api", "engine"], False),
        (["api", "engine", "canary"], True),
        (["process"], True),
    ],
)
def test_two_kinds_or_a_death_are_enough(found: list[str], verdict: bool) -> None:
    witnesses = [Witness(kind=kind, since_s=0.0, text="") for kind in found]  # type: ignore[arg-type]
    assert enough(witnesses) is verdict
