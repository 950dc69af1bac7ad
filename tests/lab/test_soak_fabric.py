"""Random harm to the fabric: as many returns as trials. Run by `make soak`."""

from __future__ import annotations

import os
import random
import time

import pytest

from dspark_ops.config.models import ROLES
from tests.lab.operator_cli import Operator
from tests.lab.stranding import KINDS, LIMIT_S, Stranding, Trial

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(7200)]

TRIALS = int(os.environ.get("DSPARK_SOAK_TRIALS", "20"))
SEED = int(os.environ.get("DSPARK_SOAK_SEED", str(random.SystemRandom().randrange(1 << 31))))


def test_every_change_that_nobody_confirms_is_put_back_within_a_minute(operator: Operator) -> None:
    operator.run("stop", "--yes", "--remove")
    stranding = Stranding(operator.site, operator.ssh_config)
    chance = random.Random(SEED)  # noqa: S311 (a repeatable choice of harm and moments)
    print(f"seed {SEED}")  # noqa: T201 (dated evidence)
    began, slowest = time.monotonic(), 0.0
    for number in range(TRIALS):
        trial = Trial(chance.choice(KINDS), chance.choice(ROLES), round(chance.uniform(0.0, 15.0), 1))
        outcome = stranding.run(trial)
        print(f"trial {number:2}: {outcome}", flush=True)  # noqa: T201
        assert outcome.returned_s < LIMIT_S, outcome
        slowest = max(slowest, outcome.returned_s)
    print(f"{TRIALS} trials, {TRIALS} returns, the slowest after {slowest:.1f} s, {time.monotonic() - began:.0f} s")  # noqa: T201
