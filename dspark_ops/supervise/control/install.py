"""`supervise install` and `supervise remove`: the owner of the pair on the head, its end on the worker, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.looking import look
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.supervisor import SupervisorFacts
from dspark_ops.report.models import Change, Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.adopting import Installing, wish_of
from dspark_ops.supervise.control.document import kept_site, refuse_another
from dspark_ops.supervise.control.keeper import PLAYBOOK, refuse_other_run
from dspark_ops.supervise.control.reading import find_door, read_again, wait_for_answer
from dspark_ops.transport.ssh import SshRunner, open_runner

Consent = Callable[[str], None]


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
                wish = wish_of(loaded, seen, find_door(runners["worker"]))
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
                _refuse_what_changed(seen.supervisor, read_again(runners["head"]))
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
        NoVerdictError: a node is unreachable, or who keeps the pair could not be told.
        RefusedError: it keeps another site, a run of another control host holds it, or declined.
    """
    recorder = Recorder("supervise remove", loaded.site.name, progress)
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        with site_lock(loaded.site.name, on_wait=progress):
            with recorder.phase("observe"):
                seen = look(loaded, runners, recorder)
            if seen.supervisor.installed is None:
                raise NoVerdictError(f"it could not be told whether there is a supervisor: {seen.supervisor.problem}")
            refuse_another(loaded.site.name, kept_site(seen.supervisor))
            refuse_other_run(seen.supervisor)
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
            _refuse_what_changed(seen.supervisor, read_again(runners["head"]))
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
        return "; ".join(f"{failure.node or 'pair'}: {failure.task}: {failure.message}" for failure in result.failures)
    if result.unreachable:
        return f"{' and '.join(result.unreachable)} could not be reached any more"
    return f"ansible-playbook ended with {result.rc}; its log: {result.log}"


def _refuse_what_changed(seen: SupervisorFacts, again: SupervisorFacts) -> None:
    """A plan may be looked at for long: what another control host told it meanwhile is not overwritten.

    Raises:
        RefusedError: it was told something else since, or a run of another control host holds it.
    """
    refuse_other_run(again)
    if (again.installed, again.config) != (seen.installed, seen.config):
        raise RefusedError(
            "the supervisor on the head was told something else while the plan was shown; nothing was changed",
            hint="run it again",
        )


def _told(loaded: LoadedSite, wish: Installing, planned: list[Change]) -> str:
    nodes, rail = loaded.site.nodes, loaded.site.fabric.rails[0]
    ways = f"{wish.door.address} port {wish.door.port}, else at {rail.worker.address.ip}"
    lines = [
        f"plan for site {loaded.site.name}: a supervisor on the head ({nodes.head.host}) keeps {wish.adopted.words()}",
        f"  it logs in to the worker ({nodes.worker.host}) as root with a key for one program, at {ways}",
    ]
    lines += [f"  {change.node}: {change.what}" for change in planned]
    return "\n".join(lines)


def _proven(
    loaded: LoadedSite, recorder: Recorder, runners: Mapping[Role, SshRunner], wish: Installing, *, changed: bool
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


def _undo(loaded: LoadedSite, recorder: Recorder, wish: Installing, why: str) -> Report:
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
