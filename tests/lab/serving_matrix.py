"""Run the fault matrix on the rehearsal pair: `python -m tests.lab.serving_matrix [--row NAME ...] [--times N]`.

Brings the pair up, deploys, installs the supervisor, and does each fault to it so many times. Prints one line of JSON a
trial as evidence (or writes them with --evidence) and the table at the end. Exit 0: everything as expected; 1: not;
3: a row could not be run. `make soak` runs the same rows as tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.lab.operator_cli import HOSTS, Operator
from tests.lab.serving_bench import LAB_SETTINGS, Fault, NotHereError, ServingBench, run_trial
from tests.lab.serving_faults import ALL, BY_NAME, ELSEWHERE
from tests.lab.serving_table import render
from tests.lab.serving_timeline import Expect, Measured, document

_OK, _BAD, _NOT_RUN = 0, 1, 3


@dataclass
class Matrix:
    """What came of the rows so far. not_run: rows that could not be, and why."""

    rows: dict[str, tuple[Expect, list[Measured]]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def exit_code(self) -> int:
        trials = [trial for _, measured in self.rows.values() for trial in measured]
        if any(trial.problems for trial in trials):
            return _BAD
        return _NOT_RUN if self.not_run or not trials else _OK


def run_rows(bench: ServingBench, faults: Sequence[Fault], times: int, tell: TextIO, evidence: TextIO) -> Matrix:
    """Every fault so many times. A row that cannot be run here ends; a trial that breaks is a problem of its row."""
    matrix = Matrix()
    for fault in faults:
        matrix.rows[fault.name] = (fault.expect, [])
        for number in range(1, times + 1):
            tell.write(f"{time.strftime('%H:%M:%S')} {fault.name}, trial {number} of {times} ...")
            tell.flush()
            try:
                trial = run_trial(bench, fault)
            except NotHereError as reason:
                matrix.not_run[fault.name] = str(reason)
                tell.write(f" not run: {reason}\n")
                break
            except (AssertionError, subprocess.TimeoutExpired, OSError, ValueError) as error:
                matrix.not_run[fault.name] = f"trial {number} broke: {type(error).__name__}: {error}"[:500]
                tell.write(f" broke: {error}\n")
                break
            matrix.rows[fault.name][1].append(trial.measured)
            evidence.write(json.dumps(document(fault.name, number, fault.expect, trial.seen, trial.measured)) + "\n")
            evidence.flush()
            tell.write(f" {'; '.join(trial.measured.problems) or 'as expected'}\n")
    return matrix


@contextmanager
def supervised_pair(folder: Path) -> Iterator[Operator]:
    """The pair, up, deployed and kept by its supervisor; the supervisor is taken away afterwards."""
    from dspark_ops.lab import pair as lab

    status = lab.up()
    assert status.ssh_config is not None
    site = folder / "site.yml"
    words = ["init", *HOSTS.values(), "--ssh-config", str(status.ssh_config), "--profile", "rehearsal"]
    made = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words, "--name", "lab", "--output", str(site)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    operator = Operator(site, status.ssh_config)
    for verb in ("bootstrap", "deploy", "supervise install"):
        done = operator.run(verb, "--yes")
        assert done.rc == 0, done
    try:
        yield operator
    finally:
        done = operator.run("supervise remove", "--yes")
        assert done.rc == 0, done


def main(argv: Sequence[str] | None = None) -> int:
    """Run it and give the exit status."""
    given = _parser().parse_args(argv)
    if given.list:
        sys.stdout.write("".join(f"{fault.name} ({fault.expect.kind})\n" for fault in ALL))
        sys.stdout.write("".join(f"elsewhere: {row}: {where}\n" for row, where in ELSEWHERE.items()))
        return _OK
    faults = [BY_NAME[name] for name in given.row or BY_NAME]
    with tempfile.TemporaryDirectory() as folder, supervised_pair(Path(folder)) as operator:
        bench = ServingBench(operator, url=given.url, key_file=given.key_file, settings=_wedge(given.wedge_after_s))
        if given.evidence is None:
            matrix = run_rows(bench, faults, given.times, sys.stderr, sys.stdout)
        else:
            with given.evidence.open("a", encoding="utf-8") as evidence:
                matrix = run_rows(bench, faults, given.times, sys.stderr, evidence)
    settings = {**LAB_SETTINGS, **_wedge(given.wedge_after_s)}
    sys.stdout.write(f"{render(matrix.rows, matrix.not_run)}\n- supervisor settings of the lab: {settings}\n")
    return matrix.exit_code()


def _wedge(after_s: float | None) -> dict[str, Any]:
    """Thresholds for a wedge that is believed after so many seconds; none: the product's own."""
    if after_s is None:
        return {}
    return {"wedge_window_s": 0.75 * after_s, "wedge_confirm_s": 0.25 * after_s, "canary_timeout_s": after_s / 4}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.serving_matrix", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--row", action="append", choices=sorted(BY_NAME), metavar="NAME", help="only this one; again")
    parser.add_argument(
        "--times", type=_count, default=1, metavar="N", help="trials of each row; 20 of 20 bound p at 14 %%"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="append the lines of JSON here")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="what the client asks, on the head's loopback")
    parser.add_argument("--key-file", metavar="PATH", help="the client's key, a file on the head")
    parser.add_argument(
        "--wedge-after-s", type=float, metavar="S", help="other than the product's 240 s; then no goal counts"
    )
    return parser


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count}; expected 1 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
