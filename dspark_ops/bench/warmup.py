"""Long generations until the rate stands still: the first ones after a start pay for compilation and clocks.

The same prompt at temperature 0 each time, under a cache salt of its own: what changes is then the machine, not the
text that is drafted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from dspark_ops.bench.records import WarmUp
from dspark_ops.openai_api.model import Answer

#: So many in a row must be alike.
STEADY = 5


def is_steady(rates: Sequence[float], change: float) -> bool:
    """Whether the last five differ by less than `change` (a share): the highest from the lowest."""
    last = rates[-STEADY:]
    return len(last) == STEADY and max(last) - min(last) < change * min(last)


def rate_of(answer: Answer) -> float | None:
    """Decode tok/s; where the first chunk's tokens are unknown, (n - 1) / (last - first), as good for a change."""
    if answer.failure is not None:
        return None
    if answer.decode_rate is not None:
        return answer.decode_rate
    if answer.n is None or answer.first_s is None or answer.last_s is None or answer.last_s <= answer.first_s:
        return None
    return (answer.n - 1) / (answer.last_s - answer.first_s)


async def warm_up(
    ask: Callable[[int], Awaitable[Answer]],
    *,
    arm: str,
    at_s: float,
    least: int,
    most: int,
    change: float,
    say: Callable[[str], None],
    over: Callable[[], bool] = lambda: False,
) -> WarmUp:
    """Ask until the rate is steady, at least `least` and at most `most` times, or until `over` says that time is up.

    ask: sends the n-th generation. Generations that fail count toward `most`. Never raises for what a server does.
    """
    rates: list[float] = []
    row: list[float] = []
    failures = 0
    why = f"not steady after {most} generations"
    for number in range(most):
        if over():
            why = f"not steady after {number} generations, and the time was over"
            break
        rate = rate_of(await ask(number))
        if rate is None:
            failures += 1
            row.clear()  # "in a row" begins again
            say(f"warm-up {number + 1} of at most {most}: no rate, {failures} without one so far")
            continue
        rates.append(rate)
        row.append(rate)
        say(f"warm-up {number + 1} of at most {most}: {rate:.1f} tokens/s")
        if number + 1 >= least and is_steady(row, change):
            return WarmUp(
                arm=arm,
                at_s=at_s,
                rates=tuple(rates),
                stable=True,
                failures=failures,
                why=f"the last {STEADY} differ by less than {change:.0%}",
            )
    return WarmUp(arm=arm, at_s=at_s, rates=tuple(rates), stable=False, failures=failures, why=why)
