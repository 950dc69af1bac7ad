"""`dspark-ops deploy`: the release of the site on both ranks, proven by a completion."""

from __future__ import annotations

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    DiffOption,
    JsonOption,
    SetOption,
    SiteOption,
    YesOption,
    consent,
    finish,
    progress_printer,
)


def deploy(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Put the release on both ranks and wait for a correct completion.

    Loads the image where it is absent, starts worker then head, and is done when a completion is correct. Whatever
    goes wrong, both ranks are taken down again and what served before is put back.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.launch import deploy as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        verb="deploy",
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))
