"""`dspark-ops doctor`: names what is wrong with the pair, with the remedy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import DEFAULT_SITE, JsonOption, SetOption, SiteOption, emit

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="ID", help="Only these checks: ids or globs, as 'fabric.*'.")
]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", metavar="ID", help="Leave these checks out: ids or globs.")
]


def doctor(
    site: SiteOption = DEFAULT_SITE,
    only: OnlyOption = None,
    skip: SkipOption = None,
    list_checks: Annotated[bool, typer.Option("--list-checks", help="List the checks and stop.")] = False,
    explain: Annotated[str | None, typer.Option("--explain", metavar="ID", help="Explain a check and stop.")] = None,
    active: Annotated[
        bool, typer.Option("--active", help="Also what makes traffic: full-size pings and one completion.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is as bad as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was seen for good results too.")] = False,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Read both nodes once, judge what was read, and name what is wrong with its remedy. Changes nothing."""
    if list_checks or explain is not None:
        _show_catalogue(explain, only or [], skip or [], as_json=json_)
        return
    raise typer.Exit(_run(site, only or [], skip or [], set_ or [], active, strict, verbose, json_))


def _show_catalogue(explain: str | None, only: list[str], skip: list[str], *, as_json: bool) -> None:
    from dspark_ops.doctor.catalogue import load_catalogue
    from dspark_ops.doctor.pages import document_list, render_explanation, render_list
    from dspark_ops.doctor.selection import expand, select

    catalogue = load_catalogue()
    if explain is None:
        checks = list(select(catalogue, only, skip, active=True))
    else:
        named = expand(catalogue, [explain])
        checks = [check for check in catalogue.values() if check.id in named]
    emit(
        {"schema": "dspark-ops/checks/v1", "checks": document_list(checks)},
        lambda: render_list(checks) if explain is None else "\n\n".join(map(render_explanation, checks)),
        as_json=as_json,
    )


def _run(
    site: Path,
    only: list[str],
    skip: list[str],
    overrides: list[str],
    active: bool,
    strict: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    from dspark_ops.config.load import load_site
    from dspark_ops.doctor.catalogue import load_catalogue
    from dspark_ops.doctor.engine import run_checks
    from dspark_ops.doctor.selection import select
    from dspark_ops.fabric.gid_record import recall
    from dspark_ops.facts.snapshot import gather_pair
    from dspark_ops.report.models import now
    from dspark_ops.report.store import save
    from dspark_ops.report.text import render, wants_colour

    loaded = load_site(site, overrides=overrides)
    select(load_catalogue(), only, skip, active=active)  # a mistyped id is told before anything is contacted
    began = now()
    facts = gather_pair(loaded.site, active_profile=loaded.profile if active else None)
    facts = facts.model_copy(update={"gid_record": recall(loaded.site.name)})
    report = run_checks(facts, loaded, only=only, skip=skip, active=active, strict=strict, started_at=began)
    save(report)
    emit(
        report.model_dump(mode="json", by_alias=True),
        lambda: render(report, colour=wants_colour(sys.stdout), verbose=verbose),
        as_json=as_json,
    )
    return report.exit_code
