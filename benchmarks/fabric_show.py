"""`fabric show` of both nodes of a site, beside gathering Ansible facts of the same two; prints seconds and the ratio.

usage: fabric_show.py SITE   (the rehearsal pair must be up)
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
GOAL_S = 1.0


def median_s(argv: list[str], runs: int) -> tuple[float, float]:
    """Median and largest wall time in seconds over `runs`, after one run that warms the caches."""
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), max(times[1:])


def main() -> None:
    path = Path(sys.argv[1])
    here = Path(sys.executable).parent
    ours, worst = median_s([str(here / "dspark-ops"), "fabric", "show", "--site", str(path), "--json"], RUNS)
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder) / "inventory.json"
        inventory.write_text(json.dumps(render_inventory(load_site(path).site, {}, control_dir=Path(folder) / "cp")))
        gather = [str(here / "ansible"), "pair", "-i", str(inventory), "-m", "ansible.builtin.setup"]
        facts, _ = median_s(gather, FACT_RUNS)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, load {load}; two nodes of {path.name}")
    print(f"fabric show        {ours:.2f} s median of {RUNS}, {worst:.2f} s worst (goal {GOAL_S} s)")
    print(f"ansible setup      {facts:.2f} s median of {FACT_RUNS}")
    print(f"ratio              {facts / ours:.1f}")
    sys.exit(0 if ours <= GOAL_S else 1)


if __name__ == "__main__":
    main()
