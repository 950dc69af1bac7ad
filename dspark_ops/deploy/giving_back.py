"""Tenants come back after a run that failed, also when a node is away for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.deploy.taking_down import PATIENCE_S
from dspark_ops.report.recorder import Recorder
from dspark_ops.tenants.restore import RestoreOutcome, restore

_PAUSE_S = 5.0


def give_back(
    loaded: LoadedSite,
    recorder: Recorder,
    run: str,
    *,
    diff: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RestoreOutcome:
    """Bring back all that this run evicted. The consent to the plan, which told how each comes back, covers this too.

    Raises:
        StepFailedError: a node stayed away; what it owes is on record there.
    """
    until = clock() + PATIENCE_S
    while True:
        try:
            return restore(loaded, recorder, run=run, start_processes=True, diff=diff)
        except StepFailedError as failure:
            if clock() >= until:
                raise
            recorder.progress(f"{failure.message}; trying again")
            sleep(_PAUSE_S)
