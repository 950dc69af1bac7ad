"""`dspark-ops logs`: both ranks on one timeline."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, SetOption, SiteOption


def logs(
    site: SiteOption = DEFAULT_SITE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=1, max=100_000, help="Lines of each rank to begin with.")
    ] = 100,
    overrides: SetOption = None,
) -> None:
    """Show the logs of both ranks on one timeline, each line with its time and rank."""
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.logs import pair_logs

    loaded = load_site(site, overrides=overrides or ())
    with contextlib.suppress(KeyboardInterrupt):
        for line in pair_logs(loaded, tail=tail, follow=follow):
            typer.echo(line)
