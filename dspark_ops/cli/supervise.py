"""`dspark-ops supervise`: the one owner of the pair on the head: install, remove, status, hold, resume, explain."""

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
    emit,
    finish,
    progress_printer,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The owner of the pair on the head: it watches, restarts both ranks as a pair, and says why.",
)


@app.command()
def install(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Bring the supervisor to both nodes, or up to date. It keeps the release that runs now; a second run changes
    nothing."""
    from dspark_ops.config.load import load_site
    from dspark_ops.supervise.control.install import install as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def remove(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Take the supervisor away: no unit, key or file of it is left on either node. The ranks stay as they are."""
    from dspark_ops.config.load import load_site
    from dspark_ops.supervise.control.install import remove as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def status(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """Say what state it is in, since when and why, what it keeps, and who holds it. Changes nothing.

    Exit 0: serving, or as wanted. 1: not serving, held in that, or it gave up. 3: none, or it cannot be asked.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.supervise.control.status import render, supervisor_status

    result = supervisor_status(load_site(site, overrides=overrides or ()))
    emit(result.model_dump(mode="json"), lambda: render(result), as_json=as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def explain(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """Say in its own words what it sees, what it decided and why, and what it waits for. Changes nothing."""
    from dspark_ops.config.load import load_site
    from dspark_ops.supervise.control.reading import explain as run

    text = run(load_site(site, overrides=overrides or ()))
    emit({"schema": "dspark-ops/supervise-explain/v1", "text": text}, lambda: text, as_json=as_json)


@app.command()
def hold(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for whoever looks meanwhile.")],
    minutes: Annotated[
        int, typer.Option("--minutes", "-m", min=1, max=10080, help="Then it acts again by itself.")
    ] = 60,
    drain: Annotated[bool, typer.Option("--drain", help="The gateway sends no new requests here meanwhile.")] = False,
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Let it watch and alert, and do nothing, for so long. No verb ends a person's hold but `supervise resume`."""
    from dspark_ops.config.load import load_site
    from dspark_ops.errors import ConfigError
    from dspark_ops.supervise.control.hold import hold as run

    if not reason.strip() or not reason.isprintable() or len(reason) > 200:
        raise ConfigError("--reason is empty, too long or not printable; expected one line of at most 200 characters")
    report = run(
        load_site(site, overrides=overrides or ()),
        reason.strip(),
        for_s=60.0 * minutes,
        drain=drain,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def resume(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """End a hold, or let it try again after it gave up: it acts again, with a fresh budget."""
    from dspark_ops.config.load import load_site
    from dspark_ops.supervise.control.hold import resume as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
    )
    raise typer.Exit(finish(report, as_json=as_json))
