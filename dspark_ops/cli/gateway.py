"""`dspark-ops gateway`: what clients talk to on the head: install, remove, status, and the clients' keys."""

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
    say,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="What clients talk to on the head: the pair first, a cloud second.",
)
keys = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The clients' keys.")
app.add_typer(keys, name="key")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The client's name.")]
NoApplyOption = Annotated[
    bool, typer.Option("--no-apply", help="Change the list on this machine alone; the head learns of it later.")
]


@app.command()
def install(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Bring edge, router and shim to the head, or up to date. A second run changes nothing."""
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.install import install as run

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
    """Take the gateway away. What the cloud has cost stays written down on the head."""
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.install import remove as run

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
    """Say whether both parts run, when the certificate ends, who answered why and what the cloud has cost.

    Changes nothing. Exit 0: both run, the router answers, the certificate is good. 1: not so. 3: it cannot be told.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.look import gateway_status, render

    result = gateway_status(load_site(site, overrides=overrides or ()))
    emit(result.model_dump(mode="json", by_alias=True), lambda: render(result), as_json=as_json)
    raise typer.Exit(result.exit_code)


@keys.command()
def add(
    name: NameArgument,
    site: SiteOption = DEFAULT_SITE,
    local_only: Annotated[
        bool, typer.Option("--local-only", help="Nothing of this client ever leaves the pair.")
    ] = False,
    no_apply: NoApplyOption = False,
    overrides: SetOption = None,
) -> None:
    """Make a key for a client and print it, once: only its hash is kept. The key alone is on standard output."""
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.clients import added, change_clients, new_key
    from dspark_ops.gateway.settings import clients_path

    loaded = load_site(site, overrides=overrides or ())
    path, key = clients_path(loaded), new_key()
    change_clients(path, lambda clients: added(clients, name, key, local_only=local_only))
    # Before the head is asked: a key that is not shown now is never shown.
    typer.echo(key)
    say(f"{name} is in {path}; its key is shown above and nowhere else")
    _bring(loaded, no_apply=no_apply)


@keys.command()
def revoke(
    name: NameArgument, site: SiteOption = DEFAULT_SITE, no_apply: NoApplyOption = False, overrides: SetOption = None
) -> None:
    """Take a client's key away. What runs with it ends by itself; nothing new begins."""
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.clients import change_clients, without
    from dspark_ops.gateway.settings import clients_path

    loaded = load_site(site, overrides=overrides or ())
    path = clients_path(loaded)
    change_clients(path, lambda clients: without(clients, name))
    say(f"{name} is no longer in {path}")
    _bring(loaded, no_apply=no_apply)


@keys.command("list")
def list_keys(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """List the clients of this site: names, since when, and the beginning of each key's hash. Contacts nothing."""
    from dspark_ops.config.load import load_site
    from dspark_ops.gateway.clients import client_lines, read_clients
    from dspark_ops.gateway.settings import clients_path

    clients = read_clients(clients_path(load_site(site, overrides=overrides or ())))
    document = {
        "schema": "dspark-ops/gateway-clients/v1",
        "clients": [client.model_dump(mode="json") for client in clients],
    }
    emit(document, lambda: client_lines(clients), as_json=as_json)


def _bring(loaded: object, *, no_apply: bool) -> None:
    """Tell the head. The report goes to standard error: standard output holds a key, or nothing."""
    from dspark_ops.config.load import LoadedSite
    from dspark_ops.gateway.install import bring_clients
    from dspark_ops.report.text import render

    if no_apply:
        say("the head does not know of it yet: `dspark-ops gateway install`")
        return
    assert isinstance(loaded, LoadedSite)  # noqa: S101 - imported late, for --help
    report = bring_clients(loaded, progress=progress_printer())
    say(render(report, colour=False))
    raise typer.Exit(report.exit_code)
