"""`dspark-ops tenants`: who else holds the GPU or large memory on the two nodes."""

from __future__ import annotations

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit
from dspark_ops.cli.tenants_change import evict, forget, restore

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Others on the GPU or with large memory: list, evict, restore, forget.",
)


@app.callback()
def group() -> None:
    """Nothing happens without a verb."""


@app.command("list")
def list_(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """Show every holder of the GPU or of large memory on both nodes that is not a rank of this site.

    Changes nothing. Exit 0: both nodes could be read, with or without tenants. 3: it could not be told who is there.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.config.models import ROLES
    from dspark_ops.tenants import view
    from dspark_ops.tenants.sight import look_at_tenants
    from dspark_ops.transport.ssh import open_runner

    loaded = load_site(site, overrides=overrides or ())
    runners = {role: open_runner(loaded.site, role) for role in ROLES}
    try:
        sight = look_at_tenants(loaded, runners)
    finally:
        for runner in runners.values():
            runner.close()
    emit(
        view.document(loaded.site, sight),
        lambda: view.render(loaded.site, sight),
        as_json=as_json,
    )
    raise typer.Exit(view.exit_code(sight))


app.command()(evict)
app.command()(restore)
app.command()(forget)
