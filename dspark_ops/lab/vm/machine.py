"""One emulated machine: its command line, its start, its end. A process is ours by what it was started with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.lab.layout import Node
from dspark_ops.lab.vm.base_image import BaseImage
from dspark_ops.lab.vm.layout import (
    MEMORY_MIB,
    RAILS,
    SNAPSHOT,
    VmPaths,
    lab_mac,
    management_mac,
    peer_of,
    preferred_ssh_port,
)
from dspark_ops.lab.vm.monitor import Monitor

Acceleration = Literal["kvm", "tcg"]

PROGRAM = "qemu-system-x86_64"
_SPEED_MBPS = 200_000
_START_TIMEOUT_S = 90
_QUIT_TIMEOUT_S = 20
#: Quicker to emulate than newer models by a fifth of the boot; it has no AVX.
_EMULATED_CPU = "Nehalem"
_KERNEL_OPTIONS = (
    "root=LABEL=dspark-node",
    "rw",
    "console=ttyS0",
    "loglevel=4",
    "mitigations=off",
    "nowatchdog",
    "net.ifnames=1",
    "systemd.show_status=0",
)


@dataclass(frozen=True)
class Machine:
    """What one VM is started with."""

    node: Node
    paths: VmPaths
    image: BaseImage
    acceleration: Acceleration
    ssh_port: int
    from_snapshot: bool


def acceleration(kvm: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> Acceleration:
    """KVM where the device is writable and the processor has vmx or svm, else emulation.

    The device alone is no proof: below another hypervisor it may run only kernels that were made for it.
    """
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        flags = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    return "kvm" if os.access(kvm, os.W_OK) and flags & {"vmx", "svm"} else "tcg"


def version() -> str:
    """What the emulator calls itself; a snapshot is read again only by the version that wrote it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as failure:
        raise ConfigError(f"{PROGRAM} does not run: {failure}", hint="apt-get install qemu-system-x86") from failure
    return said.splitlines()[0].strip()


def command_line(machine: Machine) -> list[str]:
    """The emulator's argument list. The machine starts stopped, so that its cables are set before it runs."""
    node, paths = machine.node, machine.paths
    chosen = {
        "kvm": ["-accel", "kvm", "-cpu", "host"],
        "tcg": ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", _EMULATED_CPU],
    }
    forward = f"hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"
    argv = [
        *(PROGRAM, "-name", node.name, "-machine", "q35,usb=off,sata=off,smbus=off,i8042=off,vmport=off,smm=off"),
        *chosen[machine.acceleration],
        *("-m", str(MEMORY_MIB), "-smp", "1"),
        *("-display", "none", "-nodefaults", "-no-user-config", "-S"),
        *("-daemonize", "-pidfile", str(pid_file(paths, node))),
        *("-kernel", str(machine.image.kernel), "-initrd", str(machine.image.initrd)),
        *("-append", " ".join(_KERNEL_OPTIONS)),
        "-drive",
        f"file={_escaped(paths.disk(node))},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap",
        *("-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"),
        *("-fw_cfg", f"name=opt/dspark-lab/identity,file={_escaped(paths.identity_tar(node))}"),
        *("-serial", f"file:{paths.console(node)}"),
        *("-qmp", f"unix:{_escaped(paths.monitor(node))},server=on,wait=off"),
        *("-netdev", f"user,id=lab,restrict=on,ipv6=off,{forward}"),
        *("-device", f"virtio-net-pci,id=nic-lab,netdev=lab,mac={lab_mac(node)},romfile="),
        *_cabled(machine, "management", management_mac(node)),
    ]
    for rail in RAILS:
        argv += _cabled(machine, rail.device, rail.port.mac(node), f",speed={_SPEED_MBPS},duplex=full")
    return [*argv, "-loadvm", SNAPSHOT] if machine.from_snapshot else argv


def nic(name: str) -> str:
    """The emulator's id of the network card on that link."""
    return f"nic-{name}"


def pid_file(paths: VmPaths, node: Node) -> Path:
    """The emulator writes its process id here."""
    return paths.state / f"{node.name}.pid"


def pid(paths: VmPaths, node: Node) -> int | None:
    """The process id of the node's emulator, or None when it does not run (a recycled pid does not count)."""
    written = pid_file(paths, node)
    try:
        number = int(written.read_text(encoding="ascii"))
        argv = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    ours = Path(os.fsdecode(argv[0])).name == PROGRAM and os.fsencode(written) in argv
    return number if ours else None


def free_ssh_port(node: Node) -> int:
    """The node's usual port on the loopback, or another one where something else has it."""
    for wanted in (preferred_ssh_port(node), 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    raise NoVerdictError("no port is free on 127.0.0.1")


def start(machine: Machine) -> None:
    """Start the emulator; it waits, stopped, for `resume` at its monitor.

    Raises:
        NoVerdictError: it ended or hung; the message has what it said.
    """
    node, paths = machine.node, machine.paths
    paths.log.mkdir(parents=True, exist_ok=True)
    for name in ("qmp", "management", *(rail.device for rail in RAILS)):
        paths.socket(node, name).unlink(missing_ok=True)
    pid_file(paths, node).unlink(missing_ok=True)
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConfigError(f"{PROGRAM} is not installed", hint="apt-get install qemu-system-x86")
    said = paths.log / f"{node.name}.qemu.log"
    try:
        with said.open("wb") as log:
            done = subprocess.run(
                [program, *command_line(machine)[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_START_TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as late:
        raise NoVerdictError(f"{node.name}: the emulator was not ready after {_START_TIMEOUT_S} s") from late
    if done.returncode != 0 or pid(paths, node) is None:
        tail = " ".join(said.read_text(encoding="utf-8", errors="replace").splitlines()[-4:])
        raise NoVerdictError(f"{node.name}: the emulator ended with {done.returncode}: {tail}", hint=f"see {said}")


def stop(paths: VmPaths, node: Node) -> bool:
    """End the node's emulator: asked first, then by signal; True when one was running."""
    number = pid(paths, node)
    if number is None:
        return False
    handle = os.pidfd_open(number)
    try:
        if pid(paths, node) != number:
            return False
        asked = False
        with contextlib.suppress(NoVerdictError), Monitor(paths.monitor(node), timeout_s=5) as monitor:
            monitor.quit()
            asked = True
        if not (asked and _gone(paths, node, number)):
            for signum in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signum)
                if _gone(paths, node, number):
                    break
    finally:
        os.close(handle)
    pid_file(paths, node).unlink(missing_ok=True)
    return True


def _gone(paths: VmPaths, node: Node, number: int) -> bool:
    deadline = time.monotonic() + _QUIT_TIMEOUT_S
    while pid(paths, node) == number:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _cabled(machine: Machine, link: str, mac: str, more: str = "") -> list[str]:
    """A network card whose cable is a pair of datagram sockets, one end at each node."""
    here = _escaped(machine.paths.socket(machine.node, link))
    there = _escaped(machine.paths.socket(peer_of(machine.node), link))
    ends = f"local.type=unix,local.path={here},remote.type=unix,remote.path={there}"
    return [
        *("-netdev", f"dgram,id={link},{ends}"),
        *("-device", f"virtio-net-pci,id={nic(link)},netdev={link},mac={mac},romfile={more}"),
    ]


def _escaped(path: Path) -> str:
    """A path inside an option of the emulator, where a comma is written twice."""
    return str(path).replace(",", ",,")
