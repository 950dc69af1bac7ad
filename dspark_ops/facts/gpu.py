"""The GPU as nvidia-smi shows it. On GB10 memory is `[N/A]`: unified, not zero."""

from __future__ import annotations

import csv

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Command, NodeReading, Probe

_IDENTITY = ("name", "driver_version", "compute_cap")
PROBES: tuple[Probe, ...] = (
    Command("gpu.identity", ("nvidia-smi", f"--query-gpu={','.join(_IDENTITY)}", "--format=csv,noheader,nounits")),
    Command(
        "gpu.processes",
        ("nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"),
    ),
)
_ABSENT = {"", "n/a", "not supported", "unknown error", "insufficient permissions", "not available"}


class GpuProcessFacts(Fact):
    """One compute process. used_mib: None where the driver does not say, which is not zero."""

    pid: int
    name: str
    used_mib: int | None = None


class GpuFacts(Fact):
    """The GPU. processes: None when the list could not be read; empty when nothing computes."""

    name: str | None = None
    driver: str | None = None
    compute_cap: str | None = None
    processes: tuple[GpuProcessFacts, ...] | None = None


def value_of(cell: str) -> str | None:
    """The cell's text; None for `[N/A]`, `Not Supported` and the like."""
    text = cell.strip()
    return None if text.strip("[]").strip().lower() in _ABSENT else text


def parse_identity(text: str | None) -> GpuFacts | None:
    """The first GPU of `--query-gpu=name,driver_version,compute_cap`; None when the text shows none."""
    rows = _rows(text)
    if not rows or len(rows[0]) < 2:
        return None
    cells = [value_of(cell) for cell in rows[0]]
    cells += [None] * (len(_IDENTITY) - len(cells))
    if cells[0] is None or cells[1] is None:
        return None
    return GpuFacts(name=cells[0], driver=cells[1], compute_cap=cells[2])


def parse_compute_apps(text: str | None) -> tuple[GpuProcessFacts, ...] | None:
    """The processes of `--query-compute-apps=pid,process_name,used_memory`, with or without header and units."""
    if text is None:
        return None
    found = []
    for row in _rows(text):
        pid = whole_number(row[0]) if len(row) >= 3 and row[0].strip().isdecimal() else None
        if pid is None:
            continue
        used = value_of(row[-1])
        number = used.removesuffix("MiB").strip() if used else ""
        found.append(
            GpuProcessFacts(
                pid=pid,
                # A command line may hold a comma; everything between the first and the last cell is the name.
                name=",".join(row[1:-1]).strip(),
                used_mib=whole_number(number) if number.isdecimal() else None,
            )
        )
    return tuple(found)


def _rows(text: str | None) -> list[list[str]]:
    if not text:
        return []
    try:
        return [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if any(c.strip() for c in row)]
    except csv.Error:
        return []


def read_gpu(reading: NodeReading) -> GpuFacts | None:
    """The GPU of a reading; None when nvidia-smi gave no GPU."""
    identity = parse_identity(reading.get("gpu.identity").text())
    if identity is None:
        return None
    return identity.model_copy(update={"processes": parse_compute_apps(reading.get("gpu.processes").text())})
