"""`dspark-ops monitor`: Prometheus, Alertmanager and the exporters on the pair, and the doctor on a timer here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    JsonOption,
    SetOption,
    SiteOption,
    YesOption,
    consent,
    emit,
    finish,
    progress_printer,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Monitoring of the pair: install, remove, status, dashboards; and the doctor on a timer.",
)
timer = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The doctor on a timer of this machine, as metrics.",
)
app.add_typer(timer, name="timer")

TextfileOption = Annotated[
    Path | None,
    typer.Option("--textfile", metavar="FILE", help="The file of metrics; default: the node exporter's directory."),
]


@app.command()
def install(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Put Prometheus and Alertmanager on the head and the exporters on both nodes, with rules and alerts."""
    from dspark_ops.config.load import load_site
    from dspark_ops.observe.stack import change_stack

    report = change_stack(
        load_site(site, overrides=overrides or ()),
        "present",
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def remove(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Take monitoring off both nodes, with what it has kept and the packages that came with it."""
    from dspark_ops.config.load import load_site
    from dspark_ops.observe.stack import change_stack

    report = change_stack(
        load_site(site, overrides=overrides or ()),
        "absent",
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def status(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """Say which targets answer and which alerts fire; 1 when one that matters does, 3 before all targets were asked."""
    from dspark_ops.config.load import load_site
    from dspark_ops.observe.stack_status import read_stack

    wanted = load_site(site, overrides=overrides or ()).site
    state = read_stack(wanted)
    emit(state.document(wanted.name), state.text, as_json=as_json)
    raise typer.Exit(int(state.exit_code))


@app.command()
def dashboards(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write them; it is made.")],
    as_json: JsonOption = False,
) -> None:
    """Write the Grafana dashboards as files, to import or to provision. Nothing is contacted."""
    from dspark_ops.observe.dashboards import write_dashboards

    written = write_dashboards(out)
    emit(
        {"schema": "dspark-ops/dashboards/v1", "written": [str(path) for path in written]},
        lambda: "\n".join(str(path) for path in written),
        as_json=as_json,
    )


@app.command()
def page(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.")],
    site: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Write the pair's state as one HTML file: state, alerts, rails, acceptance, KV. It only reads."""
    from dspark_ops.config.load import load_site
    from dspark_ops.observe.status_page import write_page

    told = write_page(load_site(site, overrides=overrides or ()).site, out)
    emit(told.document(), told.text, as_json=as_json)
    raise typer.Exit(int(told.exit_code))


@timer.command("install")
def timer_install(
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


@timer.command("remove")
def timer_remove(
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
