"""One scrape: what is known now of every source, in the format that the scraper asked for."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import exposition
from prometheus_client.core import Metric
from prometheus_client.registry import CollectorRegistry

from dspark_ops.observe.exporter.config import Config
from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import Poller


class Exposition:
    """A collector over the pollers; it reads nothing itself, so that a scrape takes as long as it takes to write."""

    def __init__(self, config: Config, version: str, pollers: Sequence[Poller], started: float) -> None:
        self._config = config
        self._version = version
        self._pollers = tuple(pollers)
        self._started = started
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> list[Metric]:
        """The families of all sources that are current, and those about the sources."""
        whole = Families()
        whole.add("dspark_exporter_info", 1, version=self._version, site=self._config.site, role=self._config.role)
        whole.add("dspark_exporter_start_timestamp_seconds", self._started)
        for standing in (poller.standing() for poller in self._pollers):
            source = standing.name
            whole.add("dspark_source_up", float(standing.up), source=source)
            whole.add("dspark_source_age_seconds", standing.age_s, source=source)
            whole.add("dspark_source_duration_seconds", standing.duration_s, source=source)
            whole.add("dspark_source_errors_total", standing.errors, source=source)
            if standing.families is not None:
                whole.values.update(standing.families.values)
                whole.histograms.update(standing.families.histograms)
        return whole.metrics()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type, by the scraper's Accept header."""
        encoder, content_type = exposition.choose_encoder(accept)
        return encoder(self._registry), content_type
