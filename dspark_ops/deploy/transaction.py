"""One start of a release as a transaction on two machines: everything after consent, and every way out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.deploy.apply import Applier, Documents, StepFailedError, collect_logs, first_errors
from dspark_ops.deploy.clearing import refuse
from dspark_ops.deploy.giving_back import give_back
from dspark_ops.deploy.inside import look_inside
from dspark_ops.deploy.looking import running_release
from dspark_ops.deploy.observed import Observation, observe
from dspark_ops.deploy.readiness import rank_failure, wait_ready
from dspark_ops.deploy.returning import put_back
from dspark_ops.deploy.run_journal import OpenRun, close_open, write_open
from dspark_ops.deploy.taking_down import take_down
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.gid_record import remember
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.memory.reclaim import reclaim
from dspark_ops.memory.room import wait_for_room
from dspark_ops.releases import store
from dspark_ops.releases.compose import compose
from dspark_ops.releases.effective import ReadBack, compare, read_back
from dspark_ops.releases.gate import run_gate
from dspark_ops.releases.model import GateResult, Release, ReleaseStatus
from dspark_ops.report.models import Finding, Report, Verdict, now
from dspark_ops.report.recorder import Recorder
from dspark_ops.supervise.control.document import adopt
from dspark_ops.supervise.control.outcome import AS_BEFORE, UNCLEAR, Left
from dspark_ops.tenants.evict import evict
from dspark_ops.tenants.model import Tenant
from dspark_ops.transport.ssh import SshRunner

# A task that met the tag on its way: between our reading and the load somebody moved it.
_MOVED_TAG = "[image.moved_tag]"


@dataclass(frozen=True)
class Steps:
    """What one run does, decided before consent.

    load_image: on which nodes. start: settle, worker and head are run; else the ranks are waited for (or left alone,
    with wait False). evictions: tenants that leave first. reclaim: nodes whose page cache is given up by consent.
    """

    load_image: tuple[Role, ...] = ()
    start: bool = True
    wait: bool = True
    evictions: tuple[Tenant, ...] = ()
    reclaim: tuple[Role, ...] = ()


@dataclass
class Transaction:
    """One run after consent. Every way out of `run` is both ranks up, the previous state, or what is left.

    again: the kept release that this run returns to; None when the site's own is started. inherited: it follows a run
    that was cut off, under its id. touched: ranks may be half-way already, so a failure takes them down. left: what a
    supervisor is told of how the pair was left.
    """

    loaded: LoadedSite
    recorder: Recorder
    runners: Mapping[Role, SshRunner]
    documents: Documents
    steps: Steps
    seen: Observation
    opened: OpenRun
    again: Release | None = None
    diff: bool = False
    inherited: bool = False
    touched: bool = False
    evicted: bool = False
    left: Left = UNCLEAR
    _gate: GateResult | None = None
    _readback: ReadBack | None = None
    _applier: Applier = field(init=False)

    def __post_init__(self) -> None:
        self._applier = Applier(self.loaded, self.recorder, self.documents, diff=self.diff)

    def run(self) -> Report:
        try:
            if self.steps.start or self.steps.wait or self.steps.evictions:
                write_open(self.opened)
            self._image()
            if not self.steps.start and not self.steps.wait:
                self.left = AS_BEFORE
                return self.recorder.report("changed", ExitCode.OK, "the image was loaded; the ranks were not touched")
            self._make_room()
            self._start()
            text = self._ready()
            self._prove()
            self._keep("served")
            # What the ranks began with: `fabric verify` and the doctor compare later readings with it.
            remember(self.loaded.site.name, self.seen.pair)
        except (Exception, KeyboardInterrupt) as failure:  # whatever it was: two machines are half-way
            return self._undo(failure)
        return self._done(text)

    def _done(self, text: str) -> Report:
        """It serves. Tenants that a run which was cut off let go for the release that is given up come back now."""
        self.left = Left("adopted", adopt(self.documents), self.loaded)
        told = [f"release {self.documents.release} serves {self.loaded.site.model.served_name}: {text.strip()}"]
        left: list[str] = []
        if self.inherited and self.again is not None and self.opened.before == self.documents.release:
            try:
                more, left = self._give_back()
                told += more
            except (DsparkError, KeyboardInterrupt) as failure:
                left = [f"tenants: {getattr(failure, 'message', 'interrupted')}"]
        close_open(self.loaded.site.name)
        if left:
            return self.recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                "\n".join(told),
                next_step="dspark-ops tenants restore",
                left=left,
            )
        return self.recorder.report("ready", ExitCode.OK, "\n".join(told), next_step="dspark-ops doctor")

    def _image(self) -> None:
        if not self.steps.load_image:
            return
        with self.recorder.phase("image"):
            self._applier.step("image")
        look_inside(self.loaded, self.runners, self.recorder)

    def _make_room(self) -> None:
        """Tenants leave while the old release still serves; then the old ranks, and what is free is looked at again."""
        if self.steps.evictions:
            self.evicted = True
            with self.recorder.phase("evict") as note:
                evict(self.loaded, self.recorder, self.steps.evictions, self.opened.run, diff=self.diff)
                note.detail = ", ".join(f"{t.node}/{t.key}" for t in self.steps.evictions)
        if not self.steps.start:
            return
        self.touched = True
        with self.recorder.phase("settle"):
            self._applier.step("settle")
        with self.recorder.phase("memory") as note:
            if self.steps.reclaim:
                reclaim(self.loaded, self.recorder, self.steps.reclaim, diff=self.diff)
            site, profile = self.loaded.site, self.loaded.profile
            seen: list[PairFacts] = []

            def again() -> PairFacts:
                seen.append(observe(site, profile, self.runners).pair)
                return seen[-1]

            refuse(wait_for_room(again, site, profile, progress=self.recorder.progress))
            note.detail = "; ".join(
                f"{node.role} {node.memory.available_gib:.1f} GiB available"
                for node in seen[-1].nodes
                if node.memory is not None and node.memory.available_gib is not None
            )

    def _start(self) -> None:
        for tag in ("worker", "head") if self.steps.start else ():
            with self.recorder.phase(tag):
                self._applier.step(tag)

    def _ready(self) -> str:
        with self.recorder.phase("ready") as note:
            end = wait_ready(
                self.runners,
                self.loaded.site,
                self.loaded.profile,
                self.documents.epoch,
                progress=self.recorder.progress,
            )
            if not end.ready:
                raise StepFailedError(end.failure or "not ready")
            text = end.text or ""
            note.detail = f"completion: {text.strip()!r}"
        return text

    def _prove(self) -> None:
        """What runs is what was asked for, and the site's own gate agrees."""
        with self.recorder.phase("effective") as note:
            self._readback = read_back(self.runners)
            self._still_run()
            seen = {role: rank for role, rank in self._readback.effective.items() if rank is not None}
            wrong = compare({role: self.documents.per_role[role] for role in seen}, seen)
            if wrong:
                told = "\n".join(f"  {difference.sentence()}" for difference in wrong)
                raise StepFailedError(f"what runs is not what was asked for:\n{told}")
            note.detail = "arguments, environment and image are as asked, on both ranks"
            if self._readback.why:
                problem = "; ".join(f"{role}: {why}" for role, why in self._readback.why.items())
                self.recorder.findings.append(_not_read_back(problem))
                note.detail = f"could not be read back: {problem}"
        if self.loaded.site.gate is None:
            return
        with self.recorder.phase("gate") as note:
            self._gate = run_gate(self.loaded, self.runners["head"], self.documents.release, self.recorder.progress)
            if self._gate is not None:
                note.detail = self._gate.message
                if not self._gate.passed:
                    tail = "".join(f"\n  {line}" for line in self._gate.tail[-5:])
                    raise StepFailedError(f"the gate did not pass: {self._gate.message}{tail}")
            self._still_run()

    def _still_run(self) -> None:
        failure = rank_failure(self.runners, self.documents.epoch)
        if failure is not None:
            raise StepFailedError(failure)

    def _keep(self, status: ReleaseStatus, reason: str | None = None) -> None:
        """The release's record: what it was started with, what was read back, how it went."""
        served = status == "served"
        seen = self._readback if self._readback is not None and not self._readback.why else None
        record = compose(
            self.loaded,
            self.documents.per_role,
            seen,
            status=status,
            reason=reason,
            started_at=self.recorder.started_at,
            ready_at=now() if served else None,
            ended_at=None if served else now(),
            phases=self.recorder.phases,
            gate=self._gate,
        )
        if self.again is not None:
            # What the release is stays as it was; what was seen and measured is this start's.
            record = record.model_copy(
                update={
                    name: getattr(self.again, name)
                    for name in ("profile", "model", "cache", "site_digest", "tool_version")
                }
            )
        store.save(record)

    def _undo(self, failure: BaseException) -> Report:
        """Collect the logs, take both ranks down, put back what served before, give the tenants back."""
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", f"{type(failure).__name__}: {failure}")
        self.recorder.progress(f"undoing: {why}")
        self.touched = self.touched or self._lost_what_served()
        if not self.touched and not self.evicted and not self.inherited:
            close_open(self.loaded.site.name)
            self.left = AS_BEFORE
            return self._untouched(failure, why)
        causes: list[str] = []
        after: list[str] = []
        left: list[str] = []
        try:
            if self.touched:
                causes = self._evidence()
                with self.recorder.phase("undo") as note:
                    take_down(self._applier.remove, self.recorder.progress)
                    note.detail = "both ranks are gone"
                back, problem = self._put_back()
                left += [problem] if problem else []
                if not back and not problem:
                    self.left = AS_BEFORE
                after.append(f"release {back} serves again" if back else "both ranks are gone")
                if not back and not problem:
                    after[-1] += ", as nothing served before"
            else:
                self.left = AS_BEFORE
            told, lost = self._give_back()
            after += told
            left += lost
        except (DsparkError, OSError, KeyboardInterrupt) as second:
            left.append(f"a rank container may still run: {getattr(second, 'message', str(second) or 'interrupted')}")
            left.append("tenants that were asked to leave are still owed: `dspark-ops tenants restore`")
        return self._undone(_because(why, causes), after, left, interrupted=interrupted)

    def _lost_what_served(self) -> bool:
        """Whether what served before does not run any more though we did nothing to it: a node went away meanwhile."""
        if self.opened.before is None:
            return False
        seen = observe(self.loaded.site, self.loaded.profile, self.runners)
        return running_release(seen, self.loaded.site.name) != self.opened.before

    def _untouched(self, failure: BaseException, why: str) -> Report:
        told = f"{why}\nno rank was touched"
        if isinstance(failure, KeyboardInterrupt):
            return self.recorder.report("interrupted", ExitCode.INTERRUPTED, told)
        if _MOVED_TAG in why:
            return self.recorder.report("refused", ExitCode.REFUSED, told)
        if isinstance(failure, RefusedError | NoVerdictError):
            verdict: Verdict = "refused" if isinstance(failure, RefusedError) else "indeterminate"
            return self.recorder.report(verdict, failure.exit_code, told, next_step=failure.hint)
        if self.steps.wait and not self.steps.start:
            # Nobody asked for a start: the ranks were there, and what is wrong with them is only told.
            return self.recorder.report("failed", ExitCode.VERDICT_BAD, told, next_step="dspark-ops doctor")
        return self.recorder.report("restored", ExitCode.RESTORED, told)

    def _evidence(self) -> list[str]:
        """The causes in the logs. Nothing that goes wrong here keeps a rank alive, nor does an impatient Ctrl-C."""
        causes: list[str] = []
        try:
            with self.recorder.phase("evidence") as note:
                causes = list(first_errors(collect_logs(self.runners, self.recorder)))
                note.detail = causes[0] if causes else "no error line in either log"
        except (DsparkError, OSError, KeyboardInterrupt) as second:
            self.recorder.progress(f"no evidence: {getattr(second, 'message', str(second) or 'interrupted')}")
        return causes

    def _put_back(self) -> tuple[str | None, str | None]:
        """(release that serves again or None, what could not be put back or None).

        Raises:
            StepFailedError: it did not come back, and its ranks could not be taken down again.
        """
        before = self.opened.before
        if before is None:
            return None, None
        if before == self.documents.release:
            return None, f"release {before} served before and does not start now"
        try:
            with self.recorder.phase("put back"):
                self.left = put_back(self.loaded, self.recorder, self.runners, before)
        except (DsparkError, OSError, KeyboardInterrupt) as second:
            why = getattr(second, "message", str(second) or "interrupted")
            with self.recorder.phase("undo again"):
                take_down(self._applier.remove, self.recorder.progress)
            return None, f"release {before} served before and did not come back: {why}"
        return before, None

    def _give_back(self) -> tuple[list[str], list[str]]:
        """Whoever had to leave in this run comes back: (what is told, what is left)."""
        if not self.evicted and not self.inherited:
            return [], []
        with self.recorder.phase("give back") as note:
            outcome = give_back(self.loaded, self.recorder, self.opened.run, diff=self.diff)
            note.detail = f"{len(outcome.restored)} back, {len(outcome.left)} left"
        told = [f"{item.node}/{item.key}: {item.sentence}" for item in outcome.restored]
        return told, [f"{item.node}/{item.key}: {item.sentence}" for item in outcome.left]

    def _undone(self, why: str, after: Sequence[str], left: Sequence[str], *, interrupted: bool) -> Report:
        if self.touched:
            try:
                self._keep("failed", why.splitlines()[0])
            except DsparkError as second:
                left = [*left, second.message]
        told = "\n".join([why, *after])
        if left:
            return self.recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                told,
                next_step="dspark-ops deploy" if self.touched else "dspark-ops tenants restore",
                left=left,
            )
        close_open(self.loaded.site.name)
        code = ExitCode.INTERRUPTED if interrupted else ExitCode.RESTORED
        verdict: Verdict = "interrupted" if interrupted else "restored"
        return self.recorder.report(verdict, code, told, next_step="dspark-ops doctor")


def _because(why: str, causes: Sequence[str]) -> str:
    return why + ("\nfirst errors in the logs:\n" + "\n".join(f"  {line}" for line in causes) if causes else "")


def _not_read_back(problem: str) -> Finding:
    return Finding(
        id="service.effective",
        node="pair",
        status="unknown",
        severity="advised",
        title="What runs is what was asked for",
        observed=problem,
        expected="the argument list and environment of both ranks",
    )
