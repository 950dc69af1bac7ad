"""The process's own objects, set once by `launch` before LiteLLM is imported: what hooks and middleware share."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from .decide import Refusal
from .exchange import Exchange
from .fit import cost_micro_usd, most_micro_usd
from .ledger import Exhausted, Ledger, LedgerError, Limits, Reservation
from .settings import Policy

LOG = logging.getLogger("dspark.gateway")
_WORDS = {
    "budget-hour": "the hour's budget for the cloud is spent",
    "budget-day": "the day's budget for the cloud is spent",
    "loop": "the same prompt went to the cloud too often within an hour",
}


class State:
    """policy: the settings. ledger: the books. answers: how often (backend, reason, status class) was answered."""

    def __init__(self, policy: Policy, ledger: Ledger) -> None:
        self.policy = policy
        self.ledger = ledger
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.waiting: dict[str, Exchange] = {}

    def count(self, backend: str, reason: str, status: int) -> None:
        """One answer, for the metrics."""
        self.answers[(backend, reason, f"{status // 100}xx")] += 1

    async def reserve(self, exchange: Exchange) -> Refusal | None:
        """Set aside what the cloud may cost; the refusal where it may not."""
        cloud = self.policy.cloud
        if cloud is None:
            return self._closed("no_cloud", "there is no cloud")
        limits = Limits(cloud.hour_micro_usd, cloud.day_micro_usd, cloud.repeats)
        most = most_micro_usd(cloud, exchange.size)
        asked = asyncio.create_task(asyncio.to_thread(self.ledger.reserve, most, limits, exchange.fingerprint))
        try:
            found = await asyncio.shield(asked)
        except asyncio.CancelledError:
            # The client left meanwhile: nothing was sent, so nothing is owed.
            with suppress(LedgerError):
                await self._give_back(await asked)
            raise
        except LedgerError as error:
            LOG.error("the cloud is closed: %s", error)
            return self._closed("ledger_unusable", "what the cloud has cost cannot be written down, so it is closed")
        if isinstance(found, Exhausted):
            text = f"{_WORDS[found.reason]}, and the pair does not answer"
            return Refusal(503, "cloud_" + found.reason.replace("-", "_"), text, found.retry_after_s)
        exchange.reservation = found
        return None

    async def release(self, exchange: Exchange) -> None:
        """Give a whole reservation back: the provider has refused, so it is owed nothing, and it was no repetition."""
        reservation, exchange.reservation = exchange.reservation, None
        await self._give_back(reservation)

    async def _give_back(self, reservation: Reservation | Exhausted | None) -> None:
        if not isinstance(reservation, Reservation):
            return
        try:
            await asyncio.to_thread(self.ledger.release, reservation)
        except LedgerError as error:
            LOG.error("a reservation stays spent: %s", error)

    async def settle(self, exchange: Exchange, prompt: int, answer: int) -> None:
        """Book what an answer has cost; without this call the whole reservation stays spent."""
        reservation, cloud = exchange.reservation, self.policy.cloud
        if reservation is None or cloud is None:
            return
        exchange.reservation = None
        try:
            await asyncio.to_thread(self.ledger.settle, reservation, cost_micro_usd(cloud, prompt, answer))
        except LedgerError as error:
            LOG.error("a reservation stays spent: %s", error)

    def local_down(self) -> Refusal:
        """Nobody can take it now; the pair may in a while."""
        return self._closed("local_down", "the pair does not serve at the moment")

    def _closed(self, code: str, text: str) -> Refusal:
        return Refusal(503, code, text, self.policy.retry_after_s)


_STATE: list[State] = []


def install(state: State) -> None:
    """Set the one state of this process."""
    _STATE[:] = [state]


def current() -> State:
    """The state of this process.

    Raises:
        RuntimeError: there is none; the policy was loaded outside of `launch`.
    """
    if not _STATE:
        raise RuntimeError("the gateway's policy has no settings; start it through its own program")
    return _STATE[0]
