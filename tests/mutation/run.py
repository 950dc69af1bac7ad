"""Break each rule of the doctor in turn, and see whether a fixture notices.

usage: python -m tests.mutation.run [--only ID_OR_PREFIX] [--jobs N] [--report FILE] [--goal 0.98]

Exit 1 when fewer than the goal are noticed, or a check's fixtures disagree with its rule as it stands.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dspark_ops.doctor.catalogue import Check, load_catalogue
from dspark_ops.doctor.registry import NODE_RULES, PAIR_RULES, load_rules
from tests.mutation.operators import mutants
from tests.mutation.reached import Source, functions_of
from tests.mutation.trial import Case, How, cases_of, disagreement, end_of, in_place, threshold_mutants

GOAL = 0.98


@dataclass
class Tally:
    """One check. A function that several checks share is counted under the first of them, and tried with all."""

    check: str
    killed: int = 0
    total: int = 0
    too_long: int = 0
    survivors: list[str] = field(default_factory=list)
    broken: str | None = None

    def count(self, how: How, said: str) -> None:
        self.total += 1
        self.killed += how != "survived"
        self.too_long += how == "too long"
        if how == "survived":
            self.survivors.append(said)


@dataclass(frozen=True)
class Work:
    """The mutants to try under one check: its thresholds, and the functions that are counted under it."""

    check: Check
    sources: tuple[tuple[Source, tuple[str, ...]], ...]


def plan(chosen: Sequence[str], every: Mapping[str, Check]) -> list[Work]:
    """Every chosen check with the functions that it owns; each function with all checks that use it."""
    load_rules()
    rules = {**NODE_RULES, **PAIR_RULES}
    users: dict[object, list[str]] = {}
    sources: dict[object, Source] = {}
    for identity in every:
        for source in functions_of(rules[identity]) if identity in rules else ():
            users.setdefault(source.function, []).append(identity)
            sources[source.function] = source
    owned: dict[str, list[tuple[Source, tuple[str, ...]]]] = {identity: [] for identity in chosen}
    for function, names in users.items():
        owner = next((name for name in names if name in owned), None)
        if owner is not None:
            owned[owner].append((sources[function], tuple(names)))
    return [Work(every[identity], tuple(owned[identity])) for identity in chosen]


def try_work(work: Work, every: Mapping[str, Check]) -> Tally:
    """Try the mutants of one check."""
    tally = Tally(work.check.id)
    known: dict[str, tuple[Check, Sequence[Case]]] = {}
    for identity in dict.fromkeys([work.check.id, *(name for _, names in work.sources for name in names)]):
        known[identity] = (every[identity], cases_of(identity))
        if (said := disagreement(*known[identity])) is not None:
            tally.broken = f"{identity} {said}"
            return tally
    if not known[work.check.id][1]:
        tally.broken = "no fixture"
        return tally
    for said, changed in threshold_mutants(work.check):
        tally.count(end_of([(changed, known[work.check.id][1])]), f"checks/{work.check.domain}.yml: {said}")
    rules = {**NODE_RULES, **PAIR_RULES}
    for source, names in work.sources:
        is_rule = any(rules.get(name) is source.function for name in names)
        required = any(every[name].severity == "required" for name in names)
        for mutant in mutants(source, is_rule=is_rule):
            if mutant.needs_required and not required:
                continue
            with in_place(source, mutant) as seen:
                how = end_of([known[name] for name in names])
                if how == "survived" and mutant.renames and seen.evaluated and not seen.replaced:
                    continue  # no fact, or one without a sibling: nothing was changed
            tally.count(how, f"{source.file}:{mutant.line} {source.name}: {mutant.text}")
    return tally


_PLANNED: list[Work] = []


def _try_number(number: int) -> Tally:
    return try_work(_PLANNED[number], load_catalogue())


def try_all(planned: Sequence[Work], jobs: int) -> list[Tally]:
    """The tallies in the order of the plan."""
    _PLANNED[:] = planned
    if jobs <= 1:
        return [_try_number(i) for i in range(len(planned))]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return pool.map(_try_number, range(len(planned)), chunksize=1)


def report(tallies: Sequence[Tally], seconds: float) -> str:
    """What is shown: a line a check, then the survivors, then the total."""
    lines = [f"{t.check:34} {t.killed:5} / {t.total:5}{'  BROKEN: ' + t.broken if t.broken else ''}" for t in tallies]
    survivors = [f"  {t.check}: {said}" for t in tallies for said in t.survivors]
    lines += ["", f"survivors ({len(survivors)}):", *survivors, ""]
    dead, total = sum(t.killed for t in tallies), sum(t.total for t in tallies)
    share = dead / total if total else 0.0
    late = sum(t.too_long for t in tallies)
    by_time = f" ({late} by the time limit)" if late else ""
    lines.append(
        f"{dead} of {total} mutants of {len(tallies)} checks noticed{by_time}: {share:.2%}, in {seconds:.0f} s"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="a check, or the beginning of its id; repeatable")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write the tallies as JSON here")
    parser.add_argument("--goal", type=float, default=GOAL)
    given = parser.parse_args(argv)
    began = time.monotonic()
    every = load_catalogue()
    chosen = [i for i in every if not given.only or any(i.startswith(word) for word in given.only)]
    tallies = try_all(plan(chosen, every), given.jobs)
    sys.stdout.write(report(tallies, time.monotonic() - began) + "\n")
    if given.report is not None:
        given.report.write_text(json.dumps([asdict(t) for t in tallies], indent=1) + "\n", encoding="utf-8")
    dead, total = sum(t.killed for t in tallies), sum(t.total for t in tallies)
    good = total > 0 and dead >= given.goal * total and not any(t.broken for t in tallies)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
