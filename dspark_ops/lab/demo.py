"""The whole way on the rehearsal pair, by the very commands that an operator types, each one timed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspark_ops.errors import DsparkError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.paths import state_dir


@dataclass(frozen=True)
class DemoStep:
    """One command of the demo. skip: why it is not needed now, None when it is run."""

    name: str
    words: tuple[str, ...]
    skip: str | None = None


@dataclass(frozen=True)
class DemoPhase:
    """How long a step took; elapsed_s is None for one that was skipped."""

    name: str
    elapsed_s: float | None
    detail: str


def demo_steps(site: Path, ssh_config: Path, *, install_prerequisites: bool) -> list[DemoStep]:
    """The commands, in order. `init` is skipped when a site file is there: it is the operator's now."""
    prerequisites = ("--install-prerequisites",) if install_prerequisites else ()
    written = f"{site} is there" if site.exists() else None
    discover = ("init", "spark-head", "spark-worker", "--ssh-config", str(ssh_config), "--profile", "rehearsal")
    at = ("--site", str(site))
    return [
        DemoStep("lab up", ("lab", "up", *prerequisites)),
        DemoStep("init", (*discover, "--name", "lab", "--output", str(site)), skip=written),
        DemoStep("validate", ("validate", *at)),
        DemoStep("bootstrap", ("bootstrap", *at, "--yes")),
        DemoStep("deploy", ("deploy", *at, "--yes")),
        DemoStep("status", ("status", *at)),
        DemoStep("doctor", ("doctor", *at)),
    ]


def run_demo(
    *,
    install_prerequisites: bool,
    say: Callable[[str], None],
    run: Callable[[Sequence[str]], int] | None = None,
) -> list[DemoPhase]:
    """Run every step as its own process, its output passed through; stop at the first that fails.

    Raises:
        DsparkError: a step ended with another code than 0; the error carries that code.
    """
    lab = state_dir() / "lab"
    site = lab / "site.yml"
    runner = run or _run_cli
    phases: list[DemoPhase] = []
    for step in demo_steps(site, lab / "ssh_config", install_prerequisites=install_prerequisites):
        line = "dspark-ops " + " ".join(step.words)
        if step.skip is not None:
            phases.append(DemoPhase(step.name, None, f"skipped: {step.skip}"))
            continue
        say(f"\n$ {line}")
        began = time.monotonic()
        code = runner(step.words)
        phases.append(DemoPhase(step.name, time.monotonic() - began, line))
        if code != 0:
            known = {int(c): c for c in ExitCode}
            raise DsparkError(
                f"the demo stops: `{line}` ended with exit code {code}",
                hint="its own message is above; `dspark-ops lab down` takes the pair away",
                exit_code=known.get(code, ExitCode.NO_VERDICT),
            )
    return phases


def _run_cli(words: Sequence[str]) -> int:
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "dspark_ops", *words], check=False).returncode


def render_phases(phases: Sequence[DemoPhase]) -> str:
    """The time of each phase and of the whole."""
    lines = ["time of each phase"]
    for phase in phases:
        took = "       -" if phase.elapsed_s is None else f"{phase.elapsed_s:6.1f} s"
        lines.append(f"  {phase.name:<10} {took}" + (f"  {phase.detail}" if phase.elapsed_s is None else ""))
    total = sum(p.elapsed_s or 0.0 for p in phases)
    lines.append(f"  {'total':<10} {total:6.1f} s")
    return "\n".join(lines)
