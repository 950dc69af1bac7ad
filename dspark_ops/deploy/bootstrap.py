"""bootstrap: the host baseline and the fabric between the two, on both nodes or on neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.ansible_run.runner import run_playbook
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role, Site
from dspark_ops.deploy.reach import reach
from dspark_ops.fabric.apply import rail_variables
from dspark_ops.fabric.proven_change import PROVE, Consent, Play, ProvenChange, counted, render_plan
from dspark_ops.fabric.transaction import open_entries
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder

# earlyoom kills at its default threshold an engine that merely starts: leave it, give it low thresholds, or remove it.
Earlyoom = Literal["leave", "configure", "absent"]

# Also with nothing to change: a run that was killed before its confirmation has left a revert armed on the nodes.
# Verifying and confirming are one run: a host that fails the first ends it before the second.
_SETTLE: dict[str, tuple[str, ...]] = {PROVE: (), "settle": ("verify", "confirm")}


def host_variables(site: Site, users: Mapping[Role, str]) -> dict[Role, dict[str, object]]:
    """What each node is told: its own rails with the other end's address, and the login user. Pure."""
    return {
        role: {
            "host_baseline_service_user": users[role],
            "host_baseline_rail_netdevs": [rail.of(role).netdev for rail in site.fabric.rails],
            **rails,
        }
        for role, rails in rail_variables(site).items()
    }


def bootstrap(
    loaded: LoadedSite,
    *,
    consent: Consent,
    progress: Progress,
    check: bool = False,
    diff: bool = False,
    earlyoom: Earlyoom = "leave",
) -> Report:
    """Prepare both hosts and the rails between them, and prove it with jumbo pings both ways.

    Raises:
        NoVerdictError: a node is unreachable or without sudo; nothing was changed on the other either.
        RefusedError: a precheck forbids it (somebody else configures a rail, a rank runs), declined, or busy.
    """
    site = loaded.site
    recorder = Recorder("bootstrap", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        with recorder.phase("reach"):
            readings = reach(site, recorder)
        users = {role: readings[role].user or "" for role in ROLES}
        change = ProvenChange(
            site,
            recorder,
            _playing(loaded, host_variables(site, users), earlyoom),
            open_entries(readings),
            diff,
            harmless={"baseline": "the host baseline may be partly applied; the next bootstrap finishes it"},
        )
        with recorder.phase("plan") as note:
            planned = change.predict("precheck", "baseline", "fabric")
            note.detail = counted(len(planned))
        if check:
            return change.planned(planned)
        if planned:
            consent(render_plan(site, planned))
        return change.carry_out(
            {"baseline": ("baseline",), "fabric": ("fabric",), **_SETTLE} if planned else _SETTLE,
            unchanged="both hosts and all rails are as wanted; zero changes",
            next_step="dspark-ops deploy",
        )


def _playing(loaded: LoadedSite, per_host: dict[Role, dict[str, object]], earlyoom: Earlyoom) -> Play:
    def play(*tags: str, check: bool = False) -> PlayResult:
        return run_playbook(
            "bootstrap.yml",
            loaded,
            variables={"fabric_mtu": loaded.site.fabric.mtu, "host_baseline_earlyoom": earlyoom},
            host_variables=per_host,
            check=check,
            diff=True,
            tags=tags,
        )

    return play
