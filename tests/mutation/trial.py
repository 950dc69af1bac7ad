"""Trying a mutant: the fixtures of its checks, through the doctor's own engine, until one of them disagrees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dspark_ops.config.load import LoadedSite
from dspark_ops.doctor import outcome
from dspark_ops.doctor.catalogue import Check, Threshold
from dspark_ops.doctor.engine import judge_facts
from dspark_ops.facts.snapshot import PairFacts
from tests.mutation import edits, operators, renamed
from tests.mutation.operators import Mutant
from tests.mutation.reached import Source
from tests.processor_time import limited
from tests.unit.doctor.pair_fixture import case_site, cases, mismatches, pair_facts

#: Processor seconds that judging one mutant may take; the clock of a busy machine would count survivors as dead.
LIMIT_S = 5.0

#: How a mutant ended.
How = Literal["survived", "disagreed", "too long"]


class TooLongError(BaseException):
    """A mutant that does not end. No Exception: the engine's broad catch must not swallow it."""


@dataclass(frozen=True)
class Case:
    """One fixture file, ready to be judged."""

    name: str
    document: dict[str, Any]
    facts: PairFacts
    site: LoadedSite


def load_cases(paths: Sequence[Path]) -> list[Case]:
    """The fixtures of these files."""
    found = []
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        found.append(Case(path.stem, document, pair_facts(document), case_site(document)))
    return found


def cases_of(check: str) -> list[Case]:
    """The fixtures of a check."""
    return load_cases(cases(check))


def disagreement(check: Check, known: Sequence[Case]) -> str | None:
    """The first fixture with which the rule does not agree, and how; None when it agrees with all."""
    for case in known:
        found = [f for f in judge_facts(case.facts, case.site, [check]) if f.node == case.document["node"]]
        if len(found) != 1:
            return f"{case.name}: {len(found)} findings"
        wrong = mismatches(case.document, case.name, found[0])
        if wrong:
            return f"{case.name}: {wrong[0]}"
    return None


def end_of(checks: Sequence[tuple[Check, Sequence[Case]]]) -> How:
    """Whether some fixture of these checks disagrees, or the judging does not end within its limit."""
    try:
        with limited(LIMIT_S, TooLongError):
            found = any(disagreement(check, known) is not None for check, known in checks)
    except TooLongError:
        return "too long"
    except Exception:  # what a rule must never answer breaks the engine itself: noticed
        return "disagreed"
    return "disagreed" if found else "survived"


@contextmanager
def in_place(source: Source, mutant: Mutant) -> Iterator[renamed.Seen]:
    """The mutant stands where the function stood, under every name; afterwards the function is there again."""
    function = source.function
    original = function.__code__
    function.__globals__.update(
        {
            renamed.MISSING: renamed.missing,
            renamed.SIBLING: renamed.sibling,
            edits.OK: outcome.ok,
            edits.WARN: outcome.warn,
            edits.FAIL: outcome.fail,
        }
    )
    renamed.seen.evaluated = renamed.seen.replaced = False
    try:
        function.__code__ = mutant.code
        yield renamed.seen
    finally:
        function.__code__ = original


def threshold_mutants(check: Check) -> Iterator[tuple[str, Check]]:
    """The check with one threshold of its catalogue entry moved."""
    for name, threshold in check.thresholds.items():
        value: float = int(threshold.value) if threshold.value.is_integer() else threshold.value
        for moved in operators.moved_number(value):
            limits: dict[str, Threshold] = dict(check.thresholds)
            limits[name] = threshold.model_copy(update={"value": float(moved)})
            yield f"threshold moved: {name} {value:g} -> {moved:g}", check.model_copy(update={"thresholds": limits})
