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
from dspark_ops.facts.rank import LABEL
from dspark_ops.releases import store
from dspark_ops.releases.model import Release
from dspark_ops.report.models import Report
from dspark_ops.report.recorder import Progress, Recorder
from dspark_ops.transport.ssh import SshRunner, open_runner


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
        target = store.match(site.name, release_id) if release_id is not None else choose(site.name, opened)
        under = site_of(loaded, target)
        left = opened.release if opened is not None else _current(site.name)
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
        if report.exit_code == 0 and not wishes.check and left is not None and left != target.id:
            store.mark(site.name, left, "rolled-back", f"rolled back to {target.id}")
    return report


def choose(site: str, opened: OpenRun | None) -> Release:
    """The release that a rollback without an id leads to.

    Raises:
        RefusedError: nothing served before.
    """
    if opened is not None:
        target = store.load(site, opened.before) if opened.before is not None else store.current(site)
        if target is None or target.id == opened.release:
            target = store.previous(site, opened.release)
    else:
        target = store.previous(site)
    if target is None:
        raise RefusedError(
            "there is no release to return to: none served before this one", hint="`dspark-ops releases` lists them"
        )
    return target


def _current(site: str) -> str | None:
    found = store.current(site)
    return found.id if found is not None else None
