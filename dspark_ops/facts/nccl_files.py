"""NCCL's variables in files of the host: what a program that is started by hand, or a mount, takes from there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Files, NodeReading, Probe

# Environment files may hold secrets: only the variables of the prefixes below are kept of them.
PROBES: tuple[Probe, ...] = (
    Files(
        "nccl.files",
        (
            "/etc/nccl.conf",
            "/root/.nccl.conf",
            "/home/*/.nccl.conf",
            "/etc/environment",
            "/etc/environment.d/*.conf",
            "/home/*/.config/environment.d/*.conf",
        ),
        root=True,
    ),
)
_LINE = re.compile(r"(?:export\s+)?((?:NCCL|GLOO|TP)_[A-Z0-9_]{1,60})\s*=(.*)")


class NcclFile(Fact):
    """One file that defines at least one of the variables. A value may be empty, which is not unset."""

    path: str
    values: dict[str, str]

    @property
    def empty(self) -> tuple[str, ...]:
        """The variables that are defined and empty."""
        return tuple(name for name, value in self.values.items() if not value)


def parse_nccl_file(path: str, content: str) -> NcclFile:
    """`NAME=value` lines, quoted or not, of NCCL_, GLOO_ and TP_ variables; of a repeated name the last one."""
    values = {}
    for line in content.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            value = match[2].strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1].strip()
            values[match[1]] = value
    return NcclFile(path=path, values=values)


def parse_nccl_files(files: Mapping[str, str]) -> tuple[NcclFile, ...]:
    """The files that define any of them, by path."""
    parsed = (parse_nccl_file(path, files[path]) for path in sorted(files))
    return tuple(file for file in parsed if file.values)


def read_nccl_files(reading: NodeReading) -> tuple[NcclFile, ...] | None:
    """The files of a reading; none that defines anything is an empty tuple, None when they could not be read."""
    files = reading.get("nccl.files").files
    if files is None or (not reading.sudo and reading.user != "root"):
        return None
    return parse_nccl_files(files)
