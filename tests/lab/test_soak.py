"""Random kills: whenever the CLI dies, the next run finishes what it began. Run by `make soak`."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.lab.operator_cli import Operator
from tests.lab.test_deploy import assert_serves

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(3600)]

TRIALS = int(os.environ.get("DSPARK_SOAK_TRIALS", "10"))


def test_a_deploy_killed_at_any_moment_converges(operator: Operator) -> None:
    chance = random.Random(20261124)  # noqa: S311 (a repeatable choice of moments)
    began, killed = time.monotonic(), 0
    for trial in range(TRIALS):
        if trial % 2 == 0:
            operator.run("stop", "--yes", "--remove")
        process = operator.begin("deploy", "--yes", "--set", f"serve.max_num_seqs={4 + trial % 2}")
        after_s = chance.uniform(0.3, 25.0)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(timeout=60) == -signal.SIGKILL
        done = operator.run("deploy", "--yes", "--json")
        assert done.rc == 0, (trial, after_s, done)
        assert_serves(operator)
        print(f"trial {trial}: killed after {after_s:.1f} s, then {done.document()['verdict']}")  # noqa: T201 (dated evidence)
    print(f"{TRIALS} trials, {killed} killed before their end, {TRIALS} converged, {time.monotonic() - began:.0f} s")  # noqa: T201
