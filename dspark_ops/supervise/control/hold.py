"""`supervise hold` and `supervise resume`: a person takes the pair into their own hands, and gives it back."""

from __future__ import annotations

from collections.abc import Callable

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.supervisor import SupervisorFacts
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.document import kept_site, refuse_another
from dspark_ops.supervise.control.install import play, why_failed
from dspark_ops.supervise.control.reading import look_at_supervisor, require_reached
from dspark_ops.supervise.control.words import hold_words, person, resume_words

Consent = Callable[[str], None]


def hold(
    loaded: LoadedSite,
    reason: str,
    *,
    for_s: float,
    drain: bool,
    consent: Consent,
    progress: Progress,
    check: bool = False,
) -> Report:
    """Let it watch and tell, and do nothing, for so long. drain: the gateway sends no new requests to the pair.

    Raises:
        NoVerdictError: there is no supervisor, or it cannot be asked.
        RefusedError: somebody else holds it, or declined.
    """
    recorder = Recorder("supervise hold", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        seen = _seen(loaded, recorder)
        held = seen.hold
        if held is not None and held.owner != person():
            raise RefusedError(
                f"{held.owner} holds it: {held.reason}; nothing was changed",
                hint="`dspark-ops supervise resume` ends that hold",
            )
        lines = [
            f"plan for site {loaded.site.name}: hold the supervisor for {for_s / 60:.0f} min: {reason}",
            "  it does not restart anything meanwhile, also where a rank dies",
        ]
        if drain:
            lines.append("  the gateway sends no new requests to this pair meanwhile")
        if check:
            progress("\n".join(lines))
            return recorder.report("planned", ExitCode.OK, "it would be held; nothing was changed")
        consent("\n".join(lines))
        with recorder.phase("hold"):
            _ask(loaded, recorder, "held", [hold_words(reason, person(), for_s, drain=drain)])
    return recorder.report(
        "changed",
        ExitCode.OK,
        f"held by {person()} for {for_s / 60:.0f} min: {reason}",
        next_step="dspark-ops supervise resume",
    )


def resume(loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False) -> Report:
    """End a hold, whoever took it, and what it waits for a person with; a unit that was stopped is started.

    Raises:
        NoVerdictError: there is no supervisor, or it did not take it.
        RefusedError: declined.
    """
    recorder = Recorder("supervise resume", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        seen = _seen(loaded, recorder, must_answer=False)
        lines = [f"plan for site {loaded.site.name}: the supervisor acts again"]
        if not seen.answers:
            lines.append("  it does not answer: its unit is started again; a hold or a latch that it remembers ends")
        if seen.hold is not None:
            lines.append(f"  the hold of {seen.hold.owner} ends: {seen.hold.reason}")
        if seen.latched is not None:
            lines.append(f"  it gave up and tries again, with a fresh budget: {seen.latched}")
        if len(lines) == 1:
            return recorder.report("unchanged", ExitCode.OK, f"nobody holds it; state {seen.state}; zero changes")
        if check:
            progress("\n".join(lines))
            return recorder.report("planned", ExitCode.OK, "it would be resumed; nothing was changed")
        consent("\n".join(lines))
        with recorder.phase("resume"):
            _ask(loaded, recorder, "resumed", [resume_words()], by_unit=not seen.answers)
    return recorder.report("changed", ExitCode.OK, "it acts again", next_step="dspark-ops supervise status")


def _seen(loaded: LoadedSite, recorder: Recorder, *, must_answer: bool = True) -> SupervisorFacts:
    with recorder.phase("observe"):
        reading, seen = look_at_supervisor(loaded)
    require_reached(reading, seen)
    refuse_another(loaded.site.name, kept_site(seen))
    if must_answer and not seen.answers:
        raise NoVerdictError(
            f"the supervisor on the head cannot be asked: {seen.problem}",
            hint="`systemctl status dspark-supervisor` there; `dspark-ops supervise resume` starts its unit again",
        )
    return seen


def _ask(loaded: LoadedSite, recorder: Recorder, state: str, asks: list[list[str]], *, by_unit: bool = False) -> None:
    variables = {
        "pair_supervisor_state": state,
        "pair_supervisor_site": loaded.site.name,
        "pair_supervisor_by_unit": by_unit,
        "pair_supervisor_asks": asks,
    }
    result, made = play(loaded, variables, check=False)
    recorder.changes.extend(made)
    if not result.ok:
        raise NoVerdictError(why_failed(result), hint="`dspark-ops supervise status`")
