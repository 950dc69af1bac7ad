"""rollback: the release that served before, on both ranks, by the same transaction as a deploy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dspark_ops.ansible_run.lock import site_lock
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.deploy.launch import Consent, Launch, Wishes
from dspark_ops.deploy.returning import documents_of, site_of
from dspark_ops.deploy.run_journal import OpenRun, read_open
from dspark_ops.errors import RefusedError
from dspark_ops.facts import rank
from dspark_ops.facts.rank import LABEL
from dspark_ops.releases import store
from dspark_ops.releases.model import Release
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import SshRunner, open_runner, read_pair


@dataclass(frozen=True)
class KeptRank:
    """A rank of a kept release, as far as a running container is compared with it."""

    release: str
    spec: str

    def digest(self) -> str:
        return self.spec


def rollback(
    loaded: LoadedSite, release_id: str | None, *, consent: Consent, progress: Progress, wishes: Wishes
) -> Report:
    """Return to a kept release; release_id None: to the one that served before what runs, or before a run cut off.

    Raises:
        DsparkError: nothing was changed: no such release, unreachable, refused, declined, busy.
    """
    site = loaded.site
    recorder = Recorder("rollback", site.name, progress)
    with site_lock(site.name, on_wait=progress):
        opened = read_open(site.name)
        if release_id is not None:
            target = store.match(site.name, release_id)
        else:
            target = choose(site.name, opened, there=_there(loaded) if opened is None else frozenset())
        under = site_of(loaded, target)
        leaves = _left_behind(site.name, target)
        runners: dict[Role, SshRunner] = {role: open_runner(under.site, role) for role in ROLES}
        try:
            wanted = {
                role: KeptRank(target.id, str(target.documents[role]["labels"][f"{LABEL}spec"])) for role in ROLES
            }
            # The site's archive is that of its own image; another one has to be on the nodes still.
            able = replace(wishes, load_image=target.image.id == site.image.id)
            launch = Launch(under, recorder, runners, able, consent, wanted, again=target)
            report = launch.run(lambda epoch: documents_of(target, epoch))
        finally:
            for runner in runners.values():
                runner.close()
        if report.exit_code == 0 and not wishes.check and leaves is not None:
            store.mark(site.name, leaves, "rolled-back", f"rolled back to {target.id}")
    return report


def choose(site: str, opened: OpenRun | None, *, there: frozenset[str]) -> Release:
    """The release that a rollback without an id leads to.

    there: the releases whose rank containers are on the nodes, running or not. Where the last that served is not among
    them and was not stopped in order, a run that was cut off took it down: then it is the one to return to.

    Raises:
        RefusedError: nothing served before.
    """
    current = store.current(site)
    if opened is not None:
        target = store.load(site, opened.before) if opened.before is not None else current
        if target is None or (opened.before is None and target.id == opened.release):
            target = store.previous(site, opened.release)
    elif current is not None and current.id not in there and current.start.ended_at is None:
        target = current
    else:
        target = store.previous(site)
    if target is None:
        raise RefusedError(
            "there is no release to return to: none served before this one", hint="`dspark-ops releases` lists them"
        )
    return target


def _there(loaded: LoadedSite) -> frozenset[str]:
    """The releases of this site's rank containers; a node that cannot be read is found out by the look later."""
    readings = read_pair(loaded.site, rank.PROBES)
    found = [rank.read_rank(readings[role]) for role in ROLES]
    ours = [one.label("release") for one in found if one is not None and one.label("site") == loaded.site.name]
    return frozenset(release for release in ours if release is not None)


def _left_behind(site: str, target: Release) -> str | None:
    """The release that a return to the target gives up: the last that served, if the target served before it."""
    current = store.current(site)
    if current is None or current.id == target.id or current.served_at is None or target.served_at is None:
        return None
    return current.id if target.served_at < current.served_at else None
