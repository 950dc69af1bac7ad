"""The programs that the lab takes from the machine, and how to get them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.lab.apt_sources import KEYRING

_SEARCH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
_APT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Prerequisite:
    """A program (or file) and the Debian package that has it."""

    name: str
    package: str

    def present(self) -> bool:
        """Whether the machine has it."""
        if self.name.startswith("/"):
            return Path(self.name).is_file()
        return shutil.which(self.name, path=os.environ.get("PATH", "") + os.pathsep + _SEARCH) is not None


#: What a Debian root is made with; all that an image build takes beyond a Docker Engine.
FOR_ROOTS = (
    Prerequisite("mmdebstrap", "mmdebstrap"),
    Prerequisite(str(KEYRING), "debian-archive-keyring"),
)
ALWAYS = (
    *FOR_ROOTS,
    Prerequisite("ip", "iproute2"),
    Prerequisite("nsenter", "util-linux"),
    Prerequisite("unshare", "util-linux"),
    Prerequisite("ssh", "openssh-client"),
    Prerequisite("ssh-keygen", "openssh-client"),
)
#: Only where no Docker Engine answers and the lab has to start its own.
FOR_OWN_ENGINE = (
    Prerequisite("dockerd", "docker.io"),
    Prerequisite("iptables", "iptables"),
)
#: The VM pair needs these and no Docker Engine.
FOR_VMS = (
    *FOR_ROOTS,
    Prerequisite("mke2fs", "e2fsprogs"),
    Prerequisite("qemu-system-x86_64", "qemu-system-x86"),
    Prerequisite("qemu-img", "qemu-utils"),
    Prerequisite("ssh", "openssh-client"),
    Prerequisite("ssh-keygen", "openssh-client"),
)


def require_linux_root() -> None:
    """Refuse where the lab cannot work at all: not Linux, or not root."""
    if platform.system() != "Linux":
        raise ConfigError(
            f"the rehearsal pair needs Linux; this is {platform.system()}", hint="run it on a Linux machine or VM"
        )
    if os.geteuid() != 0:
        raise ConfigError(
            f"the rehearsal pair needs root (network namespaces, mmdebstrap); this is uid {os.geteuid()}",
            hint="run it with sudo",
        )


def missing(*, engine_answers: bool) -> tuple[Prerequisite, ...]:
    """What is not there."""
    wanted = ALWAYS if engine_answers else ALWAYS + FOR_OWN_ENGINE
    return tuple(p for p in wanted if not p.present())


def ensure(*, engine_answers: bool, install: bool, progress: Callable[[str], None]) -> None:
    """Everything is there, was installed because `install` allows it, or one error names all that is missing."""
    wanted = ALWAYS if engine_answers else ALWAYS + FOR_OWN_ENGINE
    ensure_all(wanted, install=install, verb="dspark-ops lab up", progress=progress)


def ensure_all(wanted: Sequence[Prerequisite], *, install: bool, verb: str, progress: Callable[[str], None]) -> None:
    """As `ensure`, for any list of programs; `verb` is the command that would install them."""
    lacking = [p for p in wanted if not p.present()]
    if not lacking:
        return
    packages = sorted({p.package for p in lacking})
    command = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"
    if not install:
        raise ConfigError(
            f"the machine lacks {', '.join(p.name for p in lacking)}",
            hint=f"`{command}`, or `{verb} --install-prerequisites`",
        )
    if shutil.which("apt-get") is None:
        raise ConfigError(
            f"the machine lacks {', '.join(p.name for p in lacking)} and has no apt-get to install them with",
            hint="install them with the machine's own package manager",
        )
    progress(f"installing {' '.join(packages)}")
    _apt("update")
    _apt("install", "-y", "--no-install-recommends", *packages)
    still = [p for p in wanted if not p.present()]
    if still:
        raise NoVerdictError(f"apt-get installed {' '.join(packages)}, yet {still[0].name} is not found")


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_APT_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as late:
        raise NoVerdictError(f"apt-get {arguments[0]} was not done after {_APT_TIMEOUT_S} s") from late
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-6:])
        raise NoVerdictError(f"apt-get {arguments[0]} ended with {done.returncode}:\n{tail}")
