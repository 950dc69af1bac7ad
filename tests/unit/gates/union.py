"""Garbled answers judged by everything at once: which method sees which row, and what none of them sees."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from dspark_ops.gates.case import TEXT_KINDS, Case, CaseKind, Verdict
from dspark_ops.gates.detectors import suspicions
from dspark_ops.gates.likelihood import Baseline, learn
from dspark_ops.gates.oracles import given_text, judge
from tests.unit.gates.answers import answer, case_of
from tests.unit.gates.garbled import ROWS, garble
from tests.unit.gates.stand_in_model import StandIn

COLUMNS = ("oracle", "echo", "likelihood", "only likelihood", "all three", "detectors")


class Judges:
    """A stand-in model per kind with its baseline: both from answers of other seeds than those that are judged."""

    def __init__(self, kinds: Iterable[CaseKind] = TEXT_KINDS) -> None:
        self._models: dict[CaseKind, StandIn] = {}
        samples = {}
        for kind in kinds:
            self._models[kind] = StandIn(case_of(kind, seed).ground_truth()[0] for seed in range(1000, 1040))
            samples[kind] = [self.score(case, case.ground_truth()[0]) for case in self.warm(kind)]
        self.baseline: Baseline = learn(samples)

    @staticmethod
    def warm(kind: CaseKind) -> list[Case]:
        """The questions of the baseline."""
        return [case_of(kind, seed) for seed in range(2000, 2020)]

    def score(self, case: Case, text: str) -> tuple[float, ...]:
        """What a forward pass says of this text after this prompt."""
        first, last = case.request.messages[0], case.request.messages[-1]
        return self._models[case.kind].score(text, f"{first['content']} {last['content']}")

    def judge(self, case: Case, text: str) -> Verdict:
        """With likelihood."""
        return judge(case, answer(text, prompt_logprobs=self.score(case, text) or None), baseline=self.baseline)


def seen_by(verdict: Verdict) -> set[str]:
    """Oracle, echo, likelihood, detectors: those that gave a reason."""
    return {_method(reason.code) for reason in verdict.reasons}


def _method(code: str) -> str:
    if code == "prompt-echo":
        return "echo"
    if code.startswith("unlikely-"):
        return "likelihood"
    return "detectors" if code.startswith("detector-") else "oracle"


def tally(
    judges: Judges, seeds: Iterable[int], kinds: Iterable[CaseKind] = TEXT_KINDS
) -> tuple[Mapping[str, Counter[str]], list[str], Counter[str]]:
    """Per row what was seen by whom; the garbled answers that were not failed; outcomes of the right answers."""
    rows: dict[str, Counter[str]] = {row: Counter() for row in ROWS}
    missed, healthy = [], Counter[str]()
    for seed in seeds:
        for kind in kinds:
            case = case_of(kind, seed)
            right = case.ground_truth()[0]
            healthy[judges.judge(case, right).outcome] += 1
            for row, (_, places) in ROWS.items():
                for place in places:
                    text = garble(row, place, right, case, random.Random(f"{seed} {row}"))  # noqa: S311
                    verdict = judges.judge(case, text)
                    seen = seen_by(verdict) - {"detectors"}
                    found = rows[row]
                    found.update(seen)
                    found["n"] += 1
                    found["only likelihood"] += seen == {"likelihood"}
                    found["all three"] += verdict.outcome == "fail"
                    found["detectors"] += bool(suspicions(text, given_text(case)))
                    if verdict.outcome != "fail":
                        missed.append(f"{row}, {place}, {kind} {seed}: {verdict.outcome}: {text[:200]!r}")
    return rows, missed, healthy
