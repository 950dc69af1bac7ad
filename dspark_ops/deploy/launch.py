"""deploy, start and stop: observe, plan, consent, apply, prove; both ranks or neither."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import (
    Applier,
    Documents,
    StepFailedError,
    collect_logs,
    first_errors,
    load_served,
    save_served,
)
from dspark_ops.deploy.observed import Observation, observe
from dspark_ops.deploy.plan import DeployPlan, plan_deploy, require_known
from dspark_ops.deploy.readiness import wait_ready
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import DsparkError, NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.gid_record import remember
from dspark_ops.images.verify import look_at_nodes
from dspark_ops.report.models import Finding, NodeReport, Report, Verdict
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import SshRunner, open_runner

Consent = Callable[[str], None]

# A task that met the tag on its way: between our reading and the load somebody moved it.
_MOVED_TAG = "[image.moved_tag]"


def _look(loaded: LoadedSite, runners: Mapping[Role, SshRunner], recorder: Recorder) -> Observation:
    """Read both nodes and refuse to go on with half of the picture.

    Raises:
        NoVerdictError: a node or a needed fact of it could not be read.
    """
    seen = observe(loaded.site, loaded.profile, runners)
    recorder.nodes = tuple(
        NodeReport(
            role=node.role,
            host=node.host,
            reachable=node.reachable,
            error=node.error,
            round_trip_s=None if node.round_trip_s is None else round(node.round_trip_s, 3),
        )
        for node in seen.pair.nodes
    )
    require_known(seen.pair)
    return seen


def deploy(
    loaded: LoadedSite,
    *,
    verb: str,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    load_image: bool = True,
) -> Report:
    """Make the pair serve what the site says, and prove it with a completion.

    verb is `deploy`, or `start` with load_image False: then an absent image is refused instead of loaded.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder(verb, site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with site_lock(site.name, on_wait=progress):
            with recorder.phase("observe") as note:
                seen = _look(loaded, runners, recorder)
                plan = plan_deploy(site, render_pair(site, loaded.profile), seen, now=datetime.now(UTC))
                note.detail = "; ".join(plan.reasons) or "it serves what is wanted"
            if plan.load_image and not load_image:
                raise RefusedError(
                    f"the image {site.image.id[:19]} is not on {' and '.join(plan.load_image)}",
                    hint="`dspark-ops deploy`",
                )
            if plan.action == "start" and not plan.load_image:
                _look_inside(loaded, runners, recorder)
            if check:
                return _check(loaded, recorder, plan, diff=diff)
            if not plan.changes and plan.action == "keep":
                return recorder.report(
                    "unchanged", ExitCode.OK, f"release {plan.specs['head'].release} serves; zero changes"
                )
            if plan.changes:
                consent(plan.render(site))
            return _Launch(loaded, recorder, runners, plan, seen, diff=diff).run()
    finally:
        for runner in runners.values():
            runner.close()


def _look_inside(loaded: LoadedSite, runners: Mapping[Role, SshRunner], recorder: Recorder) -> None:
    """The image proves itself on both nodes before a rank is started from it.

    Raises:
        RefusedError: it is not what the site and the profile mean, on a node that is named.
        NoVerdictError: that could not be seen.
    """
    with recorder.phase("verify image") as note:
        nodes, findings = look_at_nodes(loaded, runners, quick=True, engine=False)
        recorder.findings += findings
        lost = [f"{node.role}: {node.error}" for node in nodes if not node.reachable]
        bad = [finding for finding in findings if finding.status == "fail"]
        unseen = [finding for finding in findings if finding.status == "unknown"]
        if bad:
            raise RefusedError(
                "refused before a rank was touched:\n"
                + "\n".join(f"  - {finding.node}: {finding.observed} [{finding.id}]" for finding in bad),
                hint="; ".join(dict.fromkeys(_remedy(finding) for finding in bad)),
            )
        if lost or unseen:
            told = [*lost, *(f"{finding.node}: {finding.observed} [{finding.id}]" for finding in unseen)]
            raise NoVerdictError("the image could not be looked into:\n" + "\n".join(told), hint="`dspark-ops doctor`")
        note.detail = "whole on both nodes"


def _remedy(finding: Finding) -> str:
    if finding.remedy is None:
        return "`dspark-ops image verify`"
    command = f": `{' '.join(finding.remedy.command)}`" if finding.remedy.command else ""
    return finding.remedy.text.rstrip(".") + command


def _check(loaded: LoadedSite, recorder: Recorder, plan: DeployPlan, *, diff: bool) -> Report:
    """What a deploy would do, asked of the playbook itself in check mode."""
    applier = Applier(loaded, recorder, Documents.of(plan.specs, plan.epoch), check=True, diff=diff)
    for tag in _tags(plan):
        with recorder.phase(f"{tag} (check)"):
            applier.step(tag)
    total = sum(applier.changed.values())
    recorder.progress(plan.render(loaded.site))
    return recorder.report("planned", ExitCode.OK, f"{total} changes would be made; nothing was changed")


def _tags(plan: DeployPlan) -> tuple[str, ...]:
    image = ("image",) if plan.load_image else ()
    return (*image, "settle", "worker", "head") if plan.action == "start" else image


@dataclass
class _Launch:
    """One deploy after consent. Every way out of `run` is both ranks up, the previous state, or what is left."""

    loaded: LoadedSite
    recorder: Recorder
    runners: Mapping[Role, SshRunner]
    plan: DeployPlan
    seen: Observation
    diff: bool

    def run(self) -> Report:
        documents = Documents.of(self.plan.specs, self.plan.epoch)
        applier = Applier(self.loaded, self.recorder, documents, diff=self.diff)
        touched = False
        try:
            for tag in _tags(self.plan):
                touched = touched or tag != "image"
                with self.recorder.phase(tag):
                    applier.step(tag)
                if tag == "image":
                    _look_inside(self.loaded, self.runners, self.recorder)
            # Whatever is waited for may have been begun by an earlier run: it is undone just the same.
            touched = touched or self.plan.action == "wait"
            if self.plan.action == "keep":
                return self.recorder.report("changed", ExitCode.OK, "the image was loaded; the ranks were not touched")
            with self.recorder.phase("ready") as note:
                text = self._wait(self.plan.epoch)
                note.detail = f"completion: {text.strip()!r}"
            save_served(self.loaded.site.name, documents)
            # What the ranks began with: `fabric verify` and the doctor compare later readings with it.
            remember(self.loaded.site.name, self.seen.pair)
            return self.recorder.report(
                "ready",
                ExitCode.OK,
                f"release {documents.release} serves {self.loaded.site.model.served_name}: {text.strip()}",
                next_step="dspark-ops doctor",
            )
        except (DsparkError, KeyboardInterrupt) as failure:
            return self._undo(applier, failure, touched=touched)

    def _wait(self, epoch: str) -> str:
        end = wait_ready(self.runners, self.loaded.site, self.loaded.profile, epoch, progress=self.recorder.progress)
        if not end.ready:
            raise StepFailedError(end.failure or "not ready")
        return end.text or ""

    def _undo(self, applier: Applier, failure: BaseException, *, touched: bool) -> Report:
        """Collect the logs, take both ranks down, put back what served before."""
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted" if interrupted else getattr(failure, "message", str(failure))
        self.recorder.progress(f"undoing: {why}")
        if not touched and _MOVED_TAG in why:
            return self.recorder.report("refused", ExitCode.REFUSED, f"{why}\nno rank was touched")
        if not touched and isinstance(failure, RefusedError | NoVerdictError):
            verdict: Verdict = "refused" if isinstance(failure, RefusedError) else "indeterminate"
            told = f"{why}\nno rank was touched"
            return self.recorder.report(verdict, failure.exit_code, told, next_step=failure.hint)
        if not touched:
            code = ExitCode.INTERRUPTED if interrupted else ExitCode.RESTORED
            return self.recorder.report(
                "interrupted" if interrupted else "restored", code, f"{why}\nno rank was touched"
            )
        causes: list[str] = []
        with self.recorder.phase("evidence") as note:
            causes = list(first_errors(collect_logs(self.runners, self.recorder)))
            note.detail = causes[0] if causes else "no error line in either log"
        try:
            with self.recorder.phase("undo") as note:
                applier.remove()
                note.detail = "both ranks are gone"
        except (DsparkError, KeyboardInterrupt) as second:
            left = [f"a rank container may still run: {getattr(second, 'message', 'interrupted')}"]
            return self.recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                _because(why, causes),
                next_step="dspark-ops stop",
                left=left,
            )
        back, left_text = self._put_back()
        if left_text is not None:
            return self.recorder.report(
                "restore-incomplete",
                ExitCode.RESTORE_INCOMPLETE,
                _because(why, causes),
                next_step="dspark-ops status",
                left=[left_text],
            )
        after = f"release {back} serves again" if back else "both ranks are gone, as nothing served before"
        code = ExitCode.INTERRUPTED if interrupted else ExitCode.RESTORED
        return self.recorder.report(
            "interrupted" if interrupted else "restored",
            code,
            _because(why, causes) + f"\n{after}",
            next_step="dspark-ops doctor",
        )

    def _put_back(self) -> tuple[str | None, str | None]:
        """(release that serves again or None, what could not be put back or None)."""
        head, worker = (self.seen.pair.of(role).rank for role in ROLES)
        served = self.seen.canary is not None and self.seen.canary.correct
        if not served or head is None or worker is None:
            return None, None
        release = head.label("release")
        previous = load_served(self.loaded.site.name, release)
        if previous is None:
            return (
                None,
                f"release {release} served before and is stopped: its specification is not kept on this machine",
            )
        again = previous.with_epoch(uuid.uuid4().hex)
        try:
            with self.recorder.phase("put back"):
                applier = Applier(self.loaded, self.recorder, again)
                for tag in ("settle", "worker", "head"):
                    applier.step(tag)
                self._wait(again.epoch)
            save_served(self.loaded.site.name, again)
        except (DsparkError, KeyboardInterrupt) as second:
            return (
                None,
                f"release {release} served before and did not come back: {getattr(second, 'message', 'interrupted')}",
            )
        return release, None


def _because(why: str, causes: list[str]) -> str:
    return why + ("\nfirst errors in the logs:\n" + "\n".join(f"  {line}" for line in causes) if causes else "")


def stop(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    remove: bool = False,
) -> Report:
    """Stop the pair: head, then worker. The stopped containers keep their logs unless remove is given.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder("stop", site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with site_lock(site.name, on_wait=progress):
            with recorder.phase("observe"):
                seen = _look(loaded, runners, recorder)
            ours = {
                role: rank
                for role in ROLES
                if (rank := seen.pair.of(role).rank) is not None and rank.label("site") == site.name
            }
            todo = [role for role, rank in ours.items() if rank.running or remove]
            if not todo:
                return recorder.report("unchanged", ExitCode.OK, "no rank of this site runs; zero changes")
            word = "stop and remove" if remove else "stop"
            plan = "\n".join(f"  {word} rank container on {role} ({site.nodes.of(role).host})" for role in todo)
            if not check:
                consent(f"plan for site {site.name}:\n{plan}")
            documents = Documents.of(render_pair(site, loaded.profile), "")
            applier = Applier(loaded, recorder, documents, check=check, diff=diff)
            try:
                with recorder.phase("stop (check)" if check else "stop"):
                    applier.remove() if remove else applier.stop()
            except StepFailedError as failure:
                return recorder.report(
                    "restore-incomplete",
                    ExitCode.RESTORE_INCOMPLETE,
                    failure.message,
                    next_step="dspark-ops status",
                    left=[f"{role}: its rank may still run" for role in todo],
                )
            if check:
                return recorder.report("planned", ExitCode.OK, "nothing was changed")
            return recorder.report(
                "stopped", ExitCode.OK, f"{' and '.join(todo)} stopped", next_step="dspark-ops start"
            )
    finally:
        for runner in runners.values():
            runner.close()
