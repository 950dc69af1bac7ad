"""`doctor --fix`: read, judge, plan, ask, carry out step by step, then read again and judge by the same checks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.doctor.catalogue import Check
from dspark_ops.doctor.fix.actions import ACTIONS, SUBSUMES, Action, ActionId, Conduct, Consent
from dspark_ops.doctor.fix.fates import compare, foretell
from dspark_ops.doctor.fix.plan import (
    FixPlan,
    Step,
    Withheld,
    bad_ones,
    plan_fix,
    render_fix,
    stands_on_earlier,
    without,
)
from dspark_ops.doctor.fix.record import OpenFix, OpenStep, close_open, read_open, write_open
from dspark_ops.errors import DsparkError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Fix, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder

VERB = "doctor fix"
Judge = Callable[[], Report]


@dataclass(frozen=True)
class FixRun:
    """One run. judge: reads both nodes and judges; called before and after, so both judge the same checks.

    actions: what carries the steps out. consented: check ids that the operator named.
    """

    loaded: LoadedSite
    catalogue: Mapping[str, Check]
    judge: Judge
    consent: Consent
    progress: Progress
    consented: frozenset[str] = frozenset()
    check: bool = False
    diff: bool = False
    actions: Mapping[ActionId, Action] = field(default_factory=lambda: ACTIONS)

    def run(self) -> Report:
        """Plan, ask, carry out, judge again. Nothing is changed before consent.

        Raises:
            RefusedError: declined, nobody to ask, or another fix is at work.
            NoVerdictError: the record of an unfinished fix cannot be read or written.
        """
        site = self.loaded.site.name
        recorder = Recorder(VERB, site, self.progress)
        # A lock of its own: every action takes the site's lock for itself and looks again before it changes anything.
        with site_lock(f"{site[:56]}.fix", verb=VERB, on_wait=self.progress):
            left = read_open(site)
            with recorder.phase("read") as note:
                before = self.judge()
                note.detail = before.message
            resume = {step.action: step.ids for step in left.steps} if left is not None else {}
            with recorder.phase("plan") as note:
                plan = self._plan(before, resume)
                note.detail = f"{len(plan.steps)} to carry out, {len(plan.withheld)} withheld"
            if self.check or not plan.steps:
                return self._untouched(recorder, before, plan)
            self.consent(render_fix(site, plan, diff=self.diff))
            return self._carry_out(recorder, before, plan, left.steps if left is not None else ())

    def _plan(self, before: Report, resume: Mapping[ActionId, tuple[str, ...]]) -> FixPlan:
        """The plan, with what each action itself foretells; one that refuses or has nothing to change is withheld."""
        bad = bad_ones(before.findings)
        plan = plan_fix(before.findings, self.catalogue, self.consented, resume)
        refused: dict[ActionId, str] = {}
        foretold: list[Step] = []
        for step in plan.steps:
            if stands_on_earlier(step, foretold, self.catalogue):
                foretold.append(step)
                continue
            try:
                told = self._carry(step.action, check=True)
            except DsparkError as failure:
                refused[step.action] = f"{step.action} refuses: {failure.message}"
                continue
            if told.exit_code != ExitCode.OK:
                refused[step.action] = f"{step.action} cannot be foretold: {told.message}"
            elif not told.changes and not step.resumed:
                refused[step.action] = f"{step.action} would change nothing: it is not what cures this"
            else:
                foretold.append(replace(step, foretold=told.changes))
        return without(replace(plan, steps=tuple(foretold)), plan.steps, refused, bad, self.catalogue)

    def _carry(self, action: ActionId, *, check: bool) -> Report:
        how = Conduct(self.progress, self.progress, check=check, diff=self.diff)
        return self.actions[action].carry(self.loaded, how)

    def _untouched(self, recorder: Recorder, before: Report, plan: FixPlan) -> Report:
        """Nothing was changed: `--check`, or there is nothing to do, or all of it is withheld."""
        for step in plan.steps:
            recorder.changes.extend(step.foretold or ())
        if self.check and plan.steps:
            self.progress(render_fix(self.loaded.site.name, plan, diff=self.diff))
            verdict: Verdict = "planned"
            code = ExitCode.OK
            message = f"{len(plan.steps)} steps would be carried out; nothing was changed"
        else:
            code = _exit_code(before)
            bad = bad_ones(before.findings)
            verdict = "unchanged" if code == ExitCode.OK and not bad else before.verdict
            why = f"{len(plan.withheld)} withheld" if plan.withheld else "nothing to fix"
            message = f"{before.message}; {why}; zero changes"
        fates = foretell(plan, before.findings)
        return self._report(recorder, before, plan, fates, verdict, code, message)

    def _carry_out(self, recorder: Recorder, before: Report, plan: FixPlan, left: Sequence[OpenStep]) -> Report:
        """left: what an earlier run had begun. It stays on record until its action has ended, in whatever run."""
        site = self.loaded.site.name
        bad = bad_ones(before.findings)
        waiting = list(plan.steps)
        broken: Report | None = None
        done = plan
        interrupted = False
        ended: set[ActionId] = set()
        try:
            while waiting and broken is None:
                self._record(site, recorder, waiting, _still_open(left, ended))
                step = waiting.pop(0)
                try:
                    with recorder.phase(step.action.value) as note:
                        told = self._carry(step.action, check=False)
                        note.detail = told.message.splitlines()[0] if told.message else None
                except DsparkError as failure:
                    # It refused before its first change. What stands on it is not begun.
                    refused = {step.action: f"{step.action} refuses: {failure.message}"}
                    rest = replace(done, steps=tuple(s for s in done.steps if s.action != step.action))
                    done = without(rest, done.steps, refused, bad, self.catalogue)
                    waiting = [s for s in waiting if s in done.steps]
                    continue
                ended |= {step.action, SUBSUMES.get(step.action, step.action)}
                recorder.changes.extend(told.changes)
                recorder.left.extend(told.left)
                broken = told if told.exit_code != ExitCode.OK else None
        except KeyboardInterrupt:
            interrupted = True
        self._close(site, recorder, _still_open(left, ended))
        if interrupted or (broken is not None and broken.exit_code == ExitCode.INTERRUPTED):
            message = "interrupted; what was begun is put back or told as left" if broken is None else broken.message
            fates = foretell(done, before.findings)
            return self._report(recorder, before, done, fates, "interrupted", ExitCode.INTERRUPTED, message)
        return self._judged(recorder, before, done, broken, waiting)

    def _record(self, site: str, recorder: Recorder, waiting: Sequence[Step], left: Sequence[OpenStep]) -> None:
        again = {step.action for step in waiting}
        steps = [OpenStep(action=step.action, ids=step.resumed or step.ids) for step in waiting]
        steps += [step for step in left if step.action not in again]
        write_open(OpenFix(site=site, began_at=recorder.started_at, steps=tuple(steps)))

    def _close(self, site: str, recorder: Recorder, left: Sequence[OpenStep]) -> None:
        if not left:
            close_open(site)
            return
        # Where it cannot be written, what was written before tells of these steps too.
        with contextlib.suppress(NoVerdictError):
            self._record(site, recorder, (), left)

    def _judged(
        self, recorder: Recorder, before: Report, plan: FixPlan, broken: Report | None, waiting: Sequence[Step]
    ) -> Report:
        """Read again, judge by the same checks, and say what came of each finding."""
        with recorder.phase("read again") as note:
            after = self.judge()
            note.detail = after.message
        not_begun = [Withheld(f, "an earlier step failed") for step in waiting for f in step.cures]
        plan = replace(plan, withheld=(*plan.withheld, *not_begun))
        fates = compare(plan, before.findings, after.findings)
        worse = [f"{fate.id} on the {fate.node}" for fate in fates if fate.outcome == "worse"]
        counted = _counted(fates)
        message = f"{counted}; {after.message}" if counted else after.message
        if broken is not None:
            verdict, code = broken.verdict, _exit_code(broken)
            message = f"{broken.verb} failed: {broken.message}\n{message}"
        else:
            verdict, code = after.verdict, _exit_code(after)
            if worse and code == ExitCode.OK:
                verdict, code = "failed", ExitCode.VERDICT_BAD
            elif code == ExitCode.OK and not bad_ones(after.findings):
                verdict = "changed" if recorder.changes else "unchanged"
        if worse:
            message = f"worse than before: {', '.join(worse)}\n{message}"
        return self._report(recorder, after, plan, fates, verdict, code, message)

    def _report(
        self,
        recorder: Recorder,
        judged: Report,
        plan: FixPlan,
        fates: tuple[Fix, ...],
        verdict: Verdict,
        code: ExitCode,
        message: str,
    ) -> Report:
        recorder.nodes = judged.nodes
        recorder.findings.extend(judged.findings)
        told = "\n".join([message, *plan.unfinished])
        report = recorder.report(verdict, code, told, next_step=_next_step(judged, plan, fates))
        return report.model_copy(update={"fixes": fates})


def _still_open(left: Sequence[OpenStep], ended: Collection[ActionId]) -> list[OpenStep]:
    return [step for step in left if step.action not in ended]


def _next_step(judged: Report, plan: FixPlan, fates: tuple[Fix, ...]) -> str | None:
    """Another fix where something came to light; else consent where that is what is missing; else the doctor's own."""
    if any(fate.outcome == "uncovered" for fate in fates):
        return "dspark-ops doctor --fix"
    lacking = [w.finding.id for w in plan.withheld if w.reason.startswith("needs consent")]
    if lacking:
        return "dspark-ops doctor --fix " + " ".join(f"--consent {i}" for i in dict.fromkeys(lacking))
    return judged.next_step


def _exit_code(report: Report) -> ExitCode:
    return next(code for code in ExitCode if code == report.exit_code)


def _counted(fates: Sequence[Fix]) -> str:
    numbers: dict[str, int] = {}
    for fate in fates:
        numbers[fate.outcome] = numbers.get(fate.outcome, 0) + 1
    return ", ".join(f"{count} {outcome.replace('-', ' ')}" for outcome, count in numbers.items())
