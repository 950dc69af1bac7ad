"""What an installation adopts: what an installed supervisor keeps already, else what runs, under its own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES
from dspark_ops.deploy.apply import Documents
from dspark_ops.deploy.looking import running_release
from dspark_ops.deploy.observed import Observation
from dspark_ops.deploy.returning import documents_of, site_of
from dspark_ops.deploy.run_journal import read_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.paths import state_dir
from dspark_ops.releases import store
from dspark_ops.supervise.control.document import (
    NOTHING,
    Adopted,
    Door,
    adopt,
    kept_site,
    read_told,
    refuse_another,
    render,
)
from dspark_ops.supervise.control.keeper import refuse_other_run, total_gib_of
from dspark_ops.supervise.zipapp import build, digest


@dataclass(frozen=True)
class Installing:
    """What an installation is given. before: whether there is one already, which has run."""

    adopted: Adopted
    door: Door
    program: Path
    config: Mapping[str, Any]
    before: bool


def wish_of(loaded: LoadedSite, seen: Observation, door: Door) -> Installing:
    """What is to be on both nodes.

    Raises:
        NoVerdictError: who keeps the pair could not be told.
        RefusedError: it keeps another site, another run holds it, or what it would keep is not known here.
    """
    supervisor = seen.supervisor
    if supervisor.installed is None:
        raise NoVerdictError(f"it could not be told whether there is a supervisor already: {supervisor.problem}")
    told = read_told(supervisor.config) if supervisor.installed else None
    refuse_another(loaded.site.name, kept_site(supervisor))
    refuse_other_run(supervisor)
    adopted = told.adopted if told is not None else running(loaded, seen)
    return Installing(
        adopted=adopted,
        door=door,
        program=_program(),
        config=render(_under(loaded, adopted), adopted, door, total_gib_of(seen.pair)),
        before=bool(supervisor.installed) and supervisor.ran is not False,
    )


def _under(loaded: LoadedSite, adopted: Adopted) -> LoadedSite:
    """The site as what is kept was deployed: the file may say another port or name since, at which nobody answers.

    Raises:
        RefusedError: it is to run, and what it is asked is not known here.
    """
    if adopted.release is None or adopted.wanted != "serving":
        return loaded
    kept = store.load(loaded.site.name, adopted.release)
    if kept is not None:
        return site_of(loaded, kept)
    if render_pair(loaded.site, loaded.profile)["head"].release == adopted.release:
        return loaded
    raise RefusedError(
        f"the supervisor keeps release {adopted.release}, whose record is not on this machine; nothing was changed",
        hint="install from the control host that deployed it, or `dspark-ops deploy` first",
    )


def running(loaded: LoadedSite, seen: Observation) -> Adopted:
    """The release that runs on both ranks, as it is kept here; nothing where no rank of this site runs.

    Raises:
        RefusedError: a run was cut off, the pair is not whole, a rank restarts by itself, or the release is not known.
    """
    site = loaded.site
    if read_open(site.name) is not None:
        raise RefusedError(
            "a deploy of this site was cut off and nobody has finished it; nothing was changed",
            hint="`dspark-ops deploy`, `rollback` or `stop` first",
        )
    ours = {role: rank for role in ROLES if (rank := seen.pair.of(role).rank) is not None}
    alone = [role for role, rank in ours.items() if rank.restart_policy not in (None, "no")]
    if alone:
        raise RefusedError(
            f"the rank container on {' and '.join(alone)} has a restart policy of its own, expected none; nothing was "
            "changed",
            hint="`dspark-ops stop --remove`, then `dspark-ops deploy`: it makes them without one",
        )
    release = running_release(seen, site.name)
    if release is None:
        if any(rank.running for rank in ours.values()):
            raise RefusedError(
                "what runs is not a pair of this site that was started together; nothing was changed",
                hint="`dspark-ops status`, then `deploy` or `stop`",
            )
        return NOTHING
    epoch = str(seen.pair.head.rank.label("epoch")) if seen.pair.head.rank is not None else ""
    kept = store.load(site.name, release)
    if kept is not None:
        return adopt(documents_of(kept, epoch))
    specs = render_pair(site, loaded.profile)
    if specs["head"].release == release:
        return adopt(Documents.of(specs, epoch))
    raise RefusedError(
        f"release {release} runs, and its record is not on this machine; nothing was changed",
        hint="install from the control host that deployed it, or `dspark-ops deploy` first",
    )


def _program() -> Path:
    """The program as a file of this machine, for Ansible to copy."""
    program = build()
    path = state_dir() / "programs" / f"supervise-{digest(program).removeprefix('sha256:')[:16]}.pyz"
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        path.write_bytes(program)
    except OSError as error:
        raise NoVerdictError(
            f"{path} cannot be written: {error.strerror or error}", hint="make the state directory writable"
        ) from error
    return path
