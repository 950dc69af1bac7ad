"""The kept reading of the counters: for a day, for one boot, for one start of the rank."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.fabric.counter_record import KEPT_FOR, recall, record_path, remember, renewed, restarted_since
from dspark_ops.facts.snapshot import PairFacts
from tests.unit.doctor.pair_fixture import pair_facts, unreachable

# The ranks of the fixtures were started on 2026-11-23 at 20:00 UTC.
FIRST = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def changed(*sets: Any) -> PairFacts:
    return pair_facts({"set": list(sets)})


def test_a_reading_is_kept_for_a_day() -> None:
    assert recall("fixture") is None
    assert remember("fixture", pair_facts(), read_at=FIRST) == record_path("fixture")
    record = recall("fixture")
    assert record is not None
    assert record.head is not None
    assert record.head.read_at == FIRST
    assert record.head.counters == pair_facts().head.counters
    later = changed([["head", "counters", "uptime_s"], 500000.0])
    assert remember("fixture", later, read_at=FIRST + KEPT_FOR - timedelta(seconds=1)) is None
    assert recall("fixture") == record
    assert remember("fixture", later, read_at=FIRST + KEPT_FOR) is not None
    assert recall("fixture").head.counters == later.head.counters  # type: ignore[union-attr]


def test_a_clock_that_went_back_begins_anew() -> None:
    old = renewed(None, pair_facts(), FIRST)
    new = renewed(old, pair_facts(), FIRST - timedelta(hours=1))
    assert new is not None
    assert new.head is not None
    assert new.head.read_at == FIRST - timedelta(hours=1)


@pytest.mark.parametrize(
    "change",
    [
        [["head", "counters", "boot_id"], "ffffffff-0000-4000-8000-000000000001"],
        [["head", "rank", "started_at"], "2026-11-24T06:00:01Z"],
        [["head", "rank", "started_at"], "2026-11-24T06:00:01"],
        [["head", "rank", "started_at"], "yesterday"],
    ],
)
def test_a_boot_or_a_new_rank_begins_anew_on_that_node_alone(change: Any) -> None:
    old = renewed(None, pair_facts(), FIRST)
    now = FIRST + timedelta(hours=1)
    new = renewed(old, changed(change), now)
    assert new is not None
    assert old is not None
    assert new.head is not None
    assert new.head.read_at == now
    assert new.worker == old.worker


def test_a_node_that_was_not_read_keeps_what_is_known() -> None:
    old = renewed(None, pair_facts(), FIRST)
    for lost in (
        PairFacts.model_validate({**pair_facts().model_dump(), "worker": unreachable("worker")}),
        changed([["worker", "counters", "devices"], None]),
        changed([["worker", "counters", "boot_id"], None]),
    ):
        assert renewed(old, lost, FIRST + timedelta(hours=1)) is None
        first = renewed(None, lost, FIRST)
        assert first is not None
        assert first.worker is None


def test_a_rank_of_that_very_moment_is_no_later_one() -> None:
    head = pair_facts().head
    started = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
    assert not restarted_since(head, started)
    assert restarted_since(head, started - timedelta(seconds=1))
    assert not restarted_since(head.model_copy(update={"rank": None}), started - timedelta(days=9))


def test_a_record_that_is_not_whole_says_so_and_is_replaced() -> None:
    path = record_path("fixture")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    found = recall("fixture")
    assert found is not None
    assert found.problem is not None
    assert found.head is None
    assert remember("fixture", pair_facts(), read_at=FIRST) == path
    assert recall("fixture").problem is None  # type: ignore[union-attr]


def test_a_state_directory_that_cannot_be_written_stops_nothing(state: Path) -> None:
    (state / "dspark-ops").write_text("a file in the way")
    assert remember("fixture", pair_facts(), read_at=FIRST) is None
