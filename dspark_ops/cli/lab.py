"""`dspark-ops lab`: the rehearsal pair, two virtual Sparks on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspark_ops.cli.options import JsonOption, emit, progress_printer
from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode

if TYPE_CHECKING:
    from dspark_ops.lab.models import DownReport, LabStatus
    from dspark_ops.lab.vm.models import VmStatus

VmOption = Annotated[bool, typer.Option("--vm", help="The pair of VMs: own kernels, soft-RoCE, reboots.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The rehearsal pair: two virtual Sparks on this machine.",
)


@app.command()
def up(
    cables: Annotated[int, typer.Option("--cables", min=1, max=2, help="QSFP cables between the two.")] = 2,
    crossed: Annotated[bool, typer.Option("--crossed", help="Swap the two cables at the worker's end.")] = False,
    engine: Annotated[bool, typer.Option("--engine/--no-engine", help="Also make the engine's image (cached).")] = True,
    install_prerequisites: Annotated[
        bool, typer.Option("--install-prerequisites", help="Install missing programs with apt-get.")
    ] = False,
    vm: VmOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the pair up, or finish what an interrupted run began. On a pair that is up it changes nothing."""
    if vm:
        from dspark_ops.lab.vm import pair as vm_pair

        _emit_vm(
            vm_pair.up(cables=cables, install_prerequisites=install_prerequisites, progress=progress_printer()),
            as_json=as_json,
        )
        return
    from dspark_ops.lab import pair

    result = pair.up(
        cables=cables,
        crossed=crossed,
        engine=engine,
        install_prerequisites=install_prerequisites,
        progress=progress_printer(),
    )
    emit(result.model_dump(mode="json", by_alias=True), lambda: _status_text(result), as_json=as_json)


@app.command()
def status(vm: VmOption = False, as_json: JsonOption = False) -> None:
    """Say what runs, how the cages are wired, and what is a look-alike. Exit 1 unless the pair is up."""
    if vm:
        from dspark_ops.lab.vm import pair as vm_pair

        seen = vm_pair.status()
        _emit_vm(seen, as_json=as_json)
        if not seen.up:
            raise typer.Exit(ExitCode.VERDICT_BAD)
        return
    from dspark_ops.lab import pair

    result = pair.status()
    emit(result.model_dump(mode="json", by_alias=True), lambda: _status_text(result), as_json=as_json)
    if not result.up:
        raise typer.Exit(ExitCode.VERDICT_BAD)


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Remove the build cache as well.")] = False,
    vm: VmOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the pair away: containers or VMs, links, namespaces, processes, files. Only the build cache stays."""
    from dspark_ops.lab import pair
    from dspark_ops.lab.vm import pair as vm_pair

    lane = vm_pair if vm else pair
    result = lane.down(purge=purge, progress=progress_printer())
    emit(result.model_dump(mode="json", by_alias=True), lambda: _down_text(result), as_json=as_json)
    if result.left:
        raise typer.Exit(ExitCode.VERDICT_BAD)


@app.command()
def reset(vm: VmOption = False, as_json: JsonOption = False) -> None:
    """Set both VMs back to the clean snapshot, memory and disk, in seconds. Needs --vm."""
    _require_vm(vm, "reset", hint="containers have no snapshot: `lab down` and `lab up` make them anew")
    from dspark_ops.lab.vm import pair as vm_pair

    _emit_vm(vm_pair.reset(progress=progress_printer()), as_json=as_json)


@app.command()
def cable(
    rail: Annotated[str, typer.Argument(help="A port, as enp1s0f0np0; or 1 or 2 for a cable with both its twins.")],
    plugged: Annotated[str, typer.Argument(metavar="on|off", help="Plugged or pulled, at both ends.")],
    vm: VmOption = False,
    as_json: JsonOption = False,
) -> None:
    """Plug or pull a rail or a cable of the running pair. Needs --vm."""
    _require_vm(vm, "cable", hint="the cables of containers are chosen by `lab up --cables`")
    if plugged not in ("on", "off"):
        raise ConfigError(f"a cable is on or off, not {plugged!r}")
    from dspark_ops.lab.vm import pair as vm_pair

    result = vm_pair.set_cable(rail, plugged=plugged == "on", progress=progress_printer())
    _emit_vm(result, as_json=as_json)


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


def _require_vm(vm: bool, verb: str, *, hint: str) -> None:
    if not vm:
        raise ConfigError(f"`lab {verb}` is for the VM pair; expected --vm", hint=hint)


def _emit_vm(result: VmStatus, *, as_json: bool) -> None:
    emit(result.model_dump(mode="json", by_alias=True), lambda: _vm_text(result), as_json=as_json)


def _vm_text(status: VmStatus) -> str:
    lines = [f"VM pair: {status.state}" + (f", {status.cables} cable(s)" if status.cables else "")]
    emulated = "hardware virtualisation (kvm)" if status.acceleration == "kvm" else "emulated processors (tcg)"
    lines.append(f"{emulated}; clean snapshot: {'there' if status.snapshot else 'not yet'}")
    if status.ssh_config:
        lines.append(f"reach the nodes: ssh -F {status.ssh_config} spark-head")
    for node in status.nodes:
        where = f"127.0.0.1:{node.ssh_port}" if node.ssh_port else "-"
        lines += ["", f"{node.name}  {node.process}  {where}  {'ssh ok' if node.ssh else 'no ssh'}"]
        for port in node.ports:
            cable = f"cable {port.cable}" if port.plugged else "pulled"
            carrier = {True: "carrier", False: "NO-CARRIER", None: "unknown"}[port.carrier]
            lines.append(
                f"  {port.name:<14} cage {port.cage}  {cable:<8} {carrier:<10}  mtu {port.mtu or '-':<5} "
                f"{port.rdma} {port.rdma_state or 'unknown'}  {' '.join(port.addresses) or '-'}"
            )
    if status.state != "down":
        lines += ["", "not real hardware:"]
        lines += [f"  {item.what}: {item.why}" for item in status.look_alikes]
    lines += [f"changed: {change}" for change in status.changed]
    lines += [f"problem: {problem}" for problem in status.problems]
    if status.problems:
        lines.append("run `dspark-ops lab up --vm` to finish it")
    return "\n".join(lines)


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
        memory = f"{node.memory_gib:g} GiB" if node.memory_gib else "not limited: a GB10's total is shown"
        memory = "" if node.container == "absent" else f"  memory {memory}"
        lines += ["", f"{node.name}  {node.container}  {node.management_ip or '-'}  {reach}{memory}"]
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
