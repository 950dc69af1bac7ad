"""`dspark-ops tenants evict`, `restore` and `forget`: stopped by consent, given back exactly, or not owed any more."""

from __future__ import annotations

from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    DiffOption,
    ForceHoldOption,
    JsonOption,
    SetOption,
    SiteOption,
    YesOption,
    consent,
    finish,
    progress_printer,
)
from dspark_ops.errors import ConfigError


def evict(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="As `tenants list` prints them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that `tenants list` shows.")] = False,
    kill: Annotated[
        bool, typer.Option("--kill", help="Consent to SIGKILL for a process or unit that does not end in time.")
    ] = False,
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Stop tenants at their owner, recorded first, and see their memory come back. Only what the list shows.

    Exit 4: the site's policy, or a key that is not on the list. 1: one does not end, or its memory stays away.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.tenants.evict import evict_verb

    if bool(keys) == everything:
        raise ConfigError("name the tenants to evict, or --all", hint="`dspark-ops tenants list` shows their keys")
    report = evict_verb(
        load_site(site, overrides=overrides or ()),
        keys=tuple(keys or ()),
        everything=everything,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        kill=kill,
        check=check,
        diff=diff,
        force_hold=force_hold,
    )
    raise typer.Exit(finish(report, as_json=as_json))


def restore(
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Only these; else all.")] = None,
    start_processes: Annotated[
        bool,
        typer.Option("--start-processes", help="Consent to start the recorded commands of bare processes."),
    ] = False,
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Bring back every evicted tenant: same container and policy, same unit, same state and enablement.

    Exit 4: what is left waits for --start-processes. 6: something could not be brought back; it stays owed.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.tenants.restore import restore_verb

    report = restore_verb(
        load_site(site, overrides=overrides or ()),
        keys=tuple(keys or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        start_processes=start_processes,
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))


def forget(
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="As KEY or head/KEY; a restore names them.")],
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Say that evicted tenants are not owed any more. Our own changes are taken back; nobody is started.

    Exit 4: a key that nothing is owed to. 6: a change of ours could not be taken back; that tenant stays owed.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.tenants.forget import forget_verb

    report = forget_verb(
        load_site(site, overrides=overrides or ()),
        keys=tuple(keys),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))
