"""How long `dspark-ops --help` takes, beside a bare start of the same Python; prints seconds and the ratio."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15
GOAL_S = 0.25


def median_s(argv: list[str]) -> float:
    """Median wall time in seconds over RUNS, after one run that warms the caches."""
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    command = str(Path(sys.executable).parent / "dspark-ops")
    ours, bare = median_s([command, "--help"]), median_s([sys.executable, "-c", "pass"])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, load {load}, median of {RUNS}")
    print(f"dspark-ops --help  {ours:.3f} s (goal {GOAL_S} s)")
    print(f"python -c pass     {bare:.3f} s")
    print(f"ratio              {ours / bare:.1f}")
    sys.exit(0 if ours <= GOAL_S else 1)


if __name__ == "__main__":
    main()
