"""What the gateway's router says of its answers and of what the cloud cost. It keeps both; its file is its own."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.http_get import Get, get
from dspark_ops.observe.exporter.polling import SourceError

_ANSWERS = "dspark_gateway_answers_total"
# The router's names for what it says by window, and the catalogue's.
_MONEY = {
    "dspark_gateway_cloud_spent_usd": "dspark_gateway_spend_usd",
    "dspark_gateway_cloud_budget_usd": "dspark_gateway_budget_usd",
}
_USABLE = "dspark_gateway_ledger_usable"
_MODELS = ("local", "cloud")
# The pair could not have taken the first; of a client that went away the router does not say why it was at the cloud.
_NO_FAILOVER = ("only-cloud-fits", "unfinished")


class Gateway:
    """Asks the router again and again: a share needs the counts of the time before."""

    def __init__(self, url: str, fetch: Get = get) -> None:
        self._url = url
        self._fetch = fetch
        self._before: dict[str, float] | None = None

    def read(self, into: Families) -> None:
        """One look.

        Raises:
            SourceError: the router does not answer, or not as ours does.
        """
        before, self._before = self._before, None
        try:
            families = list(text_string_to_metric_families(self._fetch(f"{self._url}/metrics")))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
            raise SourceError("what the router answered is not the text format of Prometheus") from None
        samples = [sample for family in families for sample in family.samples if math.isfinite(sample.value)]
        if not any(family.name.startswith("dspark_gateway_") for family in families):
            raise SourceError("what answered is not the gateway's router: it has no metric of that name")
        # A backend that has answered nothing yet is at zero, so that its first answer is an increase.
        now = dict.fromkeys(_MODELS, 0.0)
        failover = 0.0
        for sample in samples:
            label = sample.labels
            if sample.name == _ANSWERS:
                told = {name: label.get(name, "") for name in ("backend", "reason", "status")}
                into.add("dspark_gateway_requests_total", sample.value, **told)
                if told["backend"] in now:
                    now[told["backend"]] += sample.value
                if told["backend"] == "cloud" and told["reason"] not in _NO_FAILOVER:
                    failover += sample.value
            elif sample.name in _MONEY:
                into.add(_MONEY[sample.name], sample.value, window=label.get("window", ""))
            elif sample.name == _USABLE:
                into.add("dspark_gateway_ledger_usable", sample.value)
        self._before = now
        for backend, count in now.items():
            into.add("dspark_gateway_backend_answers_total", count, backend=backend)
        into.add("dspark_gateway_failover_answers_total", failover)
        into.add("dspark_gateway_cloud_share_ratio", _share(before, now))


def _share(before: dict[str, float] | None, now: dict[str, float]) -> float | None:
    """The cloud's share since the look before; None without answers, or after a restart of the router."""
    if before is None:
        return None
    grown = {name: now[name] - before[name] for name in now}
    total = sum(grown.values())
    return None if min(grown.values()) < 0 or total <= 0 else grown["cloud"] / total
