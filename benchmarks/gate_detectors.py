"""How the gate's methods score: patterns on honest texts and on garble in prose, all of them on oracle answers.

usage: gate_detectors.py [TEXTS PER KIND] [SEEDS]

Honest texts are cut in halves by their source; the held-out half is the one that nothing was tried on. The likelihoods
are of a stand-in (a trigram of right answers, tests/unit/gates/stand_in_model.py), not of a real engine.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dspark_ops.gates.case import TEXT_KINDS
from dspark_ops.gates.detectors import suspicions
from dspark_ops.gates.echo import shared_runs
from tests.unit.gates.answers import case_of
from tests.unit.gates.garbled import ROWS, garble
from tests.unit.gates.honest_texts import Honest, honest_texts
from tests.unit.gates.union import COLUMNS, Judges, tally

_IN_PROSE = ("docstring prose", "manual page")


def honest_table(texts: list[Honest]) -> None:
    """False positives of any pattern, per kind and half, with the patterns that fired."""
    print(f"\nhonest texts: share with a review (patterns only){'':8}{'tried':>14}{'held out':>14}  which")
    for kind in dict.fromkeys(text.kind for text in texts):
        cells, which = [], Counter[str]()
        for held_out in (False, True):
            half = [text for text in texts if text.kind == kind and text.held_out is held_out]
            hits = [reasons for text in half if (reasons := suspicions(text.text, text.prompt))]
            which.update(reason.code.removeprefix("detector-") for reasons in hits for reason in reasons)
            cells.append(f"{len(hits)}/{len(half)} {100 * len(hits) / max(1, len(half)):.1f} %")
        named = ", ".join(f"{name} {number}" for name, number in which.most_common())
        print(f"  {kind:54}{cells[0]:>14}{cells[1]:>14}  {named}")


def prose_table(texts: list[Honest], seeds: int) -> None:
    """What patterns and echo see of garble in held-out prose, where there is no oracle."""
    prose = [text for text in texts if text.kind in _IN_PROSE and text.held_out][: 10 * seeds]
    print(f"\ngarble in {len(prose)} held-out prose texts, no oracle{'':14}{'n':>8}{'patterns':>10}{'echo':>8}")
    for row, (_, places) in ROWS.items():
        n, seen, echoed = 0, 0, 0
        for at, text in enumerate(prose):
            case = case_of("report", at)
            rng = random.Random(at)  # noqa: S311 - reproducible
            if row == "wrong but fluent":
                continue
            garbled = garble(row, rng.choice(places), text.text[:900], case, rng)
            n += 1
            seen += bool(suspicions(garbled, case.request.given_text())) or not garbled.strip()
            tools = [str(tool) for tool in case.request.tools]
            echoed += bool(shared_runs([garbled], [case.request.messages[0]["content"], *tools]))
        if n:
            print(f"  {row:54}{n:>8}{100 * seen / n:>8.0f} %{100 * echoed / n:>6.0f} %")


def union_table(seeds: int) -> int:
    """Garbled oracle answers; returns how many nothing failed."""
    rows, missed, healthy = tally(Judges(), range(5000, 5000 + seeds))
    print(f"\ngarbled oracle answers, {seeds} seeds, {len(TEXT_KINDS)} kinds: seen by, in %")
    print(f"  {'':30}{'n':>6}" + "".join(f"{column:>17}" for column in COLUMNS))
    for row, found in rows.items():
        n = found["n"]
        print(f"  {row:30}{n:>6}" + "".join(f"{100 * found[column] / n:>17.1f}" for column in COLUMNS))
    print(f"right answers of the same questions: {', '.join(f'{k} {v}' for k, v in healthy.items())}")
    for line in missed:
        print(f"missed: {line}")
    return len(missed) + sum(number for outcome, number in healthy.items() if outcome == "fail")


def main() -> None:
    per_kind = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    began = time.process_time()
    texts = honest_texts(per_kind)
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, {len(texts)} honest texts")
    honest_table(texts)
    prose_table(texts, seeds)
    wrong = union_table(seeds)
    print(f"{time.process_time() - began:.0f} s of CPU time")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
