"""How often the gate catches what is broken and cries over what is not: computed, and by whole simulated runs.

usage: gate_power.py [--runs N] [--release-runs N] [--skip-mutations]

Every run is the gate itself (prompts, client, oracles, proofs) against the fault-injecting server of the tests, inside
this process and in virtual time. One healthy release run is 66 bursts of six. Prints counts with their 95 % bounds.
Conditions: prompts of 1,200 tokens against steps of 512, so that every burst is prefilled in chunks.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dspark_ops.gates.outcome import RunResult  # noqa: E402
from dspark_ops.gates.runner import Conduct  # noqa: E402
from dspark_ops.gates.sequential import RELEASE, burst_rate, operation, percent, upper_bound  # noqa: E402
from tests.openai_server.app import Fault, Lies, ServerSetup  # noqa: E402
from tests.unit.gates.gate_bench import PAIR, run_release, run_smoke  # noqa: E402

TOKENS = 1200
SETUP = PAIR.model_copy(update={"max_num_batched_tokens": 512, "prefill_rate": 12000.0})
Run = Callable[..., tuple[RunResult, Conduct]]


def computed() -> None:
    """What the plan promises, without any server."""
    print(f"release plan: {RELEASE!r}; accepts after {RELEASE.still_to_go(0, 0)} good bursts")
    print("rate of bad bursts   rejected   accepted   undecided   bursts (mean)")
    rates = {
        "0": 0.0,
        "0.1 %": 0.001,
        "0.5 % (healthy)": 0.005,
        "2 %": 0.02,
        "5 % (5 % of requests, together)": 0.05,
        "26 % (5 % of requests, each for itself)": burst_rate(0.05, 6, "none"),
    }
    for name, rate in rates.items():
        o = operation(RELEASE, rate)
        print(f"{name:<40} {o.reject:9.4f} {o.accept:9.4f} {o.undecided:9.4f} {o.bursts:9.1f}")
    print(f"smoke, 60 % of requests: caught by the five prompts {1 - 0.4**5:.4f}, by all ten {1 - 0.4**10:.6f}")


def simulated(title: str, run: Run, setup: ServerSetup, runs: int, *, wanted: str) -> None:
    """Whole runs with a server of another seed each."""
    began, ends, bursts = time.monotonic(), {"pass": 0, "fail": 0, "review": 0, "void": 0}, 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(runs):
            result, conduct = run(Path(folder) / str(seed), setup, seed, prompt_tokens=TOKENS)
            ends[result.verdict] += 1
            bursts += len(conduct.bursts)
            if result.verdict != wanted and ends[result.verdict] <= 3:
                print(f"  seed {seed}: {result.verdict}: {result.message[:160]}")
            if (seed + 1) % 25 == 0:
                print(f"  {seed + 1} of {runs}: {ends}", file=sys.stderr, flush=True)
    missed = runs - ends[wanted]
    seconds = time.monotonic() - began
    print(
        f"{title}: {ends[wanted]} of {runs} runs {wanted}; others {missed}: at most "
        f"{percent(upper_bound(missed, runs))} of runs (95 %); {bursts / runs:.1f} bursts a run, {seconds:.0f} s",
        flush=True,
    )


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500, help="of smoke, healthy and at 60 %")
    parser.add_argument("--release-runs", type=int, default=500, help="of release, healthy and at 5 %")
    parser.add_argument("--skip-mutations", action="store_true")
    asked = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}")
    computed()

    def broken(rate: float, correlation: float) -> ServerSetup:
        faults = (Fault(kind="word-salad", rate=rate, when="cold", correlation=correlation),)
        return SETUP.model_copy(update={"faults": faults})

    if not asked.skip_mutations:
        for name, lies in {
            "warm served as cold": Lies(always_warm=True),
            "two of six cold": Lies(cold_of_burst=2),
            "serialised": Lies(serialise=True),
        }.items():
            lying = SETUP.model_copy(update={"lies": lies})
            simulated(f"mutation, {name}", run_release, lying, min(25, asked.release_runs), wanted="void")
    simulated("smoke, 60 % of cold requests", run_smoke, broken(0.6, 0.0), asked.runs, wanted="fail")
    simulated("smoke, healthy", run_smoke, SETUP, asked.runs, wanted="pass")
    own, together = broken(0.05, 0.0), broken(0.05, 1.0)
    simulated("release, 5 % of requests, each for itself", run_release, own, asked.release_runs, wanted="fail")
    simulated("release, 5 % of requests, together", run_release, together, asked.release_runs, wanted="fail")
    simulated("release, healthy", run_release, SETUP, asked.release_runs, wanted="pass")


if __name__ == "__main__":
    main()
