"""`dspark-ops rollback`: back to a release that served."""

from __future__ import annotations

from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    DiffOption,
    EvictOption,
    ForceHoldOption,
    JsonOption,
    SetOption,
    SiteOption,
    YesOption,
    consent,
    finish,
    progress_printer,
)


def rollback(
    release: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A release, or the beginning of its id; default: the last one.")
    ] = None,
    site: SiteOption = DEFAULT_SITE,
    evict: EvictOption = False,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Return to a release that served: the same arguments, image and compile cache, proven by a completion.

    Without an ID: the one that served before what runs now, or before a deploy that was cut off. The site file is not
    touched: the next `deploy` brings what it says.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.launch import Wishes
    from dspark_ops.deploy.rollback import rollback as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        release,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        wishes=Wishes(evict=evict, check=check, diff=diff, force_hold=force_hold),
    )
    raise typer.Exit(finish(report, as_json=as_json))
