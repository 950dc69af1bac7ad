"""`dspark-ops stop`: head, then worker."""

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


def stop(
    site: SiteOption = DEFAULT_SITE,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the containers too, with their logs.")] = False,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Stop the pair: head, then worker. Only our own containers are ever stopped."""
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.stopping import stop as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        remove=remove,
        force_hold=force_hold,
    )
    raise typer.Exit(finish(report, as_json=as_json))
