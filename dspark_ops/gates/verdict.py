"""From what was seen to the verdict of a run, in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspark_ops.gates.case import Reason
from dspark_ops.gates.coldness import Doubt
from dspark_ops.gates.outcome import Judged, RunResult
from dspark_ops.gates.runner import Conduct
from dspark_ops.gates.sequential import Bound

_COUNTERS = ("no-metrics", "no-counter", "no-samples", "unaccounted")
_NEXT: dict[str, str] = {
    "no-metrics": "serve /metrics to this machine; without the engine's own counters no claim is made",
    "no-counter": "the engine's release lacks a counter that the proof needs",
    "prefix-hits": "find out why the server does not honour cache_salt and a leading nonce",
    "cached-tokens": "find out why the server does not honour cache_salt and a leading nonce",
    "foreign-requests": "give the gate the engine alone: stop other clients, then run it again",
    "not-concurrent": "serve with max_num_seqs of at least the burst's width, or lower --width",
    "restarted": "find out why the engine restarted, then run again",
    "unreachable": "see `dspark-ops status`",
    "t0-spread": "run it again on a less busy machine",
}


def void(
    run: Conduct, doubts: Sequence[Doubt], *, why: str | None = None, bound: Bound | None = None, **facts: Any
) -> RunResult:
    """No verdict. Bad answers that were seen on the way are told all the same."""
    codes = [doubt.code for doubt in doubts]
    if why is None:
        first = doubts[0]
        what = "it is not shown to be what it claims"
        if first.code in _COUNTERS:
            what = "the engine's counters do not tell"
        if first.code == "unreachable":
            what = "the server was not reached"
        why = f"{what}: {first.observed}, expected {first.expected}"
    bad = tuple(judged for judged in run.all_judged() if judged.bad)
    if bad:
        why += f"; {_count(len(bad), 'bad answer')} seen before that"
    return RunResult(
        verdict="void",
        message=f"the gate is void, no verdict: {why}",
        next_step=next((_NEXT[code] for code in codes if code in _NEXT), None),
        parts=tuple(run.parts),
        bound=bound,
        doubts=tuple(doubts),
        bad=bad,
        engine=_engine(run),
        reviews=_reviews(run),
        facts=facts,
    )


def failed(run: Conduct, why: str, *, bound: Bound | None = None, **facts: Any) -> RunResult:
    """A bad verdict with its answers."""
    return RunResult(
        verdict="fail",
        message=f"the gate did not pass: {why}",
        next_step=f"read the bad answers in {run.folder.path}",
        parts=tuple(run.parts),
        bound=bound,
        bad=tuple(judged for judged in run.all_judged() if judged.bad),
        engine=_engine(run),
        reviews=_reviews(run),
        facts=facts,
    )


def passed(run: Conduct, why: str, *, bound: Bound | None = None, **facts: Any) -> RunResult:
    """A good verdict, or a review where a pattern alone asks for a person. Bad answers may be in it (sequential)."""
    reviews = _reviews(run)
    bad = tuple(judged for judged in run.all_judged() if judged.bad)
    message = f"the gate passed: {why}"
    next_step = None
    if reviews:
        message = f"the gate passed, with {_count(len(reviews), 'answer')} to look at: {why}"
    if reviews or bad:
        next_step = f"read the {_count(len(reviews) + len(bad), 'answer')} kept in {run.folder.path}"
    return RunResult(
        verdict="review" if reviews else "pass",
        message=message,
        next_step=next_step,
        parts=tuple(run.parts),
        bound=bound,
        bad=bad,
        engine=_engine(run),
        reviews=reviews,
        facts=facts,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _engine(run: Conduct) -> tuple[Reason, ...]:
    return tuple(reason for burst in run.bursts if burst.counted for reason in burst.engine)


def _reviews(run: Conduct) -> tuple[Judged, ...]:
    return tuple(judged for judged in run.all_judged() if judged.outcome == "review")
