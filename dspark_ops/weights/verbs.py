"""`model fetch` and `model sync`: one download, and its mirror on the worker over all rails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import SshRunner, open_runner
from dspark_ops.weights.look import look, prove
from dspark_ops.weights.plan import WeightsPlan, plan_fetch, plan_sync, require_hub, require_record
from dspark_ops.weights.transfer import Moves, PlayFailedError

Consent = Callable[[str], None]


def fetch(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    quick: bool = False,
) -> Report:
    """Bring the pinned revision to the head, once, and mirror it to the worker. quick: what is there is not hashed.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    require_hub(loaded.site)
    recorder = Recorder("model fetch", loaded.site.name, progress)
    with _open(loaded) as runners, site_lock(loaded.site.name, on_wait=progress):
        moves = Moves(loaded, recorder, runners, check, diff)
        with recorder.phase("observe"):
            nodes = look(loaded.site, runners, recorder)
        with recorder.phase("ask the hub") as note:
            manifest = moves.manifest().completed(nodes["head"].record)
            note.detail = f"{len(manifest.files)} files"
        digests = None if quick else prove(loaded.site, runners, manifest, nodes, recorder)
        return _carry_out(moves, plan_fetch(loaded.site, manifest, nodes, digests), consent)


def sync(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    quick: bool = False,
) -> Report:
    """Make the worker hold the weights that the head holds. quick: what the worker has is not hashed.

    Raises:
        DsparkError: nothing was changed: unreachable, refused, declined, busy.
    """
    require_hub(loaded.site)
    recorder = Recorder("model sync", loaded.site.name, progress)
    with _open(loaded) as runners, site_lock(loaded.site.name, on_wait=progress):
        moves = Moves(loaded, recorder, runners, check, diff)
        with recorder.phase("observe"):
            nodes = look(loaded.site, runners, recorder)
        manifest = require_record(nodes["head"])
        digests = None if quick else prove(loaded.site, runners, manifest, nodes, recorder, ("worker",))
        return _carry_out(moves, plan_sync(loaded.site, nodes, digests), consent)


@contextmanager
def _open(loaded: LoadedSite) -> Iterator[dict[Role, SshRunner]]:
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        yield runners
    finally:
        for runner in runners.values():
            runner.close()


def _carry_out(moves: Moves, plan: WeightsPlan, consent: Consent) -> Report:
    recorder, site = moves.recorder, moves.loaded.site
    whole = f"{plan.manifest.repo} at {plan.manifest.revision[:12]}"
    if not plan.changes:
        return recorder.report("unchanged", ExitCode.OK, f"both nodes hold {whole}; zero changes")
    if moves.check:
        return _check(moves, plan)
    consent(plan.render(site))
    try:
        manifest = moves.fetch(plan) if plan.fetch else plan.manifest
        moves.mirror(plan, manifest)
    except PlayFailedError as failure:
        return _failed(moves, failure)
    except KeyboardInterrupt:
        return _interrupted(moves)
    told = [f"{step}: {text}" for step in ("fetch", "sync") if (text := moves.told(step)) is not None]
    message = f"both nodes hold {whole}" + (f"; {'; '.join(told)}" if told else "")
    report = recorder.report("changed", ExitCode.OK, message, next_step="dspark-ops model verify")
    return report.model_copy(update={"measurements": moves.measurements()})


def _check(moves: Moves, plan: WeightsPlan) -> Report:
    """The same plays under Ansible's check mode, so that what they say of changes is theirs."""
    try:
        if plan.fetch:
            moves.fetch(plan)
        moves.mirror(plan, plan.manifest)
    except PlayFailedError as failure:
        return moves.recorder.report("indeterminate", ExitCode.NO_VERDICT, failure.message)
    moves.recorder.progress(plan.render(moves.loaded.site))
    count = len(moves.recorder.changes)
    return moves.recorder.report("planned", ExitCode.OK, f"{count} changes would be made; nothing was changed")


def _failed(moves: Moves, failure: PlayFailedError) -> Report:
    lost = failure.result.unreachable
    again = f"dspark-ops {moves.recorder.verb}"
    if lost:
        left = [f"{role}: it was lost; a transfer that still runs there ends by itself" for role in lost]
        return moves.recorder.report(
            "restore-incomplete", ExitCode.RESTORE_INCOMPLETE, failure.message, next_step=again, left=left
        )
    message = f"{failure.message}\nwhat came is kept and proven; no snapshot was made of what is not whole"
    return moves.recorder.report("restored", ExitCode.RESTORED, message, next_step=again)


def _interrupted(moves: Moves) -> Report:
    with moves.recorder.phase("undo"):
        stopped = moves.close()
    left = () if stopped else ("head: the servers of the rails; they end by themselves after two silent minutes",)
    return moves.recorder.report(
        "interrupted",
        ExitCode.INTERRUPTED,
        "interrupted; what was brought so far is kept",
        next_step=f"dspark-ops {moves.recorder.verb}",
        left=left,
    )
