"""`dspark-ops model`: the weights of the pinned revision on both nodes."""

from __future__ import annotations

from typing import Annotated

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

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The weights: fetch, verify, sync.",
)

QuickOption = Annotated[bool, typer.Option("--quick", help="Look at sizes alone; hash nothing that is there.")]


@app.command()
def fetch(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    quick: QuickOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Bring the pinned revision from the hub to the head, once, and mirror it to the worker over all rails.

    Room is looked for on both nodes first. A download goes on where it was cut; every file is proven by size and
    digest, what is wrong is thrown away and named. HF_TOKEN of your environment is used for a gated repository.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.weights.verbs import fetch as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        quick=quick,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def sync(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    quick: QuickOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Mirror the head's weights to the worker over all rails: only what the worker lacks or has wrong."""
    from dspark_ops.config.load import load_site
    from dspark_ops.weights.verbs import sync as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        quick=quick,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def verify(
    site: SiteOption = DEFAULT_SITE,
    quick: QuickOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Hold every file on both nodes against size and sha256 of the fetch. Reads only.

    Exit 1: something is missing, wrong or unfinished, and is named. Exit 3: it could not be told.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.weights.verify import verify as run

    report = run(load_site(site, overrides=overrides or ()), progress_printer(), quick=quick)
    raise typer.Exit(finish(report, as_json=as_json))
