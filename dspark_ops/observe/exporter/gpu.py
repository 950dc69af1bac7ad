"""The GPU by nvidia-smi: load and power, and who computes on it. `[N/A]` is not zero: it makes no sample."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import Tree

#: Runs a program and gives its standard output; raises SourceError when it fails or takes too long.
Run = Callable[[Sequence[str]], str]

TIMEOUT_S = 8.0
_FIELDS = ("index", "power.draw", "utilization.gpu", "temperature.gpu", "clocks.sm")
STATE = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
PROCESSES = ("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader")
_NUMBER = re.compile(r"\d{1,7}(?:\.\d{1,4})?")
_CONTAINER = re.compile(r"[/-]([0-9a-f]{64})(?![0-9a-f])")


def run(argv: Sequence[str]) -> str:
    """Run a program with a limit of 8 s.

    Raises:
        SourceError: it is not there, failed, or took too long.
    """
    try:
        ended = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f"{argv[0]} took more than {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise SourceError(f"{argv[0]}: {error.strerror}") from None
    if ended.returncode != 0:
        raise SourceError(f"{argv[0]} ended with {ended.returncode}")
    return ended.stdout.decode("utf-8", "replace")


@dataclass(frozen=True)
class GpuState:
    """One sample of one GPU. None: the driver does not say."""

    index: str
    power_w: float | None
    utilization_pct: float | None
    temperature_c: float | None
    sm_mhz: float | None


def parse_state(text: str) -> list[GpuState]:
    """The rows of the query of index, power, load, heat and clock; a row that is not whole is left out."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == len(_FIELDS) and re.fullmatch(r"\d{1,3}", cells[0], re.ASCII):
            found.append(GpuState(cells[0], *(_number(cell) for cell in cells[1:])))
    return found


def _number(cell: str) -> float | None:
    return float(cell) if _NUMBER.fullmatch(cell) else None


def export_state(run_it: Run, into: Families) -> None:
    """Power, load, heat and clock of each GPU.

    Raises:
        SourceError: nvidia-smi failed, or shows no GPU.
    """
    states = parse_state(run_it(STATE))
    if not states:
        raise SourceError("nvidia-smi shows no GPU")
    for state in states:
        load, clock = state.utilization_pct, state.sm_mhz
        into.add("dspark_gpu_power_watts", state.power_w, gpu=state.index)
        into.add("dspark_gpu_utilization_ratio", None if load is None else load / 100, gpu=state.index)
        into.add("dspark_gpu_temperature_celsius", state.temperature_c, gpu=state.index)
        into.add("dspark_gpu_sm_clock_hertz", None if clock is None else clock * 1e6, gpu=state.index)


def parse_processes(text: str) -> list[int]:
    """The process ids of a query of compute processes, with or without a header."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [int(row[0]) for row in rows if row and re.fullmatch(r"\d{1,10}", row[0].strip(), re.ASCII)]


def export_holders(tree: Tree, run_it: Run, rank_arguments: Sequence[str], into: Families) -> None:
    """Who computes on the GPU. Ours: its container, or its own argument list, holds the words of this site's rank.

    A process that has ended meanwhile is nobody's. One that is there and cannot be looked at is not guessed about.

    Raises:
        SourceError: nvidia-smi failed, or the owner of a process cannot be told.
    """
    pids = parse_processes(run_it(PROCESSES))
    ours = 0
    foreign = 0
    containers = _own_containers(tree, rank_arguments) if pids else set()
    for pid in pids:
        if tree.names(f"/proc/{pid}") is None:
            continue
        cgroup = tree.text(f"/proc/{pid}/cgroup")
        if cgroup is None:
            raise SourceError(f"process {pid} holds the GPU and cannot be looked at")
        if set(_CONTAINER.findall(cgroup)) & containers or _is_rank(tree, str(pid), rank_arguments):
            ours += 1
        else:
            foreign += 1
    into.add("dspark_gpu_holders", ours, owner="ours")
    into.add("dspark_gpu_holders", foreign, owner="foreign")


def _own_containers(tree: Tree, rank_arguments: Sequence[str]) -> set[str]:
    """The containers in which a process runs that was given the words of this site's rank."""
    found: set[str] = set()
    for pid in tree.names("/proc") or ():
        if pid.isdecimal() and _is_rank(tree, pid, rank_arguments):
            found.update(_CONTAINER.findall(tree.text(f"/proc/{pid}/cgroup") or ""))
    return found


def _is_rank(tree: Tree, pid: str, rank_arguments: Sequence[str]) -> bool:
    words = (tree.text(f"/proc/{pid}/cmdline") or "").split("\0")
    return bool(rank_arguments) and set(rank_arguments) <= set(words)
