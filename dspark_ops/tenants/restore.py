"""Giving tenants back: exactly as they were, whatever happened since, as far as it can be; the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.deploy.reach import reach
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.model import Fact
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.tenants import records
from dspark_ops.tenants.plan import render_restore
from dspark_ops.tenants.played import Told, play
from dspark_ops.transport.ssh import read_pair

_TIMEOUT_S = 900.0


class Restoration(Fact):
    """One tenant that was owed. outcome: restored, back (it ran already) or left. consent: it is left because it was
    started by hand and nobody has consented to its recorded command."""

    node: Role
    key: str
    outcome: str
    sentence: str
    consent: bool = False


class RestoreOutcome(Fact):
    """What is back as it was, and what stays owed."""

    restored: tuple[Restoration, ...] = ()
    left: tuple[Restoration, ...] = ()


def restore(
    loaded: LoadedSite,
    recorder: Recorder,
    *,
    run: str | None = None,
    keys: Sequence[str] = (),
    start_processes: bool = False,
    check: bool = False,
    diff: bool = False,
) -> RestoreOutcome:
    """Bring back what is owed on both nodes. The caller holds the lock. Zero changes when everything is back.

    run: only what this run has evicted. keys: only these, on either node or as `head/KEY`; empty: all. A node on which
    none of them is meant is left alone.

    Raises:
        StepFailedError: a node was lost, or a record cannot be read; all other tenants were brought back.
    """
    meant = {role: _on(role, keys) for role in ROLES}
    told = play(
        loaded,
        recorder,
        "restore",
        meant,
        check=check,
        diff=diff,
        timeout_s=_TIMEOUT_S,
        tenants_run=run or "",
        tenants_start_processes=start_processes,
    )
    found = [_restoration(item) for item in told]
    return RestoreOutcome(
        restored=tuple(item for item in found if item.outcome != "left"),
        left=tuple(item for item in found if item.outcome == "left"),
    )


def _on(role: Role, keys: Sequence[str]) -> list[str]:
    """The keys as this node knows them; one that no tenant has where only the other node is meant."""
    other = "worker/" if role == "head" else "head/"
    found = [key.removeprefix(f"{role}/") for key in keys if not key.startswith(other)]
    return found or ([""] if keys else [])


def _restoration(told: Told) -> Restoration:
    return Restoration(node=told.node, key=told.key, outcome=told.outcome, sentence=told.sentence, consent=told.consent)


def restore_verb(
    loaded: LoadedSite,
    *,
    keys: Sequence[str],
    consent: Callable[[str], None],
    progress: Progress,
    start_processes: bool = False,
    check: bool = False,
    diff: bool = False,
) -> Report:
    """`tenants restore`: say what is owed, ask, bring it back.

    Raises:
        NoVerdictError: a node is unreachable, or its records cannot be read.
        RefusedError: a name that nothing is owed to, or declined.
    """
    recorder = Recorder("tenants restore", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach") as note:
            reach(loaded.site, recorder)
            owed = records.owed_on_both(read_pair(loaded.site, records.PROBES))
            note.detail = f"{sum(len(found) for found in owed.values())} owed"
        chosen = records.meant_by(owed, keys) if keys else owed
        if not any(chosen.values()):
            return recorder.report("unchanged", ExitCode.OK, "nothing is owed on either node; zero changes")
        if not check:
            consent(render_restore(chosen, start_processes=start_processes))
        try:
            with recorder.phase("restore (check)" if check else "restore") as note:
                done = restore(loaded, recorder, keys=keys, start_processes=start_processes, check=check, diff=diff)
                note.detail = f"{len(done.restored)} back, {len(done.left)} left"
        except StepFailedError as failure:
            if check:
                return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {failure.message}")
            return recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                failure.message,
                next_step="dspark-ops tenants restore",
                left=["what was not brought back stays on record on its node"],
            )
        return _judged(recorder, done, check=check)


def _judged(recorder: Recorder, done: RestoreOutcome, *, check: bool) -> Report:
    left = [f"{item.node}/{item.key}: {item.sentence}" for item in done.left]
    if check:
        return recorder.report(
            "planned",
            ExitCode.OK,
            f"{len(done.restored)} tenant(s) would be brought back; nothing was changed",
            left=left,
        )
    back = f"{len(done.restored)} tenant(s) are back as they were"
    if not left:
        return recorder.report("restored" if recorder.changes else "unchanged", ExitCode.OK, back)
    if all(item.consent for item in done.left):
        return recorder.report(
            "refused",
            ExitCode.REFUSED,
            f"{back}; {len(left)} wait for consent to their recorded command",
            next_step="dspark-ops tenants restore --start-processes",
            left=left,
        )
    return recorder.report(
        "restore-incomplete",
        ExitCode.RESTORE_INCOMPLETE,
        f"{back}; {len(left)} could not be brought back",
        next_step="mend what `left` says, then dspark-ops tenants restore",
        left=left,
    )
