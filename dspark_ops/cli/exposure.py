"""`dspark-ops exposure`: what of the two nodes strangers can reach, and what closes it."""

from __future__ import annotations

from pathlib import Path
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
    help="What strangers can reach of the pair: show, apply, remove, audit, routes.",
)


@app.command()
def show(
    site: SiteOption = DEFAULT_SITE,
    offline: Annotated[
        bool, typer.Option("--offline", help="Contact nothing; SSH is taken to be on port 22 of both nodes.")
    ] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Print the packet filter that the site wants on each node, and whether it is in force."""
    from dspark_ops.config.load import load_site
    from dspark_ops.exposure.render import render
    from dspark_ops.exposure.seen import filter_state
    from dspark_ops.exposure.verb import offline as without
    from dspark_ops.exposure.verb import policies

    wanted = load_site(site, overrides=overrides or ()).site
    found, seen = (without(wanted), {}) if offline else policies(wanted)
    nodes = [
        {
            "node": role,
            "filter": filter_state(seen[role], policy) if role in seen else "unknown",
            "open": [f"{port.protocol}/{port.port} {port.rule}" for port in policy.ports],
            "rules": render(policy),
        }
        for role, policy in found.items()
    ]
    emit(
        {"schema": "dspark-ops/exposure/v1", "site": wanted.name, "nodes": nodes},
        lambda: "\n".join(f"# {node['node']}: packet filter {node['filter']}\n{node['rules']}" for node in nodes),
        as_json=as_json,
    )


@app.command()
def apply(
    site: SiteOption = DEFAULT_SITE,
    allow_lockout: Annotated[
        bool, typer.Option("--allow-lockout", help="Consent to rules that shut out the address this host comes from.")
    ] = False,
    revert_after: Annotated[
        int,
        typer.Option("--revert-after", min=20, max=600, metavar="SECONDS", help="When an unconfirmed node reverts."),
    ] = 45,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Close both nodes to strangers but for SSH, the gateway and what the site allows; prove it, or put it back.

    Each node arms its own revert before its first write and drops it only when this host has logged in anew.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.exposure.verb import apply as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        allow_lockout=allow_lockout,
        revert_after_s=revert_after,
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
    """Take our packet filter off both nodes; other tables stay as they are."""
    from dspark_ops.config.load import load_site
    from dspark_ops.exposure.verb import remove as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def audit(site: SiteOption = DEFAULT_SITE, as_json: JsonOption = False, overrides: SetOption = None) -> None:
    """List every listener of both nodes, try the open ones from outside, and say which rule allows each.

    Exit 1: a stranger reaches what no rule allows. 3: of a node or a listener it cannot be told.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.exposure.audit import audit as run
    from dspark_ops.exposure.judging import table

    found = run(load_site(site, overrides=overrides or ()).site, progress=progress_printer())
    emit(found.model_dump(mode="json"), lambda: table(found), as_json=as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def routes(
    url: Annotated[
        str | None, typer.Option("--url", help="What is asked; default: the gateway on the head's own address.")
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option("--openapi", metavar="FILE", help="Routes of this OpenAPI document; default: all that we know."),
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust, as PEM.")] = None,
    site: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Ask every route of the engine and of the gateway from here without a key: each must answer 401 or 404.

    Only exposure.health_route may answer. Exit 1: another one does. 3: some or all did not answer.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.exposure.routes import audit_routes, text, url_of

    wanted = load_site(site, overrides=overrides or ()).site
    found = audit_routes(
        url or url_of(wanted), tuple(documents or ()), health_route=wanted.exposure.health_route, ca=ca
    )
    emit(found.model_dump(mode="json"), lambda: text(found), as_json=as_json)
    raise typer.Exit(found.exit_code)
