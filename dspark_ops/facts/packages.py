"""Packages of the kernel, the driver and the container engine: their versions, and whether they are whole."""

from __future__ import annotations

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

PATTERNS = (
    *("linux-image-*", "linux-headers-nvidia*", "linux-modules-nvidia*", "linux-nvidia*", "linux-tools-nvidia*"),
    *("nvidia-*", "libnvidia-compute*", "libnvidia-container*"),
    *("docker-ce", "docker.io", "containerd.io"),
)
PROBES: tuple[Probe, ...] = (
    Command(
        "packages.list",
        ("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", *PATTERNS),
        timeout_s=4.0,
    ),
)
_WHOLE = frozenset("inc")


class PackageFacts(Fact):
    """One package that dpkg knows. held: an upgrade passes it by. whole: installed, or not there at all; not half-way.

    state: dpkg's two letters, as ii, hi, iU, iF.
    """

    name: str
    version: str | None = None
    state: str

    @property
    def installed(self) -> bool:
        return self.state[1] == "i"

    @property
    def held(self) -> bool:
        return self.state[0] == "h"

    @property
    def whole(self) -> bool:
        return self.state[1] in _WHOLE


def parse_packages(text: str | None) -> tuple[PackageFacts, ...] | None:
    """Every package of which there is anything on the machine; those that are only known by name are left out."""
    if text is None:
        return None
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or not 2 <= len(words[0]) <= 3 or words[0][1] == "n":
            continue
        name = words[1].split(":")[0]
        found.append(PackageFacts(name=name, version=words[2] if len(words) > 2 else None, state=words[0][:2]))
    return tuple(found)


def version_of(packages: tuple[PackageFacts, ...], name: str) -> str | None:
    """The version of an installed package, without its epoch; None when it is not installed."""
    for package in packages:
        if package.name == name and package.installed and package.version is not None:
            return package.version.rpartition(":")[2]
    return None


def read_packages(reading: NodeReading) -> tuple[PackageFacts, ...] | None:
    """The packages of a reading. An end with 1 only says that a pattern matched nothing."""
    result = reading.get("packages.list")
    if result.rc not in (0, 1) or (result.rc == 1 and not result.stdout and "no packages" not in (result.stderr or "")):
        return None
    return parse_packages(result.stdout or "")
