"""`dspark-ops releases`: what was deployed, how two releases differ, and one in full. Contacts no node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    help="The releases of a site: list, diff, show. Contacts no node.",
)

_Id = Annotated[str, typer.Argument(metavar="ID", help="A release's id, or as much of it as is unique.")]


@app.callback(invoke_without_command=True)
def listing(
    ctx: typer.Context, site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None
) -> None:
    """List the releases of a site that this machine has started, the last one first.

    Exit 3: a file among them cannot be read; the others are listed all the same.
    """
    if ctx.invoked_subcommand is not None:
        return
    from dspark_ops.config.load import load_site
    from dspark_ops.exitcodes import ExitCode
    from dspark_ops.releases.store import all_of
    from dspark_ops.releases.view import list_releases, render_list
    from dspark_ops.report.models import now

    name = load_site(site, overrides=overrides or ()).site.name
    found = list_releases(name, all_of(name), now())
    emit(found.model_dump(mode="json"), lambda: render_list(found), as_json=as_json)
    raise typer.Exit(int(ExitCode.NO_VERDICT if found.unreadable else ExitCode.OK))


@app.command()
def diff(
    ctx: typer.Context,
    first: _Id,
    second: _Id,
    site: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Say what differs from the first release to the second: image, model, arguments, environment, site, hosts.

    What is equal has no line. Secrets are hidden, that they differ is not. Exit 0 whether or not anything differs.
    """
    from dspark_ops.releases.diff import diff as compare
    from dspark_ops.releases.diff import render_diff
    from dspark_ops.releases.store import match

    name = _site_name(ctx, site, overrides)
    found = compare(match(name, first), match(name, second))
    emit(found.model_dump(mode="json"), lambda: render_diff(found), as_json=as_json or _json_before(ctx))


@app.command()
def show(
    ctx: typer.Context,
    release: _Id,
    site: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Show one release: what it is, what its processes were really given, its gate, its starts. Secrets are hidden."""
    from dspark_ops.releases.store import match
    from dspark_ops.releases.view import render_show, show_document

    found = match(_site_name(ctx, site, overrides), release)
    emit(show_document(found), lambda: render_show(found), as_json=as_json or _json_before(ctx))


def _site_name(ctx: typer.Context, site: Path, overrides: list[str] | None) -> str:
    """The site's name; options that stand before the sub-command count too, those after it come last."""
    from dspark_ops.config.load import load_site

    before = ctx.parent.params if ctx.parent is not None else {}
    chosen = before.get("site", site) if site == DEFAULT_SITE else site
    return load_site(Path(chosen), overrides=[*(before.get("overrides") or ()), *(overrides or ())]).site.name


def _json_before(ctx: typer.Context) -> bool:
    return ctx.parent is not None and bool(ctx.parent.params.get("as_json"))
