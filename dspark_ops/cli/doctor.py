"""`dspark-ops doctor`: names what is wrong with the pair, with the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from dspark_ops.errors import ConfigError

if TYPE_CHECKING:
    from dspark_ops.doctor.run import Request
    from dspark_ops.report.models import Report

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="ID", help="Only these checks: ids or globs, as 'fabric.*'.")
]
SkipOption = Annotated[
    list[str] | None, typer.Option("--skip", metavar="ID", help="Leave these checks out: ids or globs.")
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="ID", help="Judge and show these, and do not count them.")
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write one HTML file, to read and to mail.")
]
TextfileOption = Annotated[
    Path | None,
    typer.Option("--textfile", metavar="FILE", help="Also write metrics for Prometheus' textfile collector (*.prom)."),
]


HostsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="HEAD WORKER", help="Two hosts instead of a site: what serves there is found."),
]
SshConfigOption = Annotated[
    Path | None, typer.Option("--ssh-config", "-F", help="With HEAD WORKER: OpenSSH client configuration.")
]
UserOption = Annotated[str | None, typer.Option("--user", metavar="NAME", help="With HEAD WORKER: the login.")]
RecordOption = Annotated[
    Path | None, typer.Option("--record", metavar="DIR", help="Also keep what was read in a new directory, redacted.")
]
SimulateOption = Annotated[
    Path | None, typer.Option("--simulate", metavar="DIR", help="Judge a recording; no node is contacted.")
]
HideNamesOption = Annotated[
    bool, typer.Option("--hide-names", help="With --record: host and user names are replaced as well.")
]

IncidentOption = Annotated[
    bool, typer.Option("--incident", help="Name the first cause of a failure, from both nodes' logs on one timeline.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="With --incident: nothing older, as 90m, 2h, 10:30.")
]
KeptOption = Annotated[
    Path | None,
    typer.Option("--from", metavar="DIR", help="With --incident: judge kept logs or a recording; contact nothing."),
]


def doctor(
    hosts: HostsArgument = None,
    site: SiteOption = DEFAULT_SITE,
    only: OnlyOption = None,
    skip: SkipOption = None,
    ignore: IgnoreOption = None,
    list_checks: Annotated[bool, typer.Option("--list-checks", help="List the checks and stop.")] = False,
    explain: Annotated[str | None, typer.Option("--explain", metavar="ID", help="Explain a check and stop.")] = None,
    active: Annotated[
        bool, typer.Option("--active", help="Also what makes traffic: full-size pings and four completions.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is as bad as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was seen for good results too.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Cure what can be cured; see --consent.")] = False,
    consent_to: Annotated[
        list[str] | None,
        typer.Option("--consent", metavar="ID", help="With --fix: also cure this, whatever it stops or moves."),
    ] = None,
    check: CheckOption = False,
    diff: DiffOption = False,
    yes: YesOption = False,
    junit: JunitOption = None,
    html: HtmlOption = None,
    textfile: TextfileOption = None,
    ssh_config: SshConfigOption = None,
    user: UserOption = None,
    record: RecordOption = None,
    simulate: SimulateOption = None,
    hide_names: HideNamesOption = False,
    incident: IncidentOption = False,
    since: SinceOption = None,
    kept: KeptOption = None,
    set_: SetOption = None,
    json_: JsonOption = False,
) -> None:
    """Read both nodes once, judge what was read, and name what is wrong with its remedy. Only --fix changes it."""
    if list_checks or explain is not None:
        _show_catalogue(explain, only or [], skip or [], as_json=json_)
        return
    if incident or since is not None or kept is not None:
        if hosts or record or fix:
            raise ConfigError("--incident reads the pair of a site, or --from DIR", hint="leave the other words out")
        if any((junit, html, textfile, only, skip, ignore, active, strict, consent_to, check, diff, yes)):
            raise ConfigError(
                "--incident judges no checks: it takes --since, --from or --simulate, --set, --verbose and --json",
                hint="leave the other options out; `--incident --json` is its document",
            )
        source = kept or simulate
        raise typer.Exit(_incident(site, set_ or [], incident, since, source, verbose=verbose, as_json=json_))
    from dspark_ops.doctor.elsewhere import Elsewhere
    from dspark_ops.doctor.outputs import Outputs
    from dspark_ops.doctor.run import Request, diagnose

    outputs = Outputs(junit=junit, html=html, textfile=textfile, strict=strict)
    outputs.check()
    request = Request(
        site=site,
        overrides=tuple(set_ or ()),
        only=tuple(only or ()),
        skip=tuple(skip or ()),
        ignore=tuple(ignore or ()),
        active=active,
        strict=strict,
    )
    elsewhere = Elsewhere(tuple(hosts or ()), ssh_config, user, record, simulate, hide_names)
    elsewhere.check(request, changes=fix)
    if fix:
        report = _fix(request, consent_to or [], check=check, diff=diff, yes=yes)
    elif consent_to or check or diff or yes:
        raise ConfigError("--consent, --check, --diff and --yes go with --fix", hint="add --fix, or leave them out")
    elif elsewhere.used:
        report = elsewhere.report(request)
    else:
        report = diagnose(request)
    outputs.write(report)
    raise typer.Exit(finish(report, as_json=json_, verbose=verbose))


def _fix(request: Request, consented: list[str], *, check: bool, diff: bool, yes: bool) -> Report:
    from dspark_ops.doctor.fix.verb import Wishes
    from dspark_ops.doctor.fix.verb import fix as run

    return run(
        request,
        Wishes(consented=tuple(consented), check=check, diff=diff),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
    )


def _incident(
    site: Path, overrides: list[str], asked: bool, since: str | None, kept: Path | None, *, verbose: bool, as_json: bool
) -> int:
    if not asked:
        raise ConfigError("--since and --from go with --incident", hint="add --incident, or leave them out")
    from dspark_ops.doctor.incident.report import render
    from dspark_ops.doctor.incident.run import incident, incident_of

    report = incident(site, overrides, since=since) if kept is None else incident_of(kept, since=since)
    emit(
        report.model_dump(mode="json", by_alias=True),
        lambda: render(report, verbose=verbose),
        as_json=as_json,
    )
    return report.exit_code


def _show_catalogue(explain: str | None, only: list[str], skip: list[str], *, as_json: bool) -> None:
    from dspark_ops.doctor.catalogue import load_catalogue
    from dspark_ops.doctor.known import failures_by_check, load_known
    from dspark_ops.doctor.pages import document_list, render_explanation, render_list
    from dspark_ops.doctor.selection import expand, select

    catalogue = load_catalogue()
    known = failures_by_check(load_known())
    if explain is None:
        checks = list(select(catalogue, only, skip, active=True))
    else:
        named = expand(catalogue, [explain])
        checks = [check for check in catalogue.values() if check.id in named]
    emit(
        {"schema": "dspark-ops/checks/v1", "checks": document_list(checks)},
        lambda: render_list(checks) if explain is None else "\n\n".join(render_explanation(c, known) for c in checks),
        as_json=as_json,
    )
