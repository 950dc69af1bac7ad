"""Evicting tenants: exactly those that were shown, recorded on their node first, done when their memory came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.apply import StepFailedError
from dspark_ops.deploy.reach import reach
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.facts.model import Fact
from dspark_ops.facts.supervisor import read_supervisor
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.keeper import keeper_of
from dspark_ops.supervise.control.outcome import AS_BEFORE
from dspark_ops.tenants.model import Tenant
from dspark_ops.tenants.plan import asked_for, render_eviction
from dspark_ops.tenants.played import Told, play
from dspark_ops.tenants.policy import may_evict
from dspark_ops.tenants.sight import look_at_tenants
from dspark_ops.transport.ssh import open_runner

# An owner's time to end a tenant, and the memory's to come back, as the role has them; per tenant, with some air.
_PER_TENANT_S = 240.0
_START_S = 120.0


class Eviction(Fact):
    """One tenant that was asked for. outcome: evicted, or gone when it had ended by itself. freed_kib: by MemAvailable;
    None where nothing was stopped."""

    node: Role
    key: str
    outcome: str
    sentence: str
    freed_kib: int | None = None
    held_kib: int | None = None


def new_run(verb: str = "evict") -> str:
    """An id for a run; the records on the nodes bear it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{verb}"


def evict(
    loaded: LoadedSite,
    recorder: Recorder,
    tenants: Sequence[Tenant],
    run: str,
    *,
    kill: bool = False,
    check: bool = False,
    diff: bool = False,
) -> tuple[Eviction, ...]:
    """Stop the tenants on both nodes and wait until their memory came back. The caller has asked and holds the lock.

    kill: consent to SIGKILL for a process or unit that does not end in time. Whatever happens, what was stopped is on
    record on its node and comes back with `restore`.

    Raises:
        StepFailedError: one is not what was shown, does not end, comes again, or its memory stays away.
    """
    if not tenants:
        return ()
    documents = {role: [tenant.model_dump(mode="json") for tenant in tenants if tenant.node == role] for role in ROLES}
    told = play(
        loaded,
        recorder,
        "evict",
        documents,
        check=check,
        diff=diff,
        timeout_s=_START_S + _PER_TENANT_S * max(len(found) for found in documents.values()),
        tenants_run=run,
        tenants_kill_consent=kill,
    )
    return tuple(_eviction(item) for item in told)


def _eviction(told: Told) -> Eviction:
    return Eviction(
        node=told.node,
        key=told.key,
        outcome=told.outcome,
        sentence=told.sentence,
        freed_kib=told.freed_kib,
        held_kib=told.held_kib,
    )


def evict_verb(
    loaded: LoadedSite,
    *,
    keys: Sequence[str],
    everything: bool,
    consent: Callable[[str], None],
    progress: Progress,
    kill: bool = False,
    check: bool = False,
    diff: bool = False,
    force_hold: bool = False,
) -> Report:
    """`tenants evict`: look, refuse or ask, stop, report the memory that came back.

    Raises:
        NoVerdictError: a node is unreachable, or who holds what could not be told.
        RefusedError: the policy forbids it, a name is not on the list, or declined.
    """
    recorder = Recorder("tenants evict", loaded.site.name, progress)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(loaded.site, recorder)
        with recorder.phase("look") as note:
            runners = {role: open_runner(loaded.site, role) for role in ROLES}
            try:
                sight = look_at_tenants(loaded, runners)
            finally:
                for runner in runners.values():
                    runner.close()
            note.detail = f"{len(sight.all)} tenant(s)"
        if sight.problems:
            raise NoVerdictError(
                "who holds what could not be told; nothing was stopped:\n" + "\n".join(sight.problems),
                hint="`dspark-ops tenants list`",
            )
        chosen = asked_for(sight.all, keys, everything=everything)
        if not chosen:
            return recorder.report("unchanged", ExitCode.OK, "there is no tenant on either node; zero changes")
        refusals = [
            why for tenant in chosen if (why := may_evict(loaded.site, tenant, consent=True, named=keys)) is not None
        ]
        if refusals:
            raise RefusedError("refused before anything was stopped:\n" + "\n".join(f"  - {why}" for why in refusals))
        keeper = keeper_of(loaded, recorder, read_supervisor(readings["head"]), force=force_hold)
        if check:
            return _carry_out(loaded, recorder, chosen, kill=kill, check=True, diff=diff)
        consent("\n".join([render_eviction(chosen, kill=kill), *(keeper.lines() if keeper is not None else ())]))

        def work() -> Report:
            return _carry_out(loaded, recorder, chosen, kill=kill, check=False, diff=diff)

        if keeper is None:
            return work()
        # Held meanwhile: a start of its own would meet memory that is just being given back.
        keeper.take(f"eviction of {len(chosen)} tenant(s)", for_s=_START_S + _PER_TENANT_S * len(chosen))
        return keeper.during(work, lambda _: AS_BEFORE, broken=AS_BEFORE)


def _carry_out(
    loaded: LoadedSite, recorder: Recorder, chosen: Sequence[Tenant], *, kill: bool, check: bool, diff: bool
) -> Report:
    try:
        with recorder.phase("evict (check)" if check else "evict") as note:
            done = evict(loaded, recorder, chosen, new_run(), kill=kill, check=check, diff=diff)
            note.detail = "; ".join(f"{item.node}/{item.key}: {item.sentence or item.outcome}" for item in done)
    except StepFailedError as failure:
        if check:
            return recorder.report("failed", ExitCode.NO_VERDICT, f"nothing was changed: {failure.message}")
        return recorder.report(
            "failed",
            ExitCode.VERDICT_BAD,
            failure.message,
            next_step="dspark-ops tenants restore",
            left=["what this run has stopped stays so, on record on its node, until it is restored"],
        )
    if check:
        return recorder.report("planned", ExitCode.OK, f"{len(done)} tenant(s) would be evicted; nothing was changed")
    freed = sum(item.freed_kib or 0 for item in done)
    stopped = [item for item in done if item.outcome == "evicted"]
    return recorder.report(
        "changed" if stopped else "unchanged",
        ExitCode.OK,
        f"{len(stopped)} tenant(s) evicted, {freed / 1024**2:.2f} GiB of memory came back",
        next_step="dspark-ops tenants restore brings them back",
    )
