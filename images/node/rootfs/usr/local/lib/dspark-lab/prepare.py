"""What a node needs before systemd starts: writable cgroups, its own names, and the look-alikes at their places."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import memory
import pci_functions
from board import PORTS, RUN, TREE

MANAGEMENT_PORT = "enP7s7"
_DMI = {
    "sys_vendor": "NVIDIA",
    "board_vendor": "NVIDIA",
    "chassis_vendor": "NVIDIA",
    "product_name": "NVIDIA_DGX_Spark",
    "product_version": "A.7",
    "board_name": "P4242",
    "bios_vendor": "NVIDIA",
    "bios_version": "5.36_0ACUM023",
}
#: Shown as the machine has them, never as copies: they are per container, or differ at each reading.
_LIVE_SYSCTLS = ("kernel/random", "kernel/hostname", "kernel/domainname", "fs/binfmt_misc", "fs/mqueue")


def open_cgroups() -> None:
    """Make the node's own cgroup mounts writable: Docker mounts them read-only in a container without --privileged.

    `bind` changes this mount's flags alone; a plain remount is refused as busy on cgroup v1. The cgroup namespace is
    private, so nothing of the machine's is in reach. systemd and the nested Engine need it.
    """
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, directory, kind, *_ = line.split()
        if kind in {"cgroup", "cgroup2"}:
            mount("-o", "remount,bind,rw,nosuid,nodev,noexec", directory)


def own_names() -> None:
    """Make hosts, hostname and resolv.conf ordinary files, and hosts as Ubuntu writes it.

    Docker bind-mounts the three; a tool that replaces such a file by renaming fails with "busy". 127.0.1.1 for the
    host's own name is what Ubuntu ships, and a trap for whatever takes an address from the name.
    """
    for name in ("hosts", "hostname", "resolv.conf"):
        path = Path("/etc", name)
        text = path.read_text(encoding="utf-8")
        if name == "hosts":
            text = f"127.0.0.1\tlocalhost\n127.0.1.1\t{socket.gethostname()}\n\n::1\tip6-localhost ip6-loopback\n"
        if os.path.ismount(path):
            run("umount", str(path))
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")


def name_management_port() -> None:
    """Call Docker's eth0 what a Spark calls its management NIC; the default route survives."""
    if not Path("/sys/class/net/eth0").exists():
        return
    route = run("ip", "-4", "route", "show", "default").split()
    run("ip", "link", "set", "eth0", "down")
    run("ip", "link", "set", "eth0", "name", MANAGEMENT_PORT)
    run("ip", "link", "set", MANAGEMENT_PORT, "up")
    if "via" in route:
        run("ip", "route", "replace", "default", "via", route[route.index("via") + 1], "dev", MANAGEMENT_PORT)


def allow_ipv6() -> None:
    """Docker switches IPv6 off in a network without it; a Spark's ports have link-local addresses."""
    for name in ("default", "all"):
        Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6").write_text("0", encoding="ascii")


def private_sysctls() -> None:
    """Put copies over /proc/sys/{vm,kernel,fs}: the kernel is the machine's and a node must not turn its knobs."""
    for name in ("vm", "kernel", "fs"):
        real, copy = Path("/proc/sys", name), RUN / "sysctl" / name
        kept = RUN / "real-sysctl" / name
        kept.mkdir(parents=True, exist_ok=True)
        mount("--bind", str(real), str(kept))
        _copy_values(real, copy)
        mount("--bind", str(copy), str(real))
        for live in _LIVE_SYSCTLS:
            top, _, rest = live.partition("/")
            if top == name and (kept / rest).exists():
                mount("--bind", str(kept / rest), str(real / rest))
        run("umount", "-l", str(kept))
    if Path("/proc/sysrq-trigger").exists():
        mount("--bind", "/dev/null", "/proc/sysrq-trigger")


def lay_sysfs() -> None:
    """Lay the PCI functions, the RDMA class and the DMI strings into /sys.

    Overlays give the places a name; what must be live is bound over them: the real virtual devices and network
    class below, our tree above. An overlay alone would keep stale entries of ports that come and go.
    """
    skeleton = RUN / "skeleton"
    for port in PORTS:
        (skeleton / port.pci_directory).mkdir(parents=True, exist_ok=True)
    for name in ("class/infiniband", "class/dmi/id", "bus/pci/devices", "bus/pci/drivers/mlx5_core"):
        (skeleton / name).mkdir(parents=True, exist_ok=True)
    for name, value in _DMI.items():
        (skeleton / "class/dmi/id" / name).write_text(value + "\n", encoding="ascii")
    pci_functions.lay_all()
    (TREE / "class/infiniband").mkdir(parents=True, exist_ok=True)
    live = ("devices/virtual", "class/net")
    for name in live:
        (RUN / "real" / name).mkdir(parents=True, exist_ok=True)
        mount("--bind", f"/sys/{name}", str(RUN / "real" / name))
    for name in ("devices", "class", "bus"):
        mount("-t", "overlay", "dspark-lab", "-o", f"lowerdir={skeleton / name}:/sys/{name}", f"/sys/{name}")
    for name in live:
        mount("--bind", str(RUN / "real" / name), f"/sys/{name}")
        run("umount", "-l", str(RUN / "real" / name))
    ours = ("class/infiniband", "bus/pci/devices", "bus/pci/drivers/mlx5_core", *(p.pci_directory for p in PORTS))
    for name in ours:
        mount("--bind", str(TREE / name), f"/sys/{name}")
        mount("-o", "remount,bind,ro", f"/sys/{name}")


def device_files() -> None:
    """Make the GPU's and the verbs' device files: null devices that can be opened, held and passed to a container."""
    Path("/dev/infiniband").mkdir(exist_ok=True)
    verbs = [f"infiniband/uverbs{i}" for i in range(len(PORTS))]
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "infiniband/rdma_cm", *verbs):
        path = Path("/dev", name)
        if not path.exists():
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            path.chmod(0o666)


def cover_meminfo() -> None:
    """Put a GB10's /proc/meminfo over the machine's; the daemon keeps it in step."""
    memory.prepare()
    mount("--bind", str(memory.FILE), "/proc/meminfo")


def shared_root() -> None:
    """Let what is mounted later reach services that have a mount namespace of their own."""
    mount("--make-rshared", "/")


STEPS = (
    open_cgroups,
    own_names,
    allow_ipv6,
    name_management_port,
    cover_meminfo,
    private_sysctls,
    device_files,
    lay_sysfs,
    shared_root,
)


def mount(*arguments: str) -> None:
    """Run mount(8)."""
    run("mount", *arguments)


def run(*command: str) -> str:
    """Run a program; its output. An error carries what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _copy_values(real: Path, copy: Path) -> None:
    """Copy a tree of sysctls with their modes; one that cannot be read becomes an empty file."""
    copy.mkdir(parents=True, exist_ok=True)
    for entry in real.iterdir():
        if entry.is_dir():
            _copy_values(entry, copy / entry.name)
            continue
        target = copy / entry.name
        try:
            target.write_bytes(entry.read_bytes())
        except OSError:
            target.touch()
        with contextlib.suppress(OSError):
            shutil.copymode(entry, target)
