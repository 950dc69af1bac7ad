"""The rehearsal pair for tests: brought up once per session and left up, unless DSPARK_LAB_KEEP=0."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HEAD, WORKER = "spark-head", "spark-worker"


@dataclass(frozen=True)
class RehearsalPair:
    """The pair as a test reaches it: over SSH, through the lab's own ssh_config."""

    ssh_config: Path

    def run(self, node: str, script: str, *, check: bool = True, timeout_s: float = 60) -> str:
        """Run a shell script on a node; its output, stripped. With `check` a failure is a test failure."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), node, "bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{node}: {script!r} ended with {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def succeeds(self, node: str, script: str, *, timeout_s: float = 60) -> bool:
        """Whether the script ends with 0 on the node."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), node, "bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode == 0


@pytest.fixture(scope="session")
def pair() -> Iterator[RehearsalPair]:
    """Both virtual Sparks, up and wired with two cables."""
    from dspark_ops.lab import pair as lab

    status = lab.up(engine=False)
    assert status.ssh_config is not None
    yield RehearsalPair(status.ssh_config)
    if os.environ.get("DSPARK_LAB_KEEP") == "0":
        lab.down()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is so, for at most ten seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "did not become true within 10 s"
            time.sleep(0.2)

    return wait
