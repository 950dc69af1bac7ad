"""The whole catalogue on both nodes of a site, beside gathering Ansible facts of the same two; seconds and the ratio.

usage: doctor_wall.py SITE   (the rehearsal pair must be up)

Each run is a program of its own, started anew: Python's start, the log-ins and the report are in its time.
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

from dspark_ops.ansible_run.inventory import render_inventory
from dspark_ops.config.load import load_site

RUNS = 9
FACT_RUNS = 3
GOAL_S = 2.0
#: Good, bad, or a fact is missing; whether both nodes were read is asked of the report.
VERDICTS = (0, 1, 3)


def times_of(argv: list[str], runs: int, accepted: tuple[int, ...]) -> tuple[list[float], str]:
    """Wall times in seconds over `runs`, after one run that warms the caches; and what the last one printed."""
    times, out = [], ""
    for _ in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - began)
        if done.returncode not in accepted:
            raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
        out = done.stdout
    return times[1:], out


def main() -> None:
    path = Path(sys.argv[1])
    here = Path(sys.executable).parent
    ours, said = times_of([str(here / "dspark-ops"), "doctor", "--site", str(path), "--json"], RUNS, VERDICTS)
    report = json.loads(said)
    lost = [node["error"] for node in report["nodes"] if not node["reachable"]]
    if lost:
        raise SystemExit(f"not read: {'; '.join(lost)}")
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder) / "inventory.json"
        inventory.write_text(json.dumps(render_inventory(load_site(path).site, {}, control_dir=Path(folder) / "cp")))
        gather = [str(here / "ansible"), "pair", "-i", str(inventory), "-m", "ansible.builtin.setup"]
        facts, _ = times_of(gather, FACT_RUNS, (0,))
    median, reading = statistics.median(ours), max(node["round_trip_s"] for node in report["nodes"])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    checks = len({finding["id"] for finding in report["findings"]})
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, load {load}; two nodes of {path.name}")
    print(f"doctor             {median:.2f} s median of {RUNS}, {max(ours):.2f} s worst (goal {GOAL_S:g} s)")
    print(f"                   {checks} checks, {len(report['findings'])} results")
    print(f"slower node        {reading:.2f} s to read")
    print(f"ansible setup      {statistics.median(facts):.2f} s median of {FACT_RUNS}")
    print(f"ratio              {statistics.median(facts) / median:.1f}")
    sys.exit(0 if median <= GOAL_S else 1)


if __name__ == "__main__":
    main()
