"""What is not owed any more: said by the operator, key by key; our own changes are taken back, nobody is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.deploy.reach import reach
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.tenants import records
from dspark_ops.tenants.plan import render_forgetting
from dspark_ops.tenants.played import Told, play
from dspark_ops.transport.ssh import read_pair

_TIMEOUT_S = 300.0


def forget_verb(
    loaded: LoadedSite,
    *,
    keys: Sequence[str],
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    diff: bool = False,
) -> Report:
    """`tenants forget`: say what the records are, ask, settle exactly those that were shown.

    Raises:
        NoVerdictError: a node is unreachable, or its records cannot be read.
        RefusedError: a key that nothing is owed to, or declined.
    """
    recorder = Recorder("tenants forget", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach") as note:
            reach(loaded.site, recorder)
            owed = records.owed_on_both(read_pair(loaded.site, records.PROBES))
            note.detail = f"{sum(len(found) for found in owed.values())} owed"
        chosen = records.meant_by(owed, keys)
        plan = render_forgetting(chosen)
        if check:
            progress(plan)
        else:
            consent(plan)
        # By the names of the records, not by key: another eviction of the same key was not shown.
        names = {role: [PurePosixPath(record.path).name for record in found] for role, found in chosen.items()}
        try:
            with recorder.phase("forget (check)" if check else "forget") as note:
                told = play(loaded, recorder, "forget", names, check=check, diff=diff, timeout_s=_TIMEOUT_S)
                note.detail = "; ".join(f"{item.node}/{item.key}: {item.sentence or item.outcome}" for item in told)
        except StepFailedError as failure:
            if check:
                return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {failure.message}")
            return recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                failure.message,
                next_step="dspark-ops tenants forget with the keys that are still owed; "
                "`dspark-ops tenants restore --check` names them",
                left=["what was not forgotten stays owed, on record on its node"],
            )
        return _judged(recorder, told, check=check)


def _judged(recorder: Recorder, told: Sequence[Told], *, check: bool) -> Report:
    done = [item for item in told if item.outcome == "forgotten"]
    left = [f"{item.node}/{item.key}: {item.sentence}" for item in told if item.outcome != "forgotten"]
    if check:
        return recorder.report(
            "planned",
            ExitCode.OK,
            f"{len(done)} record(s) would be forgotten; nothing was changed",
            left=left,
        )
    what = f"{len(done)} record(s) are forgotten: nothing is owed for them any more, and nobody was started"
    if not left:
        return recorder.report("changed" if recorder.changes else "unchanged", ExitCode.OK, what)
    return recorder.report(
        "restore-incomplete",
        ExitCode.RESTORE_INCOMPLETE,
        f"{what}; {len(left)} stay owed, as our own changes could not be taken back",
        next_step="mend what `left` says, then dspark-ops tenants forget again",
        left=left,
    )
