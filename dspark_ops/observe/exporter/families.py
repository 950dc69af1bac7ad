"""Samples by the catalogue's names. An absent value makes no sample, and a name that is not in it is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from dspark_ops.observe.exporter.catalogue import SERIES

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """Observations below each bound (cumulative), their number and sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: int
    sum: float

    @classmethod
    def of(cls, bounds: Sequence[float], values: Sequence[float]) -> Histogram:
        """The histogram of these values."""
        counts = tuple(sum(value <= bound for value in values) for bound in bounds)
        return cls(tuple(bounds), counts, len(values), math.fsum(values))


@dataclass
class Families:
    """What one source read. Values are kept by name and labels; the last one of the same labels stays."""

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def add(self, name: str, value: float | None, **labels: str) -> None:
        """One sample; None, NaN and infinity are not seen and make none.

        Raises:
            ValueError: the catalogue does not have this name with exactly these labels.
        """
        series = SERIES.get(name)
        # `class` is a word of Python: its caller writes class_.
        given = {key.rstrip("_"): text for key, text in labels.items()}
        if series is None or set(given) != set(series.labels) or series.kind == "histogram":
            raise ValueError(f"the catalogue has no {name} with the labels {sorted(given)}")
        if value is None or not math.isfinite(value):
            return
        key = tuple(given[label] for label in series.labels)
        self.values.setdefault(name, {})[key] = float(value)

    def add_histogram(self, name: str, histogram: Histogram) -> None:
        """One histogram without labels.

        Raises:
            ValueError: the catalogue does not have it.
        """
        if name not in SERIES or SERIES[name].kind != "histogram":
            raise ValueError(f"the catalogue has no histogram {name}")
        self.histograms[name] = histogram

    def metrics(self) -> list[Metric]:
        """The families in the catalogue's order; one without a sample is left out."""
        found: list[Metric] = []
        for name, series in SERIES.items():
            if name in self.histograms:
                found.append(_histogram(name, series.text, self.histograms[name]))
                continue
            samples = self.values.get(name)
            if not samples:
                continue
            if series.kind == "info":
                info = InfoMetricFamily(name.removesuffix("_info"), series.text)
                for key in samples:
                    info.add_metric((), dict(zip(series.labels, key, strict=True)))
                found.append(info)
                continue
            family: CounterMetricFamily | GaugeMetricFamily
            if series.kind == "counter":
                family = CounterMetricFamily(name.removesuffix("_total"), series.text, labels=series.labels)
            else:
                family = GaugeMetricFamily(name, series.text, labels=series.labels)
            for key, value in samples.items():
                family.add_metric(key, value)
            found.append(family)
        return found


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    pairs = [(f"{bound:g}", float(count)) for bound, count in zip(histogram.bounds, histogram.counts, strict=True)]
    pairs.append(("+Inf", float(histogram.total)))
    family = HistogramMetricFamily(name, text)
    family.add_metric((), pairs, histogram.sum)
    return family
