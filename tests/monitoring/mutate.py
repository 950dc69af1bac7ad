"""Make each alert wrong in one way at a time, and see whether one of its unit tests notices.

usage: python -m tests.monitoring.mutate [ALERT ...]

Exit 1 when one is not noticed. Each mutant is a rules file and a copy of the alert's tests; one run of promtool judges
all of an alert's, so that its start is paid once.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.promql_mutants import mutants
from tests.monitoring.rule_files import alerts, failed_files, need_programs, promtool, test_file

# A wrong that no series can show, by alert and what is wrong; each with its reason.
EQUIVALENT: dict[tuple[str, str], str] = {
    ("Watchdog", "it always fires"): "it does",
}


@dataclass(frozen=True)
class Result:
    """One alert: how many wrongs were tried, and which of them nobody noticed."""

    alert: str
    tried: int
    survivors: tuple[str, ...]


def wrong_rules(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rule with one thing wrong, and what that is."""
    for mutant in mutants(rule["expr"]):
        if (rule["alert"], mutant.what) not in EQUIVALENT:
            yield mutant.what, rule | {"expr": mutant.expr}
    if "for" in rule:
        yield "for is left out", {key: value for key, value in rule.items() if key != "for"}


def judge(alert: str, folder: Path) -> Result:
    """Try the wrongs of one alert.

    Raises:
        ValueError: the alert as it is fails its own tests, so nothing can be said of its mutants.
    """
    _, rule = alerts()[alert]
    tests = test_file(alert).read_text()
    cases = [("as it is", rule), *wrong_rules(rule)]
    files: dict[Path, str] = {}
    for number, (what, wrong) in enumerate(cases):
        rules = folder / f"{alert}-{number}.yml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [wrong]}]}))
        copy = folder / f"{alert}-{number}.test.yml"
        text, replaced = re.subn(r"(?m)^rule_files: .*$", f"rule_files: [{rules.name}]", tests)
        assert replaced == 1, f"{alert}: its tests name their rule files in one line"
        copy.write_text(text)
        files[copy] = what
    said = promtool("test", "rules", *map(str, files)).stdout
    noticed = failed_files(said, list(files))
    original = next(iter(files))
    if original in noticed:
        raise ValueError(f"{alert} as it is fails its own unit tests: {said[:600]}")
    survivors = tuple(what for copy, what in files.items() if copy not in noticed and copy != original)
    return Result(alert, len(cases) - 1, survivors)


def main(chosen: Sequence[str]) -> int:
    """Try all, or the chosen ones; 1 when one wrong was not noticed, 2 when a chosen alert is none."""
    need_programs()
    known = alerts()
    if unknown := [name for name in chosen if name not in known]:
        sys.stderr.write(f"{unknown[0]} is no alert; there are {', '.join(known)}\n")
        return 2
    tried = missed = 0
    with tempfile.TemporaryDirectory() as folder:
        wanted = list(chosen or known)
        # promtool judges one file after the other, on one core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(judge, wanted, [Path(folder)] * len(wanted))
        for alert, result in zip(wanted, results, strict=True):
            tried += result.tried
            missed += len(result.survivors)
            for what in result.survivors:
                sys.stdout.write(f"{alert}: not noticed: {what}\n")
    sys.stdout.write(f"{tried - missed} of {tried} wrongs noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
