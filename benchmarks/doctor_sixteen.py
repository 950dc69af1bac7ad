"""Sixteen nodes beside two: read over real SSH by the doctor's reader, typed and judged; prints seconds and the ratio.

usage: doctor_sixteen.py [DELAY_S]

The nodes are SSH servers on loopback ports in a process of their own; each sleeps DELAY_S and answers what the worker
of a recorded pair answered. Sixteen are judged as eight pairs. Both ends of every session run on this machine, so the
sixteen pay for thirty-two ends where a pair of sites would pay for sixteen. Runs of two and of sixteen take turns.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dspark_ops.config.load import LoadedSite, load_site
from dspark_ops.config.models import ROLES
from dspark_ops.doctor.engine import run_checks
from dspark_ops.facts.snapshot import PairFacts, parse_node, probes_for
from dspark_ops.transport.ssh import SshRunner, read_nodes, resolve_target

ROOT = Path(__file__).parents[1]
READINGS = [ROOT / f"tests/fixtures/rehearsal/{role}.json" for role in ROLES]
NODES = 16
RUNS = 9
GOAL = 1.3
#: A recorded worker took 0.97 s for its whole answer, about 0.2 s of that for the log-in.
DELAY_S = 0.75


def write_access(folder: Path, told: dict[str, Any]) -> Path:
    """The SSH configuration for the nodes, made by the same code that made them."""
    sys.path.insert(0, str(ROOT))
    from tests.ssh_nodes import write_access as write

    return write(folder, told["ports"], told["kind"], told["public"])


def one_run(count: int, config: Path, loaded: LoadedSite) -> tuple[float, float]:
    """Seconds until all nodes are read, and until they are judged as well."""
    began = time.perf_counter()
    runners = {f"node-{i}": SshRunner(f"node-{i}", resolve_target(f"node-{i}", config, 10)) for i in range(count)}
    probes = {name: probes_for(loaded.site, ROLES[i % 2]) for i, name in enumerate(runners)}
    try:
        readings = read_nodes(runners, probes)
    finally:
        for runner in runners.values():
            runner.close()
    read_s = time.perf_counter() - began
    lost = [reading.error for reading in readings.values() if not reading.reachable]
    if lost:
        raise SystemExit(f"{len(lost)} nodes were not read: {lost[0]}")
    parsed = [parse_node(ROLES[i % 2], reading) for i, reading in enumerate(readings.values())]
    for head, worker in zip(parsed[::2], parsed[1::2], strict=True):
        run_checks(PairFacts(head=head, worker=worker), loaded)
    return read_s, time.perf_counter() - began


def main() -> None:
    delay = float(sys.argv[1]) if len(sys.argv) > 1 else DELAY_S
    loaded = load_site(ROOT / "tests/checks/site.yml", environ={})
    serve = [sys.executable, "-m", "tests.ssh_nodes", *map(str, READINGS), "--count", str(NODES), "--delay", str(delay)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(serve, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nodes,
    ):
        if nodes.stdin is None or nodes.stdout is None:
            raise SystemExit("no pipe to the nodes")
        config = write_access(Path(folder), json.loads(nodes.stdout.readline()))
        times: dict[int, list[tuple[float, float]]] = {2: [], NODES: []}
        for _ in range(RUNS + 1):
            for count, found in times.items():
                found.append(one_run(count, config, loaded))
        nodes.stdin.close()
        counted = json.loads(nodes.stdout.readline())
    two, sixteen = (tuple(statistics.median(column) for column in zip(*times[n][1:], strict=True)) for n in times)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"python {platform.python_version()}, {os.cpu_count()} cores, load {load}; a node reads itself in {delay:g} s"
    )
    print(f"2 nodes            {two[0]:.2f} s read, {two[1]:.2f} s judged, median of {RUNS}")
    print(f"{NODES} nodes           {sixteen[0]:.2f} s read, {sixteen[1]:.2f} s judged, median of {RUNS}")
    print(f"ratio              {sixteen[0] / two[0]:.2f} read, {sixteen[1] / two[1]:.2f} judged (goal {GOAL})")
    runs = [RUNS + 1 if i >= 2 else 2 * (RUNS + 1) for i in range(NODES)]
    once = all(c["sessions"] == n and c["programs"] == n for c, n in zip(counted, runs, strict=True))
    print(f"sessions a node    {'one a run, one program in it' if once else counted}")
    sys.exit(0 if once and sixteen[0] <= GOAL * two[0] and sixteen[1] <= GOAL * two[1] else 1)


if __name__ == "__main__":
    main()
