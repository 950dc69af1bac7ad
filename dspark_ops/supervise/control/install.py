"""`supervise install` and `supervise remove`: the owner of the pair on the head, its end on the worker, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.looking import look, running_release
from dspark_ops.deploy.observed import Observation
from dspark_ops.deploy.returning import documents_of
from dspark_ops.deploy.run_journal import read_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.paths import state_dir
from dspark_ops.releases import store
from dspark_ops.report.models import Change, Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.document import NOTHING, Adopted, Door, adopt, read_told, render
from dspark_ops.supervise.control.keeper import PLAYBOOK, total_gib_of
from dspark_ops.supervise.control.reading import find_door, wait_for_answer
from dspark_ops.supervise.zipapp import build, digest
from dspark_ops.transport.ssh import SshRunner, open_runner

Consent = Callable[[str], None]


@dataclass(frozen=True)
class _Installing:
    """What an installation is given. before: whether there is one already."""

    adopted: Adopted
    door: Door
    program: Path
    config: Mapping[str, Any]
    before: bool


def install(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Bring the supervisor to both nodes, or up to date; a second run changes nothing.

    It adopts the release that runs now; what an installed one keeps already stays as it is.

    Raises:
        NoVerdictError: a node is unreachable, or who keeps the pair could not be told.
        RefusedError: what runs is not whole or not known here, a run was cut off, or declined.
    """
    recorder = Recorder("supervise install", loaded.site.name, progress)
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        with site_lock(loaded.site.name, on_wait=progress):
            with recorder.phase("observe") as note:
                seen = look(loaded, runners, recorder)
                wish = _wish(loaded, seen, find_door(runners["worker"]))
                note.detail = f"it will keep {wish.adopted.words()}"
            variables = {
                "pair_supervisor_state": "present",
                "pair_supervisor_site": loaded.site.name,
                "pair_supervisor_program": str(wish.program),
                "pair_supervisor_config": wish.config,
            }
            with recorder.phase("plan") as note:
                result, planned = play(loaded, variables, check=True, diff=diff)
                note.detail = f"{len(planned)} changes" if result.ok else "failed"
            if not result.ok:
                return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {why_failed(result)}")
            if check:
                recorder.changes.extend(planned)
                return recorder.report(
                    "planned", ExitCode.OK, f"{len(planned)} changes would be made; nothing was changed"
                )
            if planned:
                consent(_told(loaded, wish, planned))
                with recorder.phase("apply"):
                    try:
                        result, made = play(loaded, variables, check=False, diff=diff)
                        recorder.changes.extend(made)
                        problem = None if result.ok else why_failed(result)
                    except (DsparkError, KeyboardInterrupt) as failure:
                        problem = getattr(failure, "message", "interrupted")
                if problem is not None:
                    return _undo(loaded, recorder, wish, problem)
            return _proven(loaded, recorder, runners, wish, changed=bool(planned))
    finally:
        for runner in runners.values():
            runner.close()


def remove(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Take the supervisor away from both nodes: no unit, no key, no file of it is left. The ranks stay as they are.

    Raises:
        RefusedError: it keeps another site, or declined.
    """
    recorder = Recorder("supervise remove", loaded.site.name, progress)
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        with site_lock(loaded.site.name, on_wait=progress):
            with recorder.phase("observe"):
                seen = look(loaded, runners, recorder)
            told = read_told(seen.supervisor.config)
            _refuse_another(loaded, told.site if told is not None else None)
            variables = {"pair_supervisor_state": "absent", "pair_supervisor_site": loaded.site.name}
            with recorder.phase("plan") as note:
                result, planned = play(loaded, variables, check=True, diff=diff)
                note.detail = f"{len(planned)} changes" if result.ok else "failed"
            if not result.ok:
                return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {why_failed(result)}")
            if check:
                recorder.changes.extend(planned)
                return recorder.report(
                    "planned", ExitCode.OK, f"{len(planned)} changes would be made; nothing was changed"
                )
            if not planned:
                return recorder.report("unchanged", ExitCode.OK, "there is no supervisor on either node; zero changes")
            lines = [f"plan for site {loaded.site.name}: nobody keeps the pair any more; the ranks stay as they are"]
            lines += [f"  {change.node}: {change.what}" for change in planned]
            lines.append("  its evidence goes with it: `dspark-ops evidence` packs it first")
            consent("\n".join(lines))
            with recorder.phase("apply"):
                result, made = play(loaded, variables, check=False, diff=diff)
            recorder.changes.extend(made)
            if not result.ok:
                return recorder.report(
                    "restore-incomplete",
                    ExitCode.RESTORE_INCOMPLETE,
                    why_failed(result),
                    next_step="dspark-ops supervise remove",
                    left=["files of the supervisor may be left on a node"],
                )
            return recorder.report("changed", ExitCode.OK, "the supervisor is gone from both nodes")
    finally:
        for runner in runners.values():
            runner.close()


def play(
    loaded: LoadedSite, variables: Mapping[str, object], *, check: bool, diff: bool = False
) -> tuple[PlayResult, list[Change]]:
    """Run the playbook; its changes, with their text where that was asked for."""
    result = run_playbook(PLAYBOOK, loaded, variables=variables, check=check, diff=diff, timeout_s=300)
    shown = result.changes if diff else (change.model_copy(update={"diff": None}) for change in result.changes)
    return result, list(shown)


def why_failed(result: PlayResult) -> str:
    """The tasks that failed, in their own words."""
    if result.failures:
        return "; ".join(f"{failure.node}: {failure.task}: {failure.message}" for failure in result.failures)
    if result.unreachable:
        return f"{' and '.join(result.unreachable)} could not be reached any more"
    return f"ansible-playbook ended with {result.rc}; its log: {result.log}"


def _wish(loaded: LoadedSite, seen: Observation, door: Door) -> _Installing:
    supervisor = seen.supervisor
    if supervisor.installed is None:
        raise NoVerdictError(f"it could not be told whether there is a supervisor already: {supervisor.problem}")
    told = read_told(supervisor.config) if supervisor.installed else None
    _refuse_another(loaded, told.site if told is not None else None)
    adopted = told.adopted if told is not None else running(loaded, seen)
    return _Installing(
        adopted=adopted,
        door=door,
        program=_program(),
        config=render(loaded, adopted, door, total_gib_of(seen.pair)),
        before=bool(supervisor.installed),
    )


def _refuse_another(loaded: LoadedSite, site: str | None) -> None:
    if site is not None and site != loaded.site.name:
        raise RefusedError(
            f"the supervisor on the head keeps site {site!r}, not {loaded.site.name!r}; nothing was changed",
            hint="remove it with that site's file first",
        )


def running(loaded: LoadedSite, seen: Observation) -> Adopted:
    """The release that runs on both ranks, as it is kept here; nothing where no rank of this site runs.

    Raises:
        RefusedError: a run was cut off, the pair is not whole, a rank restarts by itself, or the release is not known.
    """
    site = loaded.site
    if read_open(site.name) is not None:
        raise RefusedError(
            "a deploy of this site was cut off and nobody has finished it; nothing was changed",
            hint="`dspark-ops deploy`, `rollback` or `stop` first",
        )
    ours = {role: rank for role in ROLES if (rank := seen.pair.of(role).rank) is not None}
    alone = [role for role, rank in ours.items() if rank.restart_policy not in (None, "no")]
    if alone:
        raise RefusedError(
            f"the rank container on {' and '.join(alone)} has a restart policy of its own, expected none; nothing was "
            "changed",
            hint="`dspark-ops stop --remove`, then `dspark-ops deploy`: it makes them without one",
        )
    release = running_release(seen, site.name)
    if release is None:
        if any(rank.running for rank in ours.values()):
            raise RefusedError(
                "what runs is not a pair of this site that was started together; nothing was changed",
                hint="`dspark-ops status`, then `deploy` or `stop`",
            )
        return NOTHING
    epoch = str(seen.pair.head.rank.label("epoch")) if seen.pair.head.rank is not None else ""
    kept = store.load(site.name, release)
    if kept is not None:
        return adopt(documents_of(kept, epoch))
    specs = render_pair(site, loaded.profile)
    if specs["head"].release == release:
        return adopt(Documents.of(specs, epoch))
    raise RefusedError(
        f"release {release} runs, and its record is not on this machine; nothing was changed",
        hint="install from the control host that deployed it, or `dspark-ops deploy` first",
    )


def _program() -> Path:
    """The program as a file of this machine, for Ansible to copy."""
    program = build()
    path = state_dir() / "programs" / f"supervise-{digest(program).removeprefix('sha256:')[:16]}.pyz"
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        path.write_bytes(program)
    except OSError as error:
        raise NoVerdictError(
            f"{path} cannot be written: {error.strerror or error}", hint="make the state directory writable"
        ) from error
    return path


def _told(loaded: LoadedSite, wish: _Installing, planned: list[Change]) -> str:
    nodes, rail = loaded.site.nodes, loaded.site.fabric.rails[0]
    ways = f"{wish.door.address} port {wish.door.port}, else at {rail.worker.address.ip}"
    lines = [
        f"plan for site {loaded.site.name}: a supervisor on the head ({nodes.head.host}) keeps {wish.adopted.words()}",
        f"  it logs in to the worker ({nodes.worker.host}) as root with a key for one program, at {ways}",
    ]
    lines += [f"  {change.node}: {change.what}" for change in planned]
    return "\n".join(lines)


def _proven(
    loaded: LoadedSite, recorder: Recorder, runners: Mapping[Role, SshRunner], wish: _Installing, *, changed: bool
) -> Report:
    """It runs and its end on the worker answers; an installation that does not is undone."""
    with recorder.phase("prove") as note:
        problem, state = wait_for_answer(runners["head"])
        note.detail = problem or f"it answers: {state}"
    if problem is not None:
        if not changed:
            return recorder.report("failed", ExitCode.VERDICT_BAD, problem, next_step="dspark-ops supervise explain")
        return _undo(loaded, recorder, wish, problem)
    told = f"the supervisor keeps {wish.adopted.words()}; state {state}"
    if not changed:
        return recorder.report("unchanged", ExitCode.OK, f"{told}; zero changes")
    return recorder.report("changed", ExitCode.OK, told, next_step="dspark-ops supervise status")


def _undo(loaded: LoadedSite, recorder: Recorder, wish: _Installing, why: str) -> Report:
    """A first installation that failed leaves nothing; one that was there before is left for a second try."""
    again = "dspark-ops supervise install"
    if wish.before:
        return recorder.report(
            "restore-incomplete",
            ExitCode.RESTORE_INCOMPLETE,
            why,
            next_step=again,
            left=["the supervisor that was there is half brought up to date"],
        )
    try:
        with recorder.phase("undo"):
            variables = {"pair_supervisor_state": "absent", "pair_supervisor_site": loaded.site.name}
            result, made = play(loaded, variables, check=False)
        recorder.changes.extend(made)
        problem = None if result.ok else why_failed(result)
    except (DsparkError, KeyboardInterrupt) as failure:
        problem = getattr(failure, "message", "interrupted")
    if problem is None:
        return recorder.report("restored", ExitCode.RESTORED, f"{why}\nnothing of it is left", next_step=again)
    return recorder.report(
        "restore-incomplete",
        ExitCode.RESTORE_INCOMPLETE,
        f"{why}\nnor could it be removed again: {problem}",
        next_step="dspark-ops supervise remove",
        left=["files of the supervisor may be left on a node"],
    )
