"""How many bursts are enough: Wald's sequential test, its exact power, and what a count of bad bursts says in words.

The unit is the burst: requests of one burst share a moment of the engine, so their failures may come together. A burst
is bad when any request of it is. If each request is bad with chance p, a burst is bad with a chance between p (they
fail together) and 1 - (1 - p)^6 (each for itself): what the test promises for bursts, it promises for requests too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from dspark_ops.openai_api.model import Record

Decision = Literal["accept", "reject", "go-on", "undecided"]

_CONFIDENCE = 0.95
# Bad bursts below which nothing can be said of how failures of one burst hang together.
_FEWEST_FOR_CORRELATION = 5


class SequentialPlan(Record):
    """Wald's test between two rates of bad bursts.

    healthy, broken: the rates that are told apart. alpha: the nominal chance to reject at `healthy`; beta: to accept
    at `broken`. cap: after so many bursts without a decision there is none.
    """

    healthy: float = Field(gt=0, lt=1)
    broken: float = Field(gt=0, lt=1)
    alpha: float = Field(gt=0, lt=0.5)
    beta: float = Field(gt=0, lt=0.5)
    cap: int = Field(ge=1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The log-likelihood ratios at which it accepts (lower) and rejects (upper)."""
        return math.log(self.beta / (1 - self.alpha)), math.log((1 - self.beta) / self.alpha)

    def ratio(self, bad: int, good: int) -> float:
        """The log-likelihood ratio of broken against healthy."""
        return bad * math.log(self.broken / self.healthy) + good * math.log((1 - self.broken) / (1 - self.healthy))

    def decide(self, bad: int, good: int) -> Decision:
        """What these bursts allow to say."""
        lower, upper = self.bounds
        ratio = self.ratio(bad, good)
        if ratio >= upper:
            return "reject"
        if ratio <= lower:
            return "accept"
        return "undecided" if bad + good >= self.cap else "go-on"

    def still_to_go(self, bad: int, good: int) -> int:
        """Bursts until it accepts if all that follow are good, never past the cap."""
        step = math.log((1 - self.healthy) / (1 - self.broken))
        needed = math.ceil((self.ratio(bad, good) - self.bounds[0]) / step - 1e-9)
        return max(0, min(needed, self.cap - bad - good))


# Nominal errors of 5 % each (accept after 64 good bursts) come out at 5.04 % missed and 2.3 % false alarms when the
# walk is computed exactly. These come out at 4.6 % and 0.45 %, and cost two bursts more.
RELEASE = SequentialPlan(healthy=0.005, broken=0.05, alpha=0.01, beta=0.047, cap=400)


class Operation(Record):
    """What a plan does at one true rate of bad bursts, exactly. bursts: the mean number that it takes."""

    accept: float
    reject: float
    undecided: float
    bursts: float


def operation(plan: SequentialPlan, rate: float) -> Operation:
    """The chances of each end and the mean number of bursts, by following every path of the walk."""
    open_paths = {0: 1.0}
    accept = reject = undecided = bursts = 0.0
    for number in range(1, plan.cap + 1):
        bursts += sum(open_paths.values())
        following: dict[int, float] = {}
        for bad, weight in open_paths.items():
            for now_bad, chance in ((bad, 1 - rate), (bad + 1, rate)):
                decision = plan.decide(now_bad, number - now_bad)
                reached = weight * chance
                if decision == "accept":
                    accept += reached
                elif decision == "reject":
                    reject += reached
                elif decision == "undecided":
                    undecided += reached
                elif reached > 0:
                    following[now_bad] = following.get(now_bad, 0.0) + reached
        open_paths = following
    return Operation(accept=accept, reject=reject, undecided=undecided, bursts=bursts)


def burst_rate(request_rate: float, width: int, correlation: Literal["none", "full"]) -> float:
    """How often a burst is bad when each request is with `request_rate`, at both ends of what is possible."""
    return request_rate if correlation == "full" else 1 - (1 - request_rate) ** width


def upper_bound(bad: float, trials: float, confidence: float = _CONFIDENCE) -> float:
    """Clopper and Pearson's one-sided upper bound of a rate; 1 where nothing was tried. Real numbers are allowed."""
    if trials <= 0 or bad >= trials:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(confidence, bad + 1, trials - bad))


def intra_burst_correlation(bad_of_burst: Sequence[int], width: int) -> float | None:
    """How much failures of one burst hang together (the analysis-of-variance estimate, 0 to 1).

    None: fewer than five bad bursts, or no width: it cannot be estimated.
    """
    bursts = len(bad_of_burst)
    if sum(count > 0 for count in bad_of_burst) < _FEWEST_FOR_CORRELATION or width < 2 or bursts < 2:
        return None
    mean = sum(bad_of_burst) / (bursts * width)
    between = width * sum((count / width - mean) ** 2 for count in bad_of_burst) / (bursts - 1)
    within = sum(count * (1 - count / width) for count in bad_of_burst) / (bursts * (width - 1))
    whole = between + (width - 1) * within
    return 0.0 if whole == 0 else min(1.0, max(0.0, (between - within) / whole))


class Bound(Record):
    """What was counted and the most that is true with 95 %. requests_upper rests on `correlation` where it is known,
    else it is the bursts' bound, which holds whatever the correlation is."""

    bad_bursts: int
    bursts: int
    bad_requests: int
    requests: int
    bursts_upper: float
    requests_upper: float
    correlation: float | None
    words: str


def bound(bad_of_burst: Sequence[int], width: int) -> Bound:
    """The bound over bursts of one width, in numbers and in words."""
    bursts, bad = len(bad_of_burst), sum(count > 0 for count in bad_of_burst)
    requests, bad_requests = bursts * width, sum(bad_of_burst)
    of_bursts = upper_bound(bad, bursts)
    correlation = intra_burst_correlation(bad_of_burst, width)
    of_requests = of_bursts
    if correlation is not None:
        # As many requests as would tell as much if each were for itself.
        alike = 1 + (width - 1) * correlation
        of_requests = min(of_bursts, upper_bound(bad_requests / alike, requests / alike))
    return Bound(
        bad_bursts=bad,
        bursts=bursts,
        bad_requests=bad_requests,
        requests=requests,
        bursts_upper=of_bursts,
        requests_upper=of_requests,
        correlation=correlation,
        words=_words(bad, bursts, width, of_bursts, of_requests, correlation),
    )


def _words(bad: int, bursts: int, width: int, of_bursts: float, of_requests: float, correlation: float | None) -> str:
    if bursts == 0:
        return "no burst was judged: nothing is known"
    units = "requests" if width == 1 else "bursts"
    counted = f"{bad} of {bursts} {units if bursts != 1 else units[:-1]} {'was' if bad == 1 else 'were'} bad"
    text = f"{counted}: at most {percent(of_bursts)} of {units} are (95 %)"
    if width == 1:
        return text
    if correlation is None:
        return f"{text}; of requests no more than that, however failures of one burst hang together"
    return f"{text}; at most {percent(of_requests)} of requests (95 %, correlation within a burst {correlation:.2f})"


def percent(rate: float) -> str:
    """A rate as people read it."""
    return f"{100 * rate:.1f} %" if rate < 0.9995 else "100 %"


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test over pairs of which one alone was bad; 1 where there are none."""
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def fisher(bad_first: int, first: int, bad_second: int, second: int) -> float:
    """The exact two-sided p that two rates are the same, for results that are not paired."""
    from scipy.stats import fisher_exact

    table = [[bad_first, first - bad_first], [bad_second, second - bad_second]]
    return float(fisher_exact(table).pvalue)
