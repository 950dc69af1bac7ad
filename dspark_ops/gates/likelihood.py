"""Would the model itself have said that? Log-probabilities of an answer that was read back as a prompt.

A garbled decoder writes what its own plain forward pass finds most unlikely. Loops and copies are likely, however:
they are for the oracles and the echo. Every number is a mean of negative log-probabilities in nats per token, and is
compared only with answers of the same kind from the same server, warm and known to be right.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from dspark_ops.gates.case import CaseKind, Reason
from dspark_ops.openai_api.model import Record

WINDOW, OPENING = 32, 4
#: Fewer baseline answers of a kind are no baseline.
FEWEST = 8
# A spread of zero (temperature 0, one-line answers) must not make the next digit an alarm: these are the least
# distances from the median, in nats. A token from nowhere costs some 8 to 15 nats.
_SPREADS = 8.0
_MARGINS = {"mean": 1.0, "window": 1.5, "opening": 3.0}


class Likelihood(Record):
    """One answer. window: the worst run of WINDOW tokens (all of a shorter answer); opening: its first OPENING."""

    tokens: int
    mean: float
    window: float
    opening: float


class Limits(Record):
    """What a kind's answers stay below, and from how many of them that is known."""

    samples: int
    mean: float
    window: float
    opening: float


Baseline = dict[CaseKind, Limits]


def likelihood(logprobs: Sequence[float] | None) -> Likelihood | None:
    """None without log-probabilities, or where one is no number: nothing is known then."""
    if not logprobs or any(math.isnan(value) for value in logprobs):
        return None
    costs = [min(-value, 100.0) for value in logprobs]
    width = min(WINDOW, len(costs))
    total = sum(costs[:width])
    worst = total
    for n in range(width, len(costs)):
        total += costs[n] - costs[n - width]
        worst = max(worst, total)
    return Likelihood(
        tokens=len(costs),
        mean=sum(costs) / len(costs),
        window=worst / width,
        opening=statistics.fmean(costs[:OPENING]),
    )


def learn(samples: Mapping[CaseKind, Sequence[Sequence[float]]]) -> Baseline:
    """Limits per kind: the median and eight times the spread (median absolute deviation, as a standard deviation),
    never less than the margins and never below the worst good answer seen. A kind with fewer than FEWEST is left out.
    """
    found: Baseline = {}
    for kind, answers in samples.items():
        read = [one for one in map(likelihood, answers) if one is not None]
        if len(read) >= FEWEST:
            limits = {name: _limit([getattr(one, name) for one in read], _MARGINS[name]) for name in _MARGINS}
            found[kind] = Limits(samples=len(read), **limits)
    return found


def unlikely(kind: CaseKind, logprobs: Sequence[float] | None, baseline: Baseline | None) -> tuple[Reason, ...] | None:
    """Each measure that is over its limit. None: not judged, for want of log-probabilities or of a baseline."""
    limits = None if baseline is None else baseline.get(kind)
    read = likelihood(logprobs)
    if limits is None or read is None:
        return None
    named = (("mean", "the whole answer"), ("window", f"its worst {WINDOW} tokens"), ("opening", "its first tokens"))
    return tuple(
        Reason(
            code=f"unlikely-{name}",
            observed=f"{getattr(read, name):.2f} nats per token over {words}",
            expected=f"at most {getattr(limits, name):.2f}, from {limits.samples} warm answers of this kind",
        )
        for name, words in named
        if getattr(read, name) > getattr(limits, name)
    )


def _limit(values: Sequence[float], margin: float) -> float:
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return max(middle + max(_SPREADS * spread, margin), max(values) + margin / 2)
