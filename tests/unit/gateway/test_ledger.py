"""The books: never too little, also with many hands, after a kill, on a full disk and with a clock that jumps."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.gateway.plugin.ledger import Exhausted, Ledger, LedgerError, Limits, Reservation

LIMITS = Limits(hour_micro_usd=1000, day_micro_usd=5000, repeats=10_000)
START = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def test_a_reservation_counts_at_once_and_is_settled_to_what_it_cost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.json", Clock())
    held = ledger.reserve(600, LIMITS, b"a")
    assert isinstance(held, Reservation)
    assert isinstance(ledger.reserve(600, LIMITS, b"b"), Exhausted)
    ledger.settle(held, 100)
    assert ledger.spent().hour_micro_usd == 100
    assert isinstance(ledger.reserve(600, LIMITS, b"b"), Reservation)


def test_the_hour_moves_on_and_the_day_stays(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "l.json", clock)
    for _ in range(5):
        assert isinstance(ledger.reserve(1000, LIMITS, b"a"), Reservation)
        refused = ledger.reserve(1, LIMITS, b"a")
        assert isinstance(refused, Exhausted)
        assert refused.retry_after_s == 3600
        clock.now += refused.retry_after_s
    refused = ledger.reserve(1, LIMITS, b"a")
    assert isinstance(refused, Exhausted)
    assert refused.reason == "budget-day"
    assert refused.retry_after_s == 19 * 3600, "when the first bucket is a day old"
    clock.now += 24 * 3600
    assert isinstance(ledger.reserve(1, LIMITS, b"a"), Reservation)


def test_a_loop_ends_at_its_count_and_other_prompts_go_on(tmp_path: Path) -> None:
    limits = Limits(10**9, 10**9, repeats=3)
    ledger = Ledger(tmp_path / "l.json", Clock())
    for _ in range(3):
        assert isinstance(ledger.reserve(1, limits, b"again"), Reservation)
    refused = ledger.reserve(1, limits, b"again")
    assert isinstance(refused, Exhausted)
    assert refused.reason == "loop"
    assert isinstance(ledger.reserve(1, limits, b"other"), Reservation)
    assert "again" not in (tmp_path / "l.json").read_text()


def test_it_survives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    Ledger(tmp_path / "l.json", clock).reserve(900, LIMITS, b"a")
    again = Ledger(tmp_path / "l.json", clock)
    assert again.spent().hour_micro_usd == 900
    assert isinstance(again.reserve(200, LIMITS, b"b"), Exhausted)


def test_many_hands_never_reserve_more_than_there_is(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "l.json", Clock()) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: ledgers[n % 4].reserve(90, LIMITS, b"%d" % n), range(40)))
    assert sum(isinstance(one, Reservation) for one in found) == 11
    assert ledgers[0].spent().hour_micro_usd == 990


def _spend(path: Path, said: int) -> None:
    ledger = Ledger(path, Clock())
    limits = Limits(10**9, 10**9, 10**9)
    while True:
        ledger.reserve(1, limits, b"a")
        os.write(said, b".")


def test_a_kill_at_any_moment_leaves_books_with_all_that_was_reserved(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    total = 0
    for trial in range(6):
        read, write = os.pipe()
        child = multiprocessing.get_context("fork").Process(target=_spend, args=(path, write))
        child.start()
        os.close(write)
        for _ in range(5 + trial):
            assert os.read(read, 1) == b"."
            total += 1
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        while got := os.read(read, 4096):
            total += len(got)
        os.close(read)
        spent = Ledger(path, Clock()).spent().hour_micro_usd
        assert total <= spent <= total + 1 + trial, "one per kill may be written down and never said"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "other"}', json.dumps({"schema": "x", "minutes": {"a": -1}})]
)
def test_books_that_cannot_be_read_close_the_cloud(tmp_path: Path, text: str) -> None:
    path = tmp_path / "l.json"
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"l\.json"):
        Ledger(path, Clock()).reserve(1, LIMITS, b"a")
    assert path.read_text() == text


def test_books_that_cannot_be_written_close_the_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "l.json", Clock())
    ledger.reserve(10, LIMITS, b"a")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left"):
        ledger.reserve(10, LIMITS, b"b")
    monkeypatch.undo()
    assert ledger.spent().hour_micro_usd == 10


@given(st.lists(st.tuples(st.integers(-3600, 3600), st.integers(0, 400)), max_size=20))
def test_a_clock_that_jumps_never_forgets_what_the_hour_has_cost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path_factory.mktemp("l") / "l.json", clock)
    spent: list[tuple[float, int]] = []
    for jump, amount in steps:
        clock.now = START + jump
        if isinstance(ledger.reserve(amount, LIMITS, b"a"), Reservation):
            spent.append((clock.now, amount))
        window = sum(cost for at, cost in spent if at > clock.now - 3540)
        assert window <= ledger.spent().hour_micro_usd <= LIMITS.hour_micro_usd * 2
        assert ledger.spent().day_micro_usd == sum(cost for _, cost in spent)


def test_what_was_refused_is_no_repetition_and_costs_nothing(tmp_path: Path) -> None:
    """A client that tries again while the provider is down is no loop."""
    limits = Limits(1000, 1000, repeats=3)
    ledger = Ledger(tmp_path / "l.json", Clock())
    for _ in range(10):
        held = ledger.reserve(900, limits, b"again")
        assert isinstance(held, Reservation)
        ledger.release(held)
    assert ledger.spent().day_micro_usd == 0
    held = ledger.reserve(100, limits, b"again")
    assert isinstance(held, Reservation)
    ledger.settle(held, 0)
    for _ in range(2):
        assert isinstance(ledger.reserve(100, limits, b"again"), Reservation)
    refused = ledger.reserve(100, limits, b"again")
    assert isinstance(refused, Exhausted)
    assert refused.reason == "loop", "one that cost nothing was answered all the same"


def test_what_a_wrong_clock_wrote_years_ahead_is_spent_and_no_longer_than_a_day(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "l.json", clock)
    clock.now = START + 3 * 365 * 86_400
    held = ledger.reserve(900, LIMITS, b"a")
    assert isinstance(held, Reservation)
    clock.now = START
    refused = ledger.reserve(900, LIMITS, b"a")
    assert isinstance(refused, Exhausted)
    assert refused.spent.day_micro_usd == 900
    clock.now = START + refused.retry_after_s
    assert isinstance(ledger.reserve(900, LIMITS, b"a"), Reservation)
