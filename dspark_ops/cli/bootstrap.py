"""`dspark-ops bootstrap`: both hosts and the fabric between them."""

from __future__ import annotations

from enum import Enum
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
    finish,
    progress_printer,
)


class EarlyoomAnswer(Enum):
    """The answers to the earlyoom question."""

    leave = "leave"
    configure = "configure"
    absent = "absent"


def bootstrap(
    site: SiteOption = DEFAULT_SITE,
    earlyoom: Annotated[
        EarlyoomAnswer,
        typer.Option("--earlyoom", help="Leave it, give it thresholds that spare an engine, or remove it."),
    ] = EarlyoomAnswer.leave,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Prepare both hosts and the fabric: packages, Docker, directories, static rails, MTU 9000, all persistent.

    Refuses before anything is changed when somebody else configures a rail. Until both nodes are verified, each is
    armed to put its rails back by itself.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.deploy.bootstrap import bootstrap as run

    loaded = load_site(site, overrides=overrides or ())
    report = run(
        loaded,
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        earlyoom=earlyoom.value,
    )
    raise typer.Exit(finish(report, as_json=as_json))
