"""`fabric apply` and `fabric restore`: the rails alone, on both nodes or on neither, and never a lost box."""

from __future__ import annotations

from collections.abc import Callable

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.proven_change import PROVE, Consent, Play, ProvenChange, counted, render_plan
from dspark_ops.fabric.transaction import REVERT_AFTER_S, open_entries
from dspark_ops.facts.supervisor import read_supervisor
from dspark_ops.report.models import Change, Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.supervise.control.keeper import Keeper, keeper_of
from dspark_ops.supervise.control.outcome import AS_BEFORE, UNCLEAR, Left

PLAYBOOK = "fabric.yml"
#: What the steps themselves and their proof may take beside the nodes' own reverts.
_STEPS_S = 900.0


def rail_variables(site: Site) -> dict[Role, dict[str, object]]:
    """What each node is told of the fabric: its own rails with the other end's address. Pure."""
    found: dict[Role, dict[str, object]] = {}
    for role in ROLES:
        other: Role = "worker" if role == "head" else "head"
        found[role] = {
            "fabric_rails": [
                {
                    "name": rail.name,
                    "netdev": rail.of(role).netdev,
                    "address": str(rail.of(role).address),
                    "peer": str(rail.of(other).address.ip),
                }
                for rail in site.fabric.rails
            ]
        }
    return found


def apply(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    allow_management: bool = False,
    revert_after_s: int = REVERT_AFTER_S,
    force_hold: bool = False,
) -> Report:
    """Give every rail its address and MTU, persistently, and prove it; else put it back on both nodes.

    allow_management: consent to touch the port or the network that carries the operator's own sessions.
    revert_after_s: a node that is not confirmed after this time puts itself back. A supervisor is held meanwhile: it
    would see a rail vanish, or start a rank over one. force_hold: one that does not answer is stopped.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on either.
        RefusedError: a guard forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    recorder = Recorder("fabric apply", loaded.site.name, progress)
    play = _playing(loaded, fabric_allow_management=allow_management, fabric_revert_after_s=revert_after_s)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(loaded.site, recorder)
            before = open_entries(readings)
        change = ProvenChange(loaded.site, recorder, play, before, diff, revert_after_s=revert_after_s)
        with recorder.phase("plan") as note:
            planned = change.predict("precheck", "fabric")
            note.detail = counted(len(planned))
        seen = read_supervisor(readings["head"])
        keeper = keeper_of(loaded, recorder, seen, force=force_hold) if planned else None
        if check:
            return change.planned(planned)
        if planned:
            consent(_told(loaded, planned, keeper))
        # With nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
        settle = {PROVE: (), "confirm": ("confirm",)}

        def work() -> Report:
            return change.carry_out(
                {"fabric": ("fabric",), **settle} if planned else settle,
                unchanged="all rails are as wanted; zero changes",
                next_step="dspark-ops fabric verify",
            )

        return _held(keeper, recorder, work, revert_after_s)


def restore(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    force_hold: bool = False,
) -> Report:
    """Take back the last confirmed change of the fabric on both nodes; refused where a file was edited since.

    A supervisor is held meanwhile. force_hold: one that does not answer is stopped.
    """
    recorder = Recorder("fabric restore", loaded.site.name, progress)
    play = _playing(loaded, fabric_confirm_jumbo=False)
    nothing = "nothing of ours to take back; zero changes"
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(loaded.site, recorder)
            before = open_entries(readings)
        # The rails may have no address afterwards: logging in is all that can be proven.
        change = ProvenChange(loaded.site, recorder, play, before, diff, packets=False)
        with recorder.phase("plan") as note:
            planned = change.predict("restore_precheck", "restore")
            note.detail = counted(len(planned))
        seen = read_supervisor(readings["head"])
        keeper = keeper_of(loaded, recorder, seen, force=force_hold) if planned else None
        if check:
            return change.planned(planned)
        if not planned:
            return recorder.report("unchanged", ExitCode.OK, nothing)
        consent(_told(loaded, planned, keeper))

        def work() -> Report:
            return change.carry_out(
                {"restore": ("restore",), PROVE: (), "confirm": ("confirm",)}, unchanged=nothing, next_step=None
            )

        return _held(keeper, recorder, work, REVERT_AFTER_S)


def _told(loaded: LoadedSite, planned: tuple[Change, ...], keeper: Keeper | None) -> str:
    return "\n".join([render_plan(loaded.site, planned), *(keeper.lines() if keeper is not None else ())])


def _held(keeper: Keeper | None, recorder: Recorder, work: Callable[[], Report], revert_after_s: int) -> Report:
    """With the supervisor held meanwhile. Where a node may be half-way it stays so: a start needs the rails."""
    if keeper is None:
        return work()
    keeper.take(recorder.verb, for_s=_STEPS_S + 2.0 * revert_after_s)
    return keeper.during(work, _left_of, broken=UNCLEAR)


def _left_of(report: Report) -> Left:
    return UNCLEAR if report.left or report.exit_code == ExitCode.RESTORE_INCOMPLETE else AS_BEFORE


def _playing(loaded: LoadedSite, **variables: object) -> Play:
    def play(*tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            PLAYBOOK,
            loaded,
            variables={"fabric_mtu": loaded.site.fabric.mtu, **variables},
            host_variables=rail_variables(loaded.site),
            check=check,
            diff=True,
            tags=tags,
        )

    return play
