"""The pair under its supervisor: what ends is started again as a pair, what is none of its business is left alone.

The core rows of the fault matrix; `make soak` runs all of them, random kills, and what must never be taken for a fault.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator

import pytest

from tests.lab.operator_cli import Operator
from tests.lab.serving_bench import Fault, NotHereError, ServingBench, run_trial
from tests.lab.serving_faults import ALL, BY_NAME, PROCESSES
from tests.lab.serving_timeline import Measured, document

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("DSPARK_SOAK_KILLS", "50"))


@pytest.fixture(scope="module")
def bench(operator: Operator) -> Iterator[ServingBench]:
    """The pair, deployed and kept by its supervisor; afterwards it serves on without one."""
    for verb in ("deploy", "supervise install"):
        done = operator.run(verb, "--yes")
        assert done.rc == 0, done
    yield ServingBench(operator)
    done = operator.run("supervise remove", "--yes")
    assert done.rc == 0, done


def as_expected(bench: ServingBench, fault: Fault, number: int = 1) -> Measured:
    """One trial, told as a line of evidence; everything must have been as the row says."""
    try:
        trial = run_trial(bench, fault)
    except NotHereError as reason:
        pytest.skip(str(reason))
    line = json.dumps(document(fault.name, number, fault.expect, trial.seen, trial.measured))
    sys.stdout.write(f"\n{line}\n")
    assert trial.measured.problems == (), f"{fault.name}: {trial.measured}"
    return trial.measured


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault.core else pytest.mark.soak, id=fault.name) for fault in ALL]
)
def test_what_must_come_of_a_fault_comes_and_nothing_else(bench: ServingBench, fault: Fault) -> None:
    as_expected(bench, fault)


def test_the_status_of_the_cli_tells_the_epoch_that_both_ranks_have(bench: ServingBench) -> None:
    bench.prepare({})
    done = bench.operator.run("supervise status", "--json")
    assert done.rc == 0, done
    supervisor = done.document()["supervisor"]
    assert (supervisor["state"], supervisor["hold"], supervisor["latched"]) == ("serving", None, None)
    assert supervisor["epoch"] == bench.epoch() is not None
    assert bench.orphans() == []


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_random_kills_each_end_in_one_epoch_and_leave_no_orphan(bench: ServingBench) -> None:
    chance = random.Random(20261128)  # noqa: S311 (a repeatable choice)
    rows = [BY_NAME[f"kill -9 {name}"] for name in PROCESSES]
    outages = []
    for number in range(1, KILLS + 1):
        measured = as_expected(bench, chance.choice(rows), number)
        outages.append(measured.outage_s)
    known = [outage for outage in outages if outage is not None]
    sys.stdout.write(f"\n{KILLS} kills, each one epoch and no orphan; longest outage {max(known):.0f} s\n")
