"""deploy and start: observe, plan, make room, consent, apply, prove; both ranks or neither."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Applier, Documents
from dspark_ops.deploy.clearing import Clearing, look_around
from dspark_ops.deploy.giving_back import give_back
from dspark_ops.deploy.inside import look_at_weights, look_inside
from dspark_ops.deploy.looking import look, running_release
from dspark_ops.deploy.owing import owed_lines
from dspark_ops.deploy.plan import DeployPlan, Wanted, plan_deploy
from dspark_ops.deploy.run_journal import OpenRun, close_open, read_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.deploy.transaction import Steps, Transaction
from dspark_ops.errors import RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.releases import store
from dspark_ops.releases.model import Release
from dspark_ops.report.models import Report, Verdict, now
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.report.store import last_phase_seconds
from dspark_ops.supervise.control.document import adopt
from dspark_ops.supervise.control.keeper import Keeper, keeper_of
from dspark_ops.supervise.control.outcome import UNCLEAR, Left
from dspark_ops.tenants.evict import evict as evict_tenants
from dspark_ops.transport.ssh import SshRunner, open_runner

Consent = Callable[[str], None]


@dataclass(frozen=True)
class Wishes:
    """What the operator said on the command line.

    load_image: an absent image is loaded, else it is refused. evict: consent to the evictions that the plan lists.
    ensure: be content, at once, if the release answers. check, diff: as everywhere. force_hold: a supervisor that does
    not answer is stopped for the time of the verb.
    """

    load_image: bool = True
    evict: bool = False
    ensure: bool = False
    check: bool = False
    diff: bool = False
    force_hold: bool = False


def deploy(loaded: LoadedSite, *, verb: str, consent: Consent, progress: Progress, wishes: Wishes) -> Report:
    """Make the pair serve what the site says, and prove it with a completion. verb is `deploy` or `start`.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder(verb, site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with site_lock(site.name, on_wait=progress):
            specs = render_pair(site, loaded.profile)
            launch = Launch(loaded, recorder, runners, wishes, consent, specs)
            return launch.run(lambda epoch: Documents.of(specs, epoch))
    finally:
        for runner in runners.values():
            runner.close()


@dataclass
class Launch:
    """One deploy, start or rollback from the first look to the transaction. again: the release that is returned to."""

    loaded: LoadedSite
    recorder: Recorder
    runners: Mapping[Role, SshRunner]
    wishes: Wishes
    consent: Consent
    wanted: Mapping[Role, Wanted]
    again: Release | None = None

    def run(self, documents_of: Callable[[str], Documents]) -> Report:
        """documents_of: from the epoch of the start to what is started."""
        site, wishes = self.loaded.site, self.wishes
        before = read_open(site.name)
        with self.recorder.phase("observe") as note:
            seen = look(self.loaded, self.runners, self.recorder)
            plan = plan_deploy(site, self.wanted, seen, now=datetime.now(UTC))
            note.detail = "; ".join(plan.reasons) or "it serves what is wanted"
        documents = documents_of(plan.epoch)
        # What answers and was never proven, as after a run that was cut off, is proven before it is called served.
        keeps = plan.action == "keep" and not plan.load_image
        proven = keeps and self._proven(documents)
        keeper = keeper_of(self.loaded, self.recorder, seen.supervisor, seen.pair, force=wishes.force_hold)
        kept = keeper is None or keeper.keeps(plan.release)
        if proven and kept and wishes.ensure:
            return self._unchanged(plan, before)
        if plan.load_image and not wishes.load_image:
            raise RefusedError(
                f"the image {site.image.id[:19]} is not on {' and '.join(plan.load_image)}",
                hint="`dspark-ops deploy` or `dspark-ops image sync`",
            )
        room = Clearing()
        if plan.action == "start":
            room = look_around(self.loaded, self.runners, self.recorder, seen.pair, consent=wishes.evict)
            look_at_weights(self.loaded, self.runners, self.recorder)
            if not plan.load_image:
                look_inside(self.loaded, self.runners, self.recorder)
        if wishes.check:
            return self._check(documents, plan, room, None if proven and kept else keeper)
        if proven:
            return self._unchanged(plan, before, documents, keeper)
        if plan.changes or keeper is not None:
            self.consent(self._told(plan, room, keeper))
        steps = Steps(
            load_image=plan.load_image,
            start=plan.action == "start",
            wait=plan.action == "wait" or keeps,
            evictions=room.evict,
            reclaim=room.reclaim,
        )
        running = running_release(seen, site.name)
        opened = self._opened(before, running, plan)
        if keeper is not None:
            keeper.take(f"{self.recorder.verb} of release {plan.release}", drain=steps.start)
        transaction = Transaction(
            self.loaded,
            self.recorder,
            self.runners,
            documents,
            steps,
            seen,
            opened,
            again=self.again,
            diff=wishes.diff,
            # What a run that was cut off has begun is undone by a failure of this one, unless what served still runs.
            inherited=before is not None,
            touched=before is not None and (running is None or running != before.before),
        )
        if keeper is None:
            return transaction.run()
        return keeper.during(transaction.run, lambda _: transaction.left, broken=UNCLEAR)

    def _proven(self, documents: Documents) -> bool:
        kept = store.load(self.loaded.site.name, documents.release)
        return kept is not None and kept.start.epoch == documents.epoch and kept.start.status == "served"

    def _opened(self, before: OpenRun | None, running: str | None, plan: DeployPlan) -> OpenRun:
        """The record of this run. It goes on under the id of one that was cut off, and with what served before that.

        What runs is what served before if its record says that it served: asking it again would need its own port, name
        and text.
        """
        kept = store.load(self.loaded.site.name, running) if running is not None and running != plan.release else None
        served = kept.id if kept is not None and kept.served_at is not None else None
        return OpenRun(
            run=before.run if before is not None else uuid.uuid4().hex,
            site=self.loaded.site.name,
            verb=self.recorder.verb,
            release=plan.release,
            before=served or (before.before if before is not None else None),
            began_at=now(),
        )

    def _told(self, plan: DeployPlan, room: Clearing, keeper: Keeper | None) -> str:
        held = [] if keeper is None else keeper.lines()
        lines = [plan.render(self.loaded.site), *held, *room.lines()]
        last = last_phase_seconds(self.recorder.verb)
        known = [f"{name} {last[name]:.0f} s" for name in phases_of(plan, room) if name in last]
        if known:
            lines.append(f"  last  time: {', '.join(known)}")
        return "\n".join(lines)

    def _check(self, documents: Documents, plan: DeployPlan, room: Clearing, keeper: Keeper | None) -> Report:
        """What a deploy would do, asked of the playbook itself in check mode."""
        applier = Applier(self.loaded, self.recorder, documents, check=True, diff=self.wishes.diff)
        if room.evict:
            with self.recorder.phase("evict (check)"):
                evict_tenants(self.loaded, self.recorder, room.evict, "0" * 32, check=True, diff=self.wishes.diff)
        image = ("image",) if plan.load_image else ()
        for tag in (*image, "settle", "worker", "head") if plan.action == "start" else image:
            with self.recorder.phase(f"{tag} (check)"):
                applier.step(tag)
        self.recorder.progress(self._told(plan, room, keeper))
        total = len(self.recorder.changes)
        told = "; the supervisor would be told what to keep" if keeper is not None else ""
        return self.recorder.report("planned", ExitCode.OK, f"{total} changes would be made{told}; nothing was changed")

    def _unchanged(
        self, plan: DeployPlan, before: OpenRun | None, documents: Documents | None = None, keeper: Keeper | None = None
    ) -> Report:
        """It serves. A run that was cut off has nothing left to do but to give back whom it let go for nothing, and a
        supervisor that keeps something else is told."""
        if keeper is None or documents is None or keeper.keeps(plan.release):
            return self._settled(plan, before)
        left = Left("adopted", adopt(documents), self.loaded)
        self.consent("\n".join([f"release {plan.release} serves already", *keeper.lines()]))
        keeper.take(f"{self.recorder.verb} of release {plan.release}")
        return keeper.during(lambda: self._settled(plan, before), lambda _: left, broken=left)

    def _settled(self, plan: DeployPlan, before: OpenRun | None) -> Report:
        told = [f"release {plan.release} serves; zero changes"]
        if before is not None and not self.wishes.check:
            if self.again is not None and before.before == plan.release:
                with self.recorder.phase("give back"):
                    outcome = give_back(self.loaded, self.recorder, before.run, diff=self.wishes.diff)
                    told += [f"{item.node}/{item.key}: {item.sentence}" for item in outcome.restored]
            close_open(self.loaded.site.name)
        owed = owed_lines(self.runners) if before is not None else []
        verdict: Verdict = "changed" if self.recorder.changes else "unchanged"
        return self.recorder.report(
            verdict,
            ExitCode.OK,
            "\n".join([*told, *owed]),
            next_step="dspark-ops tenants restore" if owed else None,
        )


def phases_of(plan: DeployPlan, room: Clearing) -> tuple[str, ...]:
    """The phases that this plan will go through, by the names that reports have."""
    image = ("image", "verify image") if plan.load_image else ()
    evict = ("evict",) if room.evict else ()
    start = ("settle", "memory", "worker", "head") if plan.action == "start" else ()
    return (*image, *evict, *start, "ready", "effective", "gate")
