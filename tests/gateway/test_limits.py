"""What one client may ask: so many requests a minute, so many at the same time. Another client is not concerned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateway.asking import asked
from tests.gateway.bench import Bench

RATE, TOGETHER, MINUTE_S = 6, 2, 6


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Six requests in six seconds, two at the same time."""
    limits = {"rate_per_minute": RATE, "concurrent": TOGETHER}
    with Bench(tmp_path_factory.mktemp("narrow"), site=limits, minute_s=MINUTE_S) as bench:
        time.sleep(2 * MINUTE_S)  # what the start asked is forgotten
        yield bench


def test_who_asks_too_often_is_let_in_again_without_a_pause(narrow: Bench) -> None:
    """A refusal does not count: else a client that asks again at once would be shut out for as long as it asks."""
    begun = time.monotonic()
    answers = [asked(narrow.client, narrow.chat()) for _ in range(RATE + 4)]
    statuses = [answer.status for answer in answers]
    assert statuses[:RATE] == [200] * RATE, statuses
    assert 429 in statuses, f"in {time.monotonic() - begun:.1f} s: {statuses}"
    refused = answers[statuses.index(429)]
    assert (refused.backend, refused.reason) == ("none", "rate")
    assert int(refused.headers["retry-after"]) > 0
    with narrow.new_client(narrow.private_key) as other:
        assert asked(other, narrow.chat()).status == 200
    limit = time.monotonic() + 3 * MINUTE_S
    while asked(narrow.client, narrow.chat()).status != 200:
        assert time.monotonic() < limit, "asking all the time, it was not let in for three minutes of its own"
        time.sleep(0.05)


def test_who_asks_too_much_at_once_is_refused_by_number(narrow: Bench) -> None:
    """The engine answers none until all have been asked; those above the limit are told so at once."""
    time.sleep(2 * MINUTE_S)
    narrow.local.door.shut(after=0)
    try:
        with ThreadPoolExecutor(TOGETHER + 1) as pool:

            def ask(number: int) -> tuple[int, str | None]:
                with narrow.new_client() as mine:
                    answer = asked(mine, narrow.chat(f"at once {number}"))
                    return answer.status, answer.reason

            running = [pool.submit(ask, number) for number in range(TOGETHER + 1)]
            limit = time.monotonic() + 60
            while not any(one.done() for one in running):
                assert time.monotonic() < limit, "nobody was refused"
                time.sleep(0.05)
            early = [one.result() for one in running if one.done()]
            narrow.local.door.release()
            late = sorted(one.result(60) for one in running)
    finally:
        narrow.local.door.release()
    assert early == [(429, "concurrency")]
    assert [status for status, _ in late] == [200] * TOGETHER + [429]
