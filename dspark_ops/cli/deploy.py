"""`dspark-ops deploy`: the release of the site on both ranks, proven by a completion."""

from __future__ import annotations

from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    DiffOption,
    EvictOption,
    ForceHoldOption,
    JsonOption,
    ProfileOption,
    SetOption,
    SiteOption,
    YesOption,
    consent,
    finish,
    progress_printer,
)


def deploy(
    site: SiteOption = DEFAULT_SITE,
    profile: ProfileOption = None,
    evict: EvictOption = False,
    ensure: Annotated[bool, typer.Option("--ensure", help="End at once if the release answers already.")] = False,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Put the release on both ranks and wait for a correct completion.

    Loads the image where it is absent, lets tenants leave by consent, starts worker then head, and is done when a
    completion is correct, what runs is what was asked for, and the site's gate agrees. Whatever goes wrong, both ranks
    are taken down again, what served before is put back and the tenants are given back.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.launch import Wishes
    from dspark_ops.deploy.launch import deploy as run

    loaded = load_site(site, overrides=overrides or (), profile=profile)
    report = run(
        loaded,
        verb="deploy",
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        wishes=Wishes(evict=evict, ensure=ensure, check=check, diff=diff, force_hold=force_hold),
    )
    raise typer.Exit(finish(report, as_json=as_json))
