"""Estimates with intervals: the prompt is the unit, or the boot where there are three; failures have a share of all.

Two answers to one prompt are alike, so that a run of 36 answers to 12 prompts says less than 36 would: the bootstrap
draws whole prompts. Nothing here takes the best of anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from dspark_ops.openai_api.model import Record

DRAWS = 10_000
LEVEL = 0.95
#: From so many boots on the boot is the unit: two boots of one build differ by more than their prompts do.
LEAST_BOOTS = 3
# Of so few units the percentiles of a bootstrap are the units' own ends; Student's t with its standard error is not.
_FEW = 8
# Draws that are worked on at once, so that a long run does not take the memory of all.
_BATCH = 1000

Statistic = Literal["mean", "median"]
Unit = Literal["prompt", "boot", "block"]
Draws = NDArray[np.float64]


class Interval(Record):
    """An estimate and where it may lie. low and high: None with fewer than two units, which say nothing of a spread.

    units: of `by`, those that were drawn; n: single values.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    level: float = LEVEL
    by: Unit
    units: int
    n: int


class Share(Record):
    """How many of how many, with the interval of Clopper and Pearson; it takes the requests for independent."""

    count: int
    of: int
    low: float
    high: float
    level: float = LEVEL

    @property
    def share(self) -> float:
        """count / of."""
        return self.count / self.of


class Clusters:
    """Values by the unit that they belong to: a prompt's answers, a boot's, or a block's one figure."""

    def __init__(self, values: Iterable[tuple[str, float]]) -> None:
        groups: dict[str, list[float]] = {}
        for key, value in values:
            groups.setdefault(key, []).append(value)
        self.keys = tuple(sorted(groups))
        self.groups = tuple(groups[key] for key in self.keys)
        self.n = sum(map(len, self.groups))

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, keys: Iterable[str]) -> Clusters:
        """Those of these units alone."""
        wanted = set(keys)
        return Clusters((k, v) for k, group in zip(self.keys, self.groups, strict=True) if k in wanted for v in group)

    def estimate(self, statistic: Statistic) -> float:
        """Of all values as they are."""
        values = [value for group in self.groups for value in group]
        return float(np.mean(values) if statistic == "mean" else np.median(values))

    def draws(self, counts: Draws, statistic: Statistic) -> Draws:
        """The statistic for each draw. counts: draws x units, how often each unit was drawn."""
        if statistic == "mean":
            sums = np.array([math.fsum(group) for group in self.groups])
            sizes = np.array([len(group) for group in self.groups], dtype=float)
            return np.asarray((counts @ sums) / (counts @ sizes), dtype=float)
        values = np.array([value for group in self.groups for value in group])
        owner = np.repeat(np.arange(len(self)), [len(group) for group in self.groups])
        order = np.argsort(values, kind="stable")
        return np.concatenate(
            [
                _weighted_median(values[order], counts[i : i + _BATCH][:, owner[order]])
                for i in range(0, len(counts), _BATCH)
            ]
        )


def interval(
    clusters: Clusters,
    statistic: Statistic,
    *,
    by: Unit = "prompt",
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """The statistic with its interval by cluster bootstrap; None: there is no value."""
    return mix(
        {"": clusters}, {"": 1.0}, lambda parts: parts[""], statistic, by=by, seed=seed, draws=draws, level=level
    )


def mix(
    parts: Mapping[str, Clusters],
    weights: Mapping[str, float],
    join: Callable[[Mapping[str, Any]], Any] | None = None,
    statistic: Statistic = "mean",
    *,
    by: Unit = "prompt",
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """Several classes as one rate. weights: each class's share of the tokens, so that the mix is 1 / sum(share / rate).

    Each class's prompts are drawn by themselves; boots are drawn once for all classes. None: a class has no value.
    """
    if not parts or any(not clusters.n for clusters in parts.values()):
        return None
    joined = join or (lambda rates: mixed_rate(rates, weights))
    units = _units(parts, by)
    estimate = float(joined({name: clusters.estimate(statistic) for name, clusters in parts.items()}))
    found = Interval(estimate=estimate, level=level, by=by, units=units, n=sum(c.n for c in parts.values()))
    if units < 2:
        return found
    drawn = np.asarray(joined(_drawn(parts, statistic, by, np.random.default_rng(seed), draws)))
    if estimate <= 0 or drawn.min() <= 0:
        low, high = _ends(drawn, estimate, units, level, by)
        # A block that made nothing is 0, and none is below.
        return found.model_copy(update={"low": max(0.0, low) if drawn.min() >= 0 else low, "high": high})
    # What is measured here is above 0, and so are the ends of its interval.
    low, high = _ends(np.log(drawn), math.log(estimate), units, level, by)
    return found.model_copy(update={"low": math.exp(low), "high": math.exp(high)})


def ratio(
    first: Mapping[str, Clusters],
    second: Mapping[str, Clusters],
    weights: Mapping[str, float],
    statistic: Statistic = "mean",
    *,
    paired: bool,
    by: Unit = "prompt",
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """second / first, of the rates or of their mixes. paired: the same units are drawn for both, and only those that
    both have are used; else each side's are drawn by themselves. None: nothing to compare, or a rate of 0.
    """
    if set(first) != set(second):
        return None
    if paired:
        shared = {name: set(first[name].keys) & set(second[name].keys) for name in first}
        first = {name: clusters.only(shared[name]) for name, clusters in first.items()}
        second = {name: clusters.only(shared[name]) for name, clusters in second.items()}
    if not first or any(not clusters.n for clusters in (*first.values(), *second.values())):
        return None

    def rate(parts: Mapping[str, Any]) -> Any:
        return mixed_rate(parts, weights)

    if any(clusters.estimate(statistic) <= 0 for clusters in (*first.values(), *second.values())):
        return None
    units = min(_units(first, by), _units(second, by))
    estimate = float(
        rate({name: c.estimate(statistic) for name, c in second.items()})
        / rate({name: c.estimate(statistic) for name, c in first.items()})
    )
    n = sum(clusters.n for clusters in (*first.values(), *second.values()))
    found = Interval(estimate=estimate, level=level, by=by, units=units, n=n)
    if units < 2:
        return found
    rng = np.random.default_rng(seed)
    again = np.random.default_rng(seed) if paired else rng
    one, other = _drawn(first, statistic, by, rng, draws), _drawn(second, statistic, by, again, draws)
    if any(drawn.min() <= 0 for drawn in (*one.values(), *other.values())):
        return found  # a draw of blocks that made nothing: their ratio has no end
    below, above = rate(one), rate(other)
    # On the scale of logarithms, where A / B and B / A have the same interval.
    low, high = _ends(np.log(above / below), math.log(estimate), units, level, by)
    return found.model_copy(update={"low": math.exp(low), "high": math.exp(high)})


def mixed_rate(rates: Mapping[str, Any], weights: Mapping[str, float]) -> Any:
    """Tokens per second when each class has its share of the tokens."""
    whole = sum(weights[name] for name in rates)
    return whole / sum(weights[name] / rates[name] for name in rates)


def share(count: int, of: int, level: float = LEVEL) -> Share | None:
    """count of so many; None of none."""
    if of == 0:
        return None
    found = stats.binomtest(count, of).proportion_ci(level, method="exact")
    return Share(count=count, of=of, low=float(found.low), high=float(found.high), level=level)


def unit_of(boots: Sequence[str | None]) -> Unit:
    """What is drawn: boots where every value has one and there are three, else prompts."""
    return "boot" if None not in boots and len(set(boots)) >= LEAST_BOOTS else "prompt"


def _units(parts: Mapping[str, Clusters], by: Unit) -> int:
    if by == "boot":
        return len({key for clusters in parts.values() for key in clusters.keys})
    return min(len(clusters) for clusters in parts.values())


def _drawn(
    parts: Mapping[str, Clusters], statistic: Statistic, by: Unit, rng: np.random.Generator, draws: int
) -> dict[str, Draws]:
    if by != "boot":
        return {name: parts[name].draws(_counts(len(parts[name]), rng, draws), statistic) for name in sorted(parts)}
    boots = sorted({key for clusters in parts.values() for key in clusters.keys})
    counts = _counts(len(boots), rng, draws)
    found = {}
    for name, clusters in parts.items():
        own = counts[:, [boots.index(key) for key in clusters.keys]]
        # A draw in which no boot has this class has no figure of it: it is what it is over all of them.
        own[own.sum(axis=1) == 0] = 1.0
        found[name] = clusters.draws(own, statistic)
    return found


def _counts(units: int, rng: np.random.Generator, draws: int) -> Draws:
    return rng.multinomial(units, [1 / units] * units, size=draws).astype(float)


def _ends(drawn: Draws, estimate: float, units: int, level: float, by: Unit) -> tuple[float, float]:
    """Percentiles, set wider as Student's t is than the normal, for percentiles of few units lie too close together;
    of very few units, and of boots, t times the bootstrap's own standard error.
    """
    wide = math.sqrt(units / (units - 1))
    t = float(stats.t.ppf((1 + level) / 2, units - 1))
    if units < _FEW or by == "boot":
        half = t * wide * float(np.std(drawn))
        return estimate - half, estimate + half
    tail = float(stats.norm.cdf(-wide * t))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def _weighted_median(values: Draws, weights: Draws) -> Draws:
    """For each row of weights, the median of the sorted values, each taken so many times."""
    running = np.cumsum(weights, axis=1)
    total = running[:, -1]
    # The two in the middle are one where the number is odd.
    lower = (running >= np.ceil(total / 2)[:, None]).argmax(axis=1)
    upper = (running >= (np.floor(total / 2) + 1)[:, None]).argmax(axis=1)
    return np.asarray((values[lower] + values[upper]) / 2, dtype=float)
