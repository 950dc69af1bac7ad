"""A run that is ended by a signal leaves a file that can be read, without an end, and with what had been measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dspark_ops.bench.records import read_run
from dspark_ops.bench.summary import summarise

ROOT = Path(__file__).parents[3]
# Blocks enough that it is never at its end when the signal comes.
PROGRAM = """
import sys
from pathlib import Path
from tests.unit.bench.harness import run_bench, small
run_bench(small(classes=("prose",), caches=("cold",), rounds=100, warmup_max=5, budget_s=1e6), Path(sys.argv[1]))
"""


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_a_readable_partial_run(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        # Whoever runs the tests in the background has it ignored.
        preexec_fn=_hear_interrupts,
    ) as process:
        try:
            until = time.monotonic() + 50
            while not path.exists() or path.read_bytes().count(b'"record":"block"') < 2:
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < until, "no two blocks in time"
                time.sleep(0.02)
            process.send_signal(number)
            process.wait(20)
        finally:
            process.kill()
    assert process.returncode != 0
    run = read_run(path)
    assert run.partial
    assert run.end is None
    assert "interrupted" in str(run.partial_reason)
    assert len(run.blocks) >= 2
    cells = summarise(run)
    assert sum(cell.requests for cell in cells) == len(run.used_samples()) >= 6
    assert all(cell.rate is not None for cell in cells)
