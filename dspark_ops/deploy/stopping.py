"""stop: head, then worker; what was interrupted before is settled, what tenants are owed is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import Applier, Documents
from dspark_ops.deploy.looking import look
from dspark_ops.deploy.owing import owed_lines
from dspark_ops.deploy.run_journal import close_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.deploy.taking_down import take_down
from dspark_ops.errors import DsparkError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.rank import RankFacts
from dspark_ops.releases import store
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.document import kept_stopped
from dspark_ops.supervise.control.keeper import keeper_of
from dspark_ops.supervise.control.outcome import UNCLEAR, Left
from dspark_ops.transport.ssh import SshRunner, open_runner


def stop(
    loaded: LoadedSite,
    *,
    consent: Callable[[str], None],
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    remove: bool = False,
    force_hold: bool = False,
) -> Report:
    """Stop the pair: head, then worker. The stopped containers keep their logs unless remove is given.

    A supervisor is held meanwhile and told that nothing is to run. force_hold: one that does not answer is stopped.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder("stop", site.name, progress)
    runners = {role: open_runner(site, role) for role in ROLES}
    try:
        with site_lock(site.name, on_wait=progress):
            with recorder.phase("observe"):
                seen = look(loaded, runners, recorder)
            keeper = keeper_of(loaded, recorder, seen.supervisor, seen.pair, force=force_hold)
            ours = {
                role: rank
                for role in ROLES
                if (rank := seen.pair.of(role).rank) is not None and rank.label("site") == site.name
            }
            todo = [role for role, rank in ours.items() if rank.running or remove]
            tells = keeper is not None and not keeper.keeps_nothing
            if not todo and not tells:
                if not check:
                    close_open(site.name)
                owed = owed_lines(runners)
                told = "\n".join(["no rank of this site runs; zero changes", *owed])
                return recorder.report(
                    "unchanged", ExitCode.OK, told, next_step="dspark-ops tenants restore" if owed else None
                )
            word = "stop and remove" if remove else "stop"
            lines = [f"  {word} rank container on {role} ({site.nodes.of(role).host})" for role in todo]
            plan = "\n".join([*(keeper.lines() if keeper is not None else ()), *lines])
            if not check:
                consent(f"plan for site {site.name}:\n{plan}")
                if keeper is not None:
                    keeper.take("stop", drain=True)
            documents = Documents.of(render_pair(site, loaded.profile), "")
            applier = Applier(loaded, recorder, documents, check=check, diff=diff)
            end = applier.remove if remove else applier.stop
            try:
                with recorder.phase("stop (check)" if check else "stop"):
                    take_down(end, progress, patience_s=0.0)
            except (DsparkError, KeyboardInterrupt) as failure:
                interrupted = isinstance(failure, KeyboardInterrupt)
                report = recorder.report(
                    "interrupted" if interrupted else "restore-incomplete",
                    ExitCode.INTERRUPTED if interrupted else ExitCode.RESTORE_INCOMPLETE,
                    getattr(failure, "message", "interrupted"),
                    next_step="dspark-ops stop",
                    left=[f"{role}: its rank may still run" for role in todo],
                )
                return report if keeper is None or check else keeper.hand_over(report, UNCLEAR)
            if check:
                return recorder.report("planned", ExitCode.OK, "nothing was changed")
            settle = partial(_settled, recorder, runners, ours, todo)
            if keeper is None:
                return settle()
            # The ranks are down: whatever becomes of the records here, it must not bring them back.
            left = Left("adopted", kept_stopped(keeper.told.adopted), loaded)
            return keeper.during(settle, lambda _: left, broken=left)
    finally:
        for runner in runners.values():
            runner.close()


def _settled(
    recorder: Recorder, runners: Mapping[Role, SshRunner], ours: Mapping[Role, RankFacts], todo: Sequence[Role]
) -> Report:
    """The ranks are down: no run is open any more, the releases' records say so, what tenants are owed is said."""
    close_open(recorder.site)
    for release in {rank.label("release") for rank in ours.values()} - {None}:
        store.ended(recorder.site, str(release))
    owed = owed_lines(runners)
    done = f"{' and '.join(todo)} stopped" if todo else "no rank of this site ran"
    return recorder.report(
        "stopped",
        ExitCode.OK,
        "\n".join([done, *owed]),
        next_step="dspark-ops tenants restore" if owed else "dspark-ops start",
    )
