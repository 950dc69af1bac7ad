"""Intervals: they cover what they say, whole prompts are drawn, pairing helps, and nothing is made of one unit."""

from __future__ import annotations

import numpy as np
import pytest

from dspark_ops.bench.statistics import Clusters, Statistic, interval, mix, mixed_rate, ratio, share, unit_of


def _clusters(
    rng: np.random.Generator, units: int, *, each: int = 2, spread: float = 7.0, mean: float = 50.0
) -> Clusters:
    centres = rng.normal(mean, spread, units)
    return Clusters((f"p{i:03}", float(v)) for i in range(units) for v in rng.normal(centres[i], 2.0, each))


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("units", [3, 12])
def test_the_interval_covers_the_truth_as_often_as_it_says(statistic: Statistic, units: int) -> None:
    rng, runs, hits, estimates = np.random.default_rng(7), 300, 0, []
    for seed in range(runs):
        found = interval(_clusters(rng, units), statistic, seed=seed, draws=600)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 50.0 <= found.high
        estimates.append(found.estimate)
    # 95 % of 300 has a standard deviation of 1.3 %.
    assert 0.91 <= hits / runs <= 0.99
    assert np.mean(estimates) == pytest.approx(50.0, abs=4 * 7 / np.sqrt(units * runs))


def test_answers_to_one_prompt_are_no_further_evidence() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(50, 7, 12)
    widths = []
    for each in (1, 20):
        found = interval(Clusters((f"p{i}", float(v)) for i, v in enumerate(centres) for _ in range(each)), "mean")
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    # Taken one by one, twenty answers each would make it four times narrower.
    assert widths[1] == pytest.approx(widths[0])


def test_the_median_is_that_of_the_values_that_were_drawn() -> None:
    rng = np.random.default_rng(5)
    clusters = Clusters((f"p{i}", float(rng.normal())) for i in range(7) for _ in range(i % 3 + 1))
    counts = rng.multinomial(7, [1 / 7] * 7, size=50).astype(float)
    drawn = clusters.draws(counts, "median")
    for row, value in zip(counts, drawn, strict=True):
        values = [v for group, n in zip(clusters.groups, row, strict=True) for v in group * int(n)]
        assert value == pytest.approx(np.median(values))


def test_the_same_seed_gives_the_same_interval() -> None:
    clusters = _clusters(np.random.default_rng(1), 12)
    assert interval(clusters, "mean", seed=4) == interval(clusters, "mean", seed=4)
    assert interval(clusters, "mean", seed=4) != interval(clusters, "mean", seed=5)


def test_one_prompt_has_no_interval_and_none_has_no_figure() -> None:
    one = interval(Clusters([("p", 50.0), ("p", 60.0)]), "mean")
    assert one is not None
    assert (one.estimate, one.low, one.high, one.units, one.n) == (55.0, None, None, 1, 2)
    assert interval(Clusters([]), "mean") is None


def test_a_rate_has_no_interval_below_nought() -> None:
    found = interval(Clusters([("a", 1.0), ("b", 100.0), ("c", 3.0)]), "mean")
    assert found is not None
    assert found.low is not None
    assert found.low > 0


def test_the_mix_is_of_tokens_and_needs_every_class() -> None:
    weights = {"code": 0.5, "prose": 0.5}
    # Half of the tokens at 10 and half at 30 take 0.05 + 0.0167 s each: 15, not 20.
    assert mixed_rate({"code": 10.0, "prose": 30.0}, weights) == pytest.approx(15.0)
    parts = {"code": Clusters([("a", 10.0), ("b", 10.0)]), "prose": Clusters([("c", 30.0), ("d", 30.0)])}
    found = mix(parts, weights)
    assert found is not None
    assert found.estimate == pytest.approx(15.0)
    assert found.low == pytest.approx(15.0)
    assert found.high == pytest.approx(15.0)
    assert mix(parts | {"prose": Clusters([])}, weights) is None


def test_pairing_takes_out_what_prompts_have_in_common() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(50, 12, 12)
    a = Clusters((f"p{i:02}", float(v + rng.normal(0, 0.3))) for i, v in enumerate(base))
    b = Clusters((f"p{i:02}", float(1.05 * v + rng.normal(0, 0.3))) for i, v in enumerate(base))
    paired = ratio({"": a}, {"": b}, {"": 1.0}, paired=True)
    apart = ratio({"": a}, {"": b}, {"": 1.0}, paired=False)
    assert paired is not None
    assert apart is not None
    assert paired.low is not None
    assert paired.high is not None
    assert apart.low is not None
    assert apart.high is not None
    assert paired.estimate == pytest.approx(1.05, abs=0.01)
    assert 1 < paired.low < paired.high < 1.1
    assert apart.low < 1 < apart.high


def test_a_pair_needs_both() -> None:
    a = Clusters([("p0", 10.0), ("p1", 20.0), ("p2", 1000.0)])
    b = Clusters([("p0", 10.0), ("p1", 20.0)])
    found = ratio({"": a}, {"": b}, {"": 1.0}, paired=True)
    assert found is not None
    assert found.estimate == pytest.approx(1.0)
    assert ratio({"": a}, {"": Clusters([("q", 1.0)])}, {"": 1.0}, paired=True) is None


def test_boots_are_drawn_for_all_classes_at_once() -> None:
    """A fast boot is fast in every class; drawn for each class by itself its spread would halve."""
    boots = {"b0": 40.0, "b1": 50.0, "b2": 60.0}
    part = Clusters((boot, rate) for boot, rate in boots.items() for _ in range(4))
    weights = dict.fromkeys("abcd", 0.25)
    alone = interval(part, "mean", by="boot")
    mixed = mix(dict.fromkeys("abcd", part), weights, by="boot")
    assert alone is not None
    assert mixed is not None
    assert alone.low is not None
    assert mixed.low is not None
    assert mixed.units == 3
    assert mixed.low == pytest.approx(alone.low, rel=0.01)


def test_three_boots_are_the_unit_and_unknown_ones_never() -> None:
    assert unit_of(["1", "2", "3"]) == "boot"
    assert unit_of(["1", "2", "2"]) == "prompt"
    assert unit_of(["1", "2", "3", None]) == "prompt"


def test_none_of_six_is_no_proof() -> None:
    found = share(0, 6)
    assert found is not None
    assert found.high == pytest.approx(0.459, abs=0.001)
    assert found.low == 0
    some = share(3, 100)
    assert some is not None
    assert some.low == pytest.approx(0.0062, abs=1e-4)
    assert some.high == pytest.approx(0.0852, abs=1e-4)
    assert share(0, 0) is None
