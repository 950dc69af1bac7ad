"""`dspark-ops start`: worker, then head; the image must be there."""

from __future__ import annotations

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


def start(
    site: SiteOption = DEFAULT_SITE,
    evict: EvictOption = False,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Start the pair: worker, then head, and wait for a correct completion. Loads no image."""
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.launch import Wishes
    from dspark_ops.deploy.launch import deploy as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        verb="start",
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        wishes=Wishes(load_image=False, evict=evict, check=check, diff=diff, force_hold=force_hold),
    )
    raise typer.Exit(finish(report, as_json=as_json))
