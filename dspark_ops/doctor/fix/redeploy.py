"""Deploying for a fix: also where the labels say that all is as wanted and the containers were changed since."""

from __future__ import annotations

from collections.abc import Callable

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.launch import Wishes
from dspark_ops.deploy.launch import deploy as deploy_verb
from dspark_ops.deploy.stopping import stop as stop_verb
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress


def redeploy(
    loaded: LoadedSite,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    diff: bool = False,
) -> Report:
    """Deploy; where that would change nothing although something is wrong, both ranks are taken down and made anew.

    A deploy keeps what has the wanted labels and answers right. What somebody changed under these labels (a restart
    policy, a variable) it does not see. Tenants are never asked to leave: where they stand in the way it refuses.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    foretold = deploy_verb(
        loaded, verb="deploy", consent=consent, progress=progress, wishes=Wishes(check=True, diff=diff)
    )
    kept = foretold.exit_code == ExitCode.OK and not foretold.changes
    if check:
        if not kept:
            return foretold
        return stop_verb(loaded, consent=consent, progress=progress, check=True, diff=diff, remove=True)
    stopped: Report | None = None
    if kept:
        stopped = stop_verb(loaded, consent=consent, progress=progress, diff=diff, remove=True)
        if stopped.exit_code != ExitCode.OK:
            return stopped
    done = deploy_verb(loaded, verb="deploy", consent=consent, progress=progress, wishes=Wishes(diff=diff))
    return done if stopped is None else _joined(stopped, done)


def _joined(stopped: Report, done: Report) -> Report:
    """One report of both. A deploy that failed has nothing to go back to: what served was taken down before it."""
    joined = done.model_copy(update={"changes": (*stopped.changes, *done.changes)})
    if done.exit_code != ExitCode.RESTORED:
        return joined
    left = (*done.left, "the ranks were taken down to be made anew, and nothing serves")
    return joined.model_copy(
        update={"verdict": "restore-incomplete", "exit_code": int(ExitCode.RESTORE_INCOMPLETE), "left": left}
    )
