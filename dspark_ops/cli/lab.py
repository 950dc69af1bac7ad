"""`dspark-ops lab`: the rehearsal pair, two virtual Sparks on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspark_ops.cli.options import JsonOption, emit, progress_printer
from dspark_ops.exitcodes import ExitCode

if TYPE_CHECKING:
    from dspark_ops.lab.models import DownReport, LabStatus

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The rehearsal pair: two virtual Sparks on this machine.",
)


@app.command()
def up(
    cables: Annotated[int, typer.Option("--cables", min=1, max=2, help="QSFP cables between the two.")] = 2,
    engine: Annotated[bool, typer.Option("--engine/--no-engine", help="Also make the engine's image (cached).")] = True,
    install_prerequisites: Annotated[
        bool, typer.Option("--install-prerequisites", help="Install missing programs with apt-get.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the pair up, or finish what an interrupted run began. On a pair that is up it changes nothing."""
    from dspark_ops.lab import pair

    result = pair.up(
        cables=cables,
        engine=engine,
        install_prerequisites=install_prerequisites,
        progress=progress_printer(),
    )
    emit(result.model_dump(mode="json", by_alias=True), lambda: _status_text(result), as_json=as_json)


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Say what runs, how the cages are wired, and what is a look-alike. Exit 1 unless the pair is up."""
    from dspark_ops.lab import pair

    result = pair.status()
    emit(result.model_dump(mode="json", by_alias=True), lambda: _status_text(result), as_json=as_json)
    if not result.up:
        raise typer.Exit(ExitCode.VERDICT_BAD)


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Remove the build cache as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take the pair away: containers, links, namespaces, processes, files. Only the build cache stays."""
    from dspark_ops.lab import pair

    result = pair.down(purge=purge, progress=progress_printer())
    emit(result.model_dump(mode="json", by_alias=True), lambda: _down_text(result), as_json=as_json)
    if result.left:
        raise typer.Exit(ExitCode.VERDICT_BAD)


@app.command()
def demo(
    install_prerequisites: Annotated[
        bool, typer.Option("--install-prerequisites", help="Install missing programs with apt-get.")
    ] = False,
) -> None:
    """Go the whole way on the pair, by the commands an operator types, and time each: up, init, bootstrap, deploy."""
    from dspark_ops.lab.demo import render_phases, run_demo

    phases = run_demo(install_prerequisites=install_prerequisites, say=typer.echo)
    typer.echo(render_phases(phases))


def _status_text(status: LabStatus) -> str:
    lines = [f"lab: {status.state}" + (f", {status.cables} cable(s)" if status.cables else "")]
    if status.engine:
        whose = "its own" if status.engine.own else "the machine's"
        lines.append(f"docker engine: {whose} ({status.engine.socket})")
    if status.ssh_config:
        lines.append(f"reach the nodes: ssh -F {status.ssh_config} spark-head")
    if status.engine_image:
        lines.append(f"engine image: {status.engine_image}")
    for node in status.nodes:
        reach = "ssh ok" if node.ssh else "no ssh"
        lines += ["", f"{node.name}  {node.container}  {node.management_ip or '-'}  {reach}"]
        for port in node.ports:
            cable = f"cable {port.cable}" if port.cable else "empty cage"
            carrier = "carrier" if port.carrier else "NO-CARRIER"
            loose = "" if port.plugged_as_wanted else "  NOT WIRED AS WANTED"
            addresses = " ".join(port.addresses) or "-"
            mtu = port.mtu if port.mtu is not None else "-"
            lines.append(
                f"  {port.name:<14} cage {port.cage} half {port.half}  {cable:<10}  {carrier:<10}"
                f"  mtu {mtu:<5} {addresses}{loose}"
            )
    if status.state != "down":
        lines += ["", "look-alikes (not real hardware):"]
        lines += [f"  {item.what}\n      follows {item.follows}" for item in status.look_alikes]
    lines += [f"problem: {problem}" for problem in status.problems]
    if status.problems:
        lines.append("run `dspark-ops lab up` to finish it")
    return "\n".join(lines)


def _down_text(report: DownReport) -> str:
    lines = [f"removed {item}" for item in report.removed] or ["nothing to remove"]
    if report.cache and report.cache_bytes is not None:
        lines.append(f"kept the build cache {report.cache} ({report.cache_bytes / 1e9:.1f} GB); --purge removes it")
    lines += [f"LEFT: {item}" for item in report.left]
    return "\n".join(lines)
