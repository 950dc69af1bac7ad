"""The host baseline alone: the part of bootstrap that touches no rail."""

from __future__ import annotations

from collections.abc import Callable

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.bootstrap import host_variables
from dspark_ops.deploy.reach import reach
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.proven_change import counted, judged, render_plan
from dspark_ops.report.models import Change, Report
from dspark_ops.report.recorder import Progress, Recorder

# The prechecks of the host without those of the fabric: somebody else's rail is no reason to leave a host as it is.
_PLAN = ("host_precheck", "baseline")


def apply_baseline(
    loaded: LoadedSite,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    diff: bool = False,
) -> Report:
    """Prepare both hosts as bootstrap does: packages, Docker, directories, linger, logind, kernel settings.

    Raises:
        NoVerdictError: a node is unreachable or without sudo, or what would change cannot be told.
        RefusedError: a precheck forbids it, declined, or busy.
    """
    site = loaded.site
    recorder = Recorder("baseline", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(site, recorder)
        told = host_variables(site, {role: readings[role].user or "" for role in ROLES})
        with recorder.phase("plan") as note:
            planned = _shown(judged(_play(loaded, told, _PLAN, check=True)), diff=diff)
            note.detail = counted(len(planned))
        if check:
            recorder.changes.extend(planned)
            return recorder.report(
                "planned", ExitCode.OK, f"{counted(len(planned))} would be made; nothing was changed"
            )
        if planned:
            consent(render_plan(site, planned))
        return _carry_out(loaded, recorder, told, diff=diff)


def _carry_out(loaded: LoadedSite, recorder: Recorder, told: dict[Role, dict[str, object]], *, diff: bool) -> Report:
    """Also with nothing foretold: what only follows from another change, and what a killed run has left, is done."""
    try:
        with recorder.phase("baseline"):
            result = _play(loaded, told, ("baseline",), check=False)
    except KeyboardInterrupt:
        return _broken(recorder, "interrupted", interrupted=True)
    recorder.changes.extend(_shown(result, diff=diff))
    if result.unreachable:
        return _broken(recorder, f"{' and '.join(result.unreachable)} could not be reached any more")
    if not result.ok:
        lines = [f"{f.node or 'pair'}: {f.task}: {f.message}" for f in result.failures]
        return _broken(recorder, "\n".join(lines) or f"ansible-playbook ended with {result.rc}; its log: {result.log}")
    if not recorder.changes:
        return recorder.report("unchanged", ExitCode.OK, "both hosts are as wanted; zero changes")
    return recorder.report("changed", ExitCode.OK, counted(len(recorder.changes)))


def _broken(recorder: Recorder, why: str, *, interrupted: bool = False) -> Report:
    return recorder.report(
        "interrupted" if interrupted else "restore-incomplete",
        ExitCode.INTERRUPTED if interrupted else ExitCode.RESTORE_INCOMPLETE,
        why,
        next_step="dspark-ops bootstrap",
        left=["the host baseline may be partly applied; the next run finishes it"],
    )


def _play(loaded: LoadedSite, told: dict[Role, dict[str, object]], tags: tuple[str, ...], *, check: bool) -> PlayResult:
    return run_playbook(
        "bootstrap.yml",
        loaded,
        variables={"fabric_mtu": loaded.site.fabric.mtu, "host_baseline_earlyoom": "leave"},
        host_variables=told,
        check=check,
        diff=True,
        tags=tags,
    )


def _shown(result: PlayResult, *, diff: bool) -> tuple[Change, ...]:
    if diff:
        return result.changes
    return tuple(change.model_copy(update={"diff": None}) for change in result.changes)
