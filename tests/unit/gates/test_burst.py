"""What a burst sees of an engine whose counters are not always there."""

from __future__ import annotations

import asyncio
from typing import cast

from dspark_ops.errors import NoVerdictError
from dspark_ops.gates.burst import Client, watch
from dspark_ops.gates.coldness import Watched
from dspark_ops.openai_api.model import Answer, EngineCounters
from tests.unit.gates.test_coldness import answer, counters


class Flaky:
    """An engine whose metrics fail at the scrapes that are numbered."""

    def __init__(self, *failing: int) -> None:
        self.failing, self.scrapes, self.sent = failing, 0, False

    async def scrape(self) -> EngineCounters:
        self.scrapes += 1
        if self.scrapes in self.failing:
            raise NoVerdictError("metrics: no answer")
        return counters(finished={"stop": 2.0}) if self.sent else counters(finished={"stop": 1.0})


def seen_by(engine: Flaky) -> Watched:
    async def send() -> list[Answer]:
        engine.sent = True
        return [answer()]

    return asyncio.run(watch(cast("Client", engine), send, width=1))


def test_a_scrape_that_fails_after_a_burst_is_asked_again() -> None:
    found = seen_by(Flaky(2))
    assert found.after is not None
    assert found.after.finished == {"stop": 2.0}


def test_a_server_without_metrics_is_sent_nothing() -> None:
    engine = Flaky(1)
    found = seen_by(engine)
    assert (found.before, found.answers, engine.sent) == (None, (), False)
