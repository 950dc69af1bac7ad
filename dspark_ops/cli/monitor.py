"""`dspark-ops monitor`: the doctor on a timer of this machine, its result as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    JsonOption,
    SiteOption,
    YesOption,
    consent,
    finish,
    progress_printer,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The doctor on a timer, as metrics."
)

TextfileOption = Annotated[
    Path | None,
    typer.Option("--textfile", metavar="FILE", help="The file of metrics; default: the node exporter's directory."),
]


@app.command()
def install(
    site: SiteOption = DEFAULT_SITE,
    textfile: TextfileOption = None,
    every: Annotated[int, typer.Option("--every", metavar="SECONDS", min=30, help="From a run to the next.")] = 300,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="ID", help="As `doctor --ignore`, for every run.")
    ] = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the doctor by a systemd timer of this machine. As root: units of the system; else: units of the user."""
    from dspark_ops.config.load import load_site
    from dspark_ops.doctor.timer import TimerWish
    from dspark_ops.doctor.timer import install as run

    report = run(
        load_site(site),
        TimerWish(textfile=textfile, every_s=every, ignore=tuple(ignore or ())),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def remove(
    site: SiteOption = DEFAULT_SITE,
    textfile: TextfileOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the timer and its file of metrics."""
    from dspark_ops.config.load import load_site
    from dspark_ops.doctor.timer import TimerWish
    from dspark_ops.doctor.timer import remove as run

    report = run(
        load_site(site),
        TimerWish(textfile=textfile),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))
