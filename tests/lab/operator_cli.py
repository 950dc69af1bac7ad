"""An operator at the rehearsal pair: types commands of the CLI, and looks at the nodes by ssh with his own eyes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOSTS = {"head": "spark-head", "worker": "spark-worker"}
RANK = "dspark-rank"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    words: tuple[str, ...]
    rc: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; fails when something else is there too."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def __str__(self) -> str:
        return f"dspark-ops {' '.join(self.words)} -> {self.rc}\n{self.out[-3000:]}\n{self.err[-3000:]}"


@dataclass(frozen=True)
class Operator:
    """One site file on the rehearsal pair."""

    site: Path
    ssh_config: Path

    def run(self, verb: str, *words: str, timeout_s: float = 600, site: Path | None = None) -> Done:
        """Type `dspark-ops VERB --site ... WORDS` and wait for its end."""
        argv = (*verb.split(), "--site", str(site or self.site), *words)
        done = subprocess.run(
            [sys.executable, "-m", "dspark_ops", *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Done(argv, done.returncode, done.stdout, done.stderr)

    def kill_at(self, verb: str, marker: str, *words: str, timeout_s: float = 300, delay_s: float = 0.0) -> bool:
        """Start a verb and SIGKILL it once `marker` is in its progress; False when it ended before."""
        process = self.begin(verb, *words)
        seen = wait_for_line(process, marker, timeout_s)
        if seen:
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=timeout_s)
        return seen and process.returncode == -signal.SIGKILL

    def begin(self, verb: str, *words: str, listen: str = "stderr") -> subprocess.Popen[str]:
        """Start a verb and leave it running; what it says on the named stream is for `wait_for_line`."""
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "dspark_ops", *verb.split(), "--site", str(self.site), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if listen == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if listen == "stderr" else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Whoever runs the tests in the background ignores SIGINT; an operator at a terminal does not.
            preexec_fn=_hear_interrupts,
        )

    def on(self, role: str, *argv: str, check: bool = True, timeout_s: float = 60) -> str:
        """Look at a node, or harm it, by plain ssh as root. Words are joined as ssh does."""
        command = ["ssh", "-F", str(self.ssh_config), HOSTS[role], "sudo", "-n", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"{role}: {argv}: {done.stderr}"
        return done.stdout

    def ranks(self) -> dict[str, dict[str, str] | None]:
        """What runs under the rank's name on each node: its state, id and labels, or None."""
        found: dict[str, dict[str, str] | None] = {}
        for role in HOSTS:
            text = self.on(role, "docker", "ps", "-a", "--no-trunc", "--format", "'{{json .}}'", check=False)
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            found[role] = next((row for row in rows if row["Names"] == RANK), None)
        return found

    def rank_pid(self, role: str) -> int:
        """The process id of the rank's first process, as the node counts it."""
        return int(self.on(role, "docker", "container", "inspect", "--format", "'{{.State.Pid}}'", RANK))


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_line(process: subprocess.Popen[str], marker: str, timeout_s: float) -> bool:
    """Read the stream until `marker` comes; then go on draining it, so that the verb never blocks on a full pipe."""
    stream = process.stderr or process.stdout
    assert stream is not None
    found, ended = threading.Event(), threading.Event()

    def drain() -> None:
        for line in stream:
            if marker in line:
                found.set()
        ended.set()

    threading.Thread(target=drain, daemon=True).start()
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit and not found.is_set() and not ended.is_set():
        time.sleep(0.02)
    return found.is_set()
