"""`fabric apply` and `fabric restore`: the rails alone, on both nodes or on neither, and never a lost box."""

from __future__ import annotations

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.exitcodes import ExitCode
from dspark_ops.fabric.proven_change import PROVE, Consent, Play, ProvenChange, counted, render_plan
from dspark_ops.fabric.transaction import REVERT_AFTER_S, open_entries
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder

PLAYBOOK = "fabric.yml"


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
) -> Report:
    """Give every rail its address and MTU, persistently, and prove it; else put it back on both nodes.

    allow_management: consent to touch the port or the network that carries the operator's own sessions.
    revert_after_s: a node that is not confirmed after this time puts itself back.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on either.
        RefusedError: a guard forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    recorder = Recorder("fabric apply", loaded.site.name, progress)
    play = _playing(loaded, fabric_allow_management=allow_management, fabric_revert_after_s=revert_after_s)
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            before = open_entries(reach(loaded.site, recorder))
        change = ProvenChange(loaded.site, recorder, play, before, diff, revert_after_s=revert_after_s)
        with recorder.phase("plan") as note:
            planned = change.predict("precheck", "fabric")
            note.detail = counted(len(planned))
        if check:
            return change.planned(planned)
        if planned:
            consent(render_plan(loaded.site, planned))
        # With nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
        settle = {PROVE: (), "confirm": ("confirm",)}
        return change.carry_out(
            {"fabric": ("fabric",), **settle} if planned else settle,
            unchanged="all rails are as wanted; zero changes",
            next_step="dspark-ops fabric verify",
        )


def restore(
    loaded: LoadedSite, *, consent: Consent, progress: Progress, check: bool = False, diff: bool = False
) -> Report:
    """Take back the last confirmed change of the fabric on both nodes; refused where a file was edited since."""
    recorder = Recorder("fabric restore", loaded.site.name, progress)
    play = _playing(loaded, fabric_confirm_jumbo=False)
    nothing = "nothing of ours to take back; zero changes"
    with site_lock(loaded.site.name, on_wait=progress):
        with recorder.phase("reach"):
            before = open_entries(reach(loaded.site, recorder))
        # The rails may have no address afterwards: logging in is all that can be proven.
        change = ProvenChange(loaded.site, recorder, play, before, diff, packets=False)
        with recorder.phase("plan") as note:
            planned = change.predict("restore_precheck", "restore")
            note.detail = counted(len(planned))
        if check:
            return change.planned(planned)
        if not planned:
            return recorder.report("unchanged", ExitCode.OK, nothing)
        consent(render_plan(loaded.site, planned))
        return change.carry_out(
            {"restore": ("restore",), PROVE: (), "confirm": ("confirm",)}, unchanged=nothing, next_step=None
        )


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
