"""`dspark-ops fabric`: which port is cabled to which, and whether the rails are what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dspark_ops.cli.options import (
    DEFAULT_SITE,
    CheckOption,
    DiffOption,
    ForceHoldOption,
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
from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The rails between the two nodes: show, apply, restore, verify, test, watch.",
)


@app.command()
def show(
    head: Annotated[str | None, typer.Argument(metavar="[HEAD", help="Two hosts instead of a site.")] = None,
    worker: Annotated[str | None, typer.Argument(metavar="WORKER]")] = None,
    site: SiteOption = DEFAULT_SITE,
    ssh_config: Annotated[
        Path | None, typer.Option("--ssh-config", "-F", help="With HEAD WORKER: OpenSSH client configuration.")
    ] = None,
    nccl: Annotated[bool, typer.Option("--nccl", help="Also each rank's NCCL environment, with reasons.")] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Show which port is cabled to which on both nodes, with addresses, MTU, GIDs and who configures them.

    Sends one small packet over each port, so that crossed cables are seen. Exit 4: what faces what is not certain.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.look import look_at_hosts, look_at_site

    wanted = None
    if head is None:
        wanted = load_site(site, overrides=overrides or ()).site
        facts = look_at_site(wanted)
    elif worker is None or nccl:
        what = "--nccl needs a site: it gives the rails their order" if worker else f"one host ({head}) is no pair"
        raise ConfigError(what, hint="name two hosts, or none and a site")
    else:
        facts = look_at_hosts(head, worker, ssh_config)
    from dspark_ops.fabric.drawing import render_fabric
    from dspark_ops.fabric.view import build_view

    view = build_view(facts, wanted, nccl=nccl)
    emit(view.model_dump(mode="json", by_alias=True), lambda: render_fabric(view), as_json=as_json)
    if view.ambiguity is not None:
        say(f"error: {view.ambiguity}")
        if view.hint:
            say(f"hint: {view.hint}")
        raise typer.Exit(ExitCode.REFUSED)


@app.command()
def verify(
    site: SiteOption = DEFAULT_SITE,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is as bad as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was seen for good results too.")] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Prove the rails: addresses, MTU now and after a boot, full-size pings both ways, GIDs, PCIe width, NCCL.

    Exit 1: something is wrong, and named with its remedy. 3: a node or a fact that is needed was not read.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.verify import verify as run

    report = run(load_site(site, overrides=overrides or ()), strict=strict)
    raise typer.Exit(finish(report, as_json=as_json, verbose=verbose))


@app.command()
def apply(
    site: SiteOption = DEFAULT_SITE,
    allow_management: Annotated[
        bool,
        typer.Option("--allow-management", help="Consent to touch the port or network that carries your own sessions."),
    ] = False,
    revert_after: Annotated[
        int,
        typer.Option("--revert-after", min=20, max=600, metavar="SECONDS", help="When an unconfirmed node reverts."),
    ] = 45,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Give every rail its static address and MTU on both nodes, persistently; prove it, or put everything back.

    Each node arms its own revert before its first write and drops it only when this host has logged in anew and
    full-size packets cross every rail: a lost path, a killed terminal or a reboot end with the nodes as they were.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.apply import apply as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        allow_management=allow_management,
        revert_after_s=revert_after,
        force_hold=force_hold,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def restore(
    site: SiteOption = DEFAULT_SITE,
    check: CheckOption = False,
    diff: DiffOption = False,
    force_hold: ForceHoldOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Take back our last confirmed change of the fabric on both nodes, from their journals.

    Refused, exit 4, when a file was edited since: both digests are named and nothing is changed.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.apply import restore as run

    report = run(
        load_site(site, overrides=overrides or ()),
        consent=lambda plan: consent(plan, yes=yes),
        progress=progress_printer(),
        check=check,
        diff=diff,
        force_hold=force_hold,
    )
    raise typer.Exit(finish(report, as_json=as_json))


@app.command()
def watch(
    site: SiteOption = DEFAULT_SITE,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to count, 1 to 3600.")] = 10.0,
    floor_mb: Annotated[
        int, typer.Option("--floor-mb", min=0, help="Fewer megabytes than this in all say nothing about a split.")
    ] = 100,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is as bad as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was seen for good results too.")] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Count what the rails carry meanwhile, and judge how it is split: per device, per cage, per PCIe half.

    Only reads. Exit 1: the split is wrong, or errors grew. 3: too few bytes, or counters that were reset: no verdict.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.watch import watch as run

    report = run(
        load_site(site, overrides=overrides or ()),
        seconds=seconds,
        progress=progress_printer(),
        floor_bytes=floor_mb * 1_000_000,
        strict=strict,
    )
    raise typer.Exit(finish(report, as_json=as_json, verbose=verbose))


@app.command(name="test")
def load(
    site: SiteOption = DEFAULT_SITE,
    seconds: Annotated[int, typer.Option("--seconds", help="Of each run, 1 to 60.")] = 3,
    size_bytes: Annotated[int, typer.Option("--size-bytes", help="Of each write.")] = 65536,
    queue_pairs: Annotated[int, typer.Option("--queue-pairs", help="Of each run, 1 to 64.")] = 4,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is as bad as a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was seen for good results too.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Load the rails with ib_write_bw, one by one and all together, and judge the rates by measured bands.

    Refused, exit 4, beside an engine that serves or starts. Soft-RoCE is measured and judged against no band.
    """
    from dspark_ops.config.load import load_site
    from dspark_ops.fabric.perf import run_test

    report = run_test(
        load_site(site, overrides=overrides or ()),
        seconds=seconds,
        size_bytes=size_bytes,
        queue_pairs=queue_pairs,
        progress=progress_printer(),
        consent=lambda plan: consent(plan, yes=yes),
        strict=strict,
    )
    raise typer.Exit(finish(report, as_json=as_json, verbose=verbose))
