"""Options that mean the same in every verb, consent before change, and the two ways out: text and one JSON document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspark_ops.errors import RefusedError

if TYPE_CHECKING:
    from dspark_ops.report.models import Report

SiteOption = Annotated[
    Path,
    typer.Option("--site", "-s", envvar="DSPARK_SITE", help="The site file.", show_envvar=True),
]
# Of the verbs that ask a served model: through a site, or at an address.
ApiSiteOption = Annotated[
    Path | None,
    typer.Option("--site", "-s", help="The site file; its API is reached through SSH. [env var: DSPARK_SITE]"),
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The API's address instead of a site. [env var: DSPARK_API_URL]")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="As the API calls it. [env var: DSPARK_MODEL]")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the site, as serve.api_port=8001."),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Use this profile instead of the one that the site names."),
]
CheckOption = Annotated[bool, typer.Option("--check", "-C", help="Say what would change; change nothing.")]
DiffOption = Annotated[bool, typer.Option("--diff", "-D", help="Show the changed text.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; the plan is still printed.")]
EvictOption = Annotated[
    bool, typer.Option("--evict", help="Consent: tenants that stand in the way leave first, and are recorded.")
]
ForceHoldOption = Annotated[
    bool,
    typer.Option(
        "--force-hold",
        help="Stop the unit of a supervisor that does not answer, for the time of this verb. What it waits for "
        "a person with lasts: `supervise resume`.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]

DEFAULT_SITE = Path("site.yml")


def say(text: str) -> None:
    """Print one line for people, on stderr: stdout belongs to data."""
    typer.echo(text, err=True)


def progress_printer() -> Callable[[str], None]:
    """A callback that prints a line with the seconds since the verb began, on stderr."""
    began = time.monotonic()

    def line(text: str) -> None:
        say(f"[{time.monotonic() - began:6.1f} s] {text}")

    return line


def consent(plan_text: str, *, yes: bool) -> None:
    """Print a plan and get the operator's word for it.

    Raises:
        RefusedError: declined, or nobody is there to ask (no terminal and no --yes).
    """
    say(plan_text)
    if yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            "the plan above changes the nodes and nobody can be asked: standard input is no terminal",
            hint="read the plan, then run again with --yes (or --check to change nothing)",
        )
    if not typer.confirm("Go on?", default=False, err=True):
        raise RefusedError("declined; nothing was changed")


def emit(document: dict[str, Any], text: Callable[[], str], *, as_json: bool) -> None:
    """Put the result on stdout: one JSON document, or the text for people."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))
    else:
        rendered = text()
        if rendered:
            typer.echo(rendered)


def finish(report: Report, *, as_json: bool, verbose: bool = False) -> int:
    """Put the report on stdout, keep it, and give the exit code.

    A report that cannot be kept is said on stderr and changes nothing else: what was done is done.
    """
    from dspark_ops.errors import DsparkError
    from dspark_ops.report.store import save
    from dspark_ops.report.text import render, wants_colour

    if as_json:
        typer.echo(report.to_json())
    else:
        typer.echo(render(report, colour=wants_colour(), verbose=verbose))
    try:
        save(report)
    except DsparkError as failure:
        typer.echo(f"warning: {failure.message}" + (f"; {failure.hint}" if failure.hint else ""), err=True)
    return report.exit_code
