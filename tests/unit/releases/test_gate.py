"""The gate as real programs: each way to end is its own verdict, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspark_ops.releases import gate as gate_module
from dspark_ops.releases.gate import run_program
from dspark_ops.releases.model import GateResult


def run(*command: str, timeout_s: int = 20, folder: Path | None = None, said: list[str] | None = None) -> GateResult:
    environment = {"DSPARK_API_URL": "http://127.0.0.1:9", "DSPARK_MODEL": "m", "DSPARK_RELEASE": "r-1"}
    say = said.append if said is not None else lambda _line: None
    return run_program(command, timeout_s, environment, say, folder=folder)


def python(source: str) -> tuple[str, ...]:
    return (sys.executable, "-c", source)


def test_zero_passes_and_the_gate_sees_where_the_api_is() -> None:
    result = run(*python("import os; [print(k, os.environ[k]) for k in sorted(os.environ) if k.startswith('DSPARK_')]"))
    assert result.passed
    assert result.rc == 0
    assert result.tail == ("DSPARK_API_URL http://127.0.0.1:9", "DSPARK_MODEL m", "DSPARK_RELEASE r-1")


def test_another_code_fails_with_the_last_line_of_either_stream() -> None:
    result = run(*python("import sys; print('ok so far'); sys.stdout.flush(); sys.exit('garbled: 3 of 40')"))
    assert (result.outcome, result.rc, result.passed) == ("failed", 1, False)
    assert result.message == "the gate ended with 1, expected 0; its last line: garbled: 3 of 40"


def test_a_gate_that_is_killed_fails_by_the_signals_name() -> None:
    result = run(*python("import os; os.kill(os.getpid(), 9)"))
    assert (result.outcome, result.rc) == ("failed", -9)
    assert "SIGKILL" in result.message


def test_a_gate_past_its_time_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_GRACE_S", 0.5)
    monkeypatch.setattr(gate_module, "_TICK_S", 0.3)
    pids, said = tmp_path / "pids", list[str]()
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}; echo waiting; wait"
    began = time.monotonic()
    result = run("/bin/sh", "-c", script, timeout_s=3, said=said)
    assert time.monotonic() - began < 30
    assert (result.outcome, result.rc) == ("timed-out", None)
    assert "within 3 s" in result.message
    assert "waiting" in result.tail
    assert said
    _gone([int(line) for line in pids.read_text().split()])


def test_what_a_gate_leaves_behind_is_ended_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid}; echo done"
    result = run("/bin/sh", "-c", script)
    assert result.passed
    assert result.elapsed_s < 30, "it waited for the 60 s of what was left behind"
    _gone([int(pid.read_text())])


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """Whoever runs the tests in the background ignores SIGINT; an operator at a terminal does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_takes_the_gate_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    source = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        deadline = time.monotonic() + 50
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(*python(source))
    _gone([int(pid.read_text())])


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "there is no such file"),
        ("#!/bin/sh\nexit 0\n", 0o644, "Permission denied"),
        ("exit 0\n", 0o755, "Exec format error"),
        ("#!/no/such/shell\n", 0o755, "there is no such file"),
    ],
)
def test_a_gate_that_cannot_start_is_a_failure_with_its_reason(
    tmp_path: Path, content: str | None, mode: int, reason: str
) -> None:
    if content is not None:
        (tmp_path / "gate").write_text(content)
        (tmp_path / "gate").chmod(mode)
    result = run("./gate", folder=tmp_path)
    assert (result.outcome, result.rc, result.passed) == ("not-startable", None, False)
    assert result.message.startswith("the gate ./gate cannot be started: ")
    assert reason in result.message


def test_a_relative_gate_is_found_beside_the_site_file_and_runs_there(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("#!/bin/sh\npwd; printf '%s|' \"$@\"\n")
    (tmp_path / "gate").chmod(0o755)
    result = run("./gate", "a b", "$HOME", "", folder=tmp_path)
    assert result.tail == (str(tmp_path), "a b|$HOME||")


def test_only_the_last_lines_are_kept_and_nothing_a_terminal_obeys() -> None:
    result = run(*python("for i in range(5000): print(i, 'x' * 2000)\nprint('\\x1b[31mred')"))
    assert len(result.tail) == 20
    assert result.tail[-1] == "?[31mred"
    assert all(len(line) <= 400 for line in result.tail)


def test_secrets_of_the_command_are_not_in_the_result() -> None:
    result = run(*python("pass"), "--api-key=sk-x", "--password", "p-x")
    assert "sk-x" not in result.model_dump_json()
    assert "p-x" not in result.model_dump_json()


def _gone(pids: list[int]) -> None:
    assert pids
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
