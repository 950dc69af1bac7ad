"""`dspark-ops image sync`: the head's image on the worker, over a rail."""

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


def sync(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Bring the site's image from the head to the worker over a rail: only the layers that the worker lacks.

    Every layer is checked against its digest; a transfer that was cut goes on where it was. The worker's previous image
    is kept. A tag that can move, or has moved, is refused.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.images.sync import sync as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))
