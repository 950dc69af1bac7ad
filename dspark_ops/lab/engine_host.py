"""The Docker Engine that carries the rehearsal pair: the machine's where one runs, else one of our own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.lab import engine_traces

if TYPE_CHECKING:
    import docker

_MACHINE_SOCKET = Path("/var/run/docker.sock")
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 40
_PROGRAMS = frozenset({"dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "runc", "docker-proxy"})
#: sun_path holds 108 bytes; containerd's socket below the exec root is the longest name.
_LONGEST_SOCKET = "containerd/containerd-debug.sock"


@dataclass(frozen=True)
class DockerHost:
    """A reachable Docker Engine; `own` says that we started it and will end it."""

    socket: Path
    own: bool

    def client(self) -> docker.DockerClient:
        """A client with a timeout long enough for a large image."""
        import docker

        return docker.DockerClient(base_url=f"unix://{self.socket}", timeout=600)

    def answers(self) -> bool:
        """Whether the Engine replies to a ping now."""
        import docker
        import requests

        if not self.socket.exists():
            return False
        try:
            client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=10)
        except docker.errors.DockerException:
            return False
        try:
            return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False
        finally:
            client.close()


@dataclass(frozen=True)
class OwnEngine:
    """Where our own Engine keeps everything: one directory, so that removing it removes the Engine."""

    root: Path

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def pid_file(self) -> Path:
        return self.root / "docker.pid"

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def exec_root(self) -> Path:
        return self.root / "exec"

    @property
    def log(self) -> Path:
        return self.root / "dockerd.log"

    @property
    def traces(self) -> Path:
        """What the machine looked like before dockerd changed it; see engine_traces."""
        return self.root / "before.json"

    def pid(self) -> int | None:
        """The process id of our dockerd, or None when it does not run (a recycled pid does not count)."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self.data_root).encode() in argv else None


def find_docker(lab_dir: Path) -> DockerHost | None:
    """The Engine the lab uses now: our own where it runs, else the machine's; None where neither answers."""
    own = OwnEngine(lab_dir / "docker")
    if own.pid() is not None:
        host = DockerHost(own.socket, own=True)
        return host if host.answers() else None
    host = DockerHost(_machine_socket(), own=False)
    return host if host.answers() else None


def ensure_docker(lab_dir: Path) -> DockerHost:
    """A running Engine: our own if it runs, else the machine's, else a dockerd started below `lab_dir`.

    The dockerd of our own has its data root, exec root, pid file and socket in `lab_dir/docker`; it is not supervised
    and outlives this process until `stop_own_engine`.
    """
    found = find_docker(lab_dir)
    if found is not None:
        return found
    own = OwnEngine(lab_dir / "docker")
    if own.pid() is not None:
        # Alive and mute: still starting for another run, or stuck. Wait for it rather than start a second one.
        return _wait_until_up(own, lambda: own.pid() is not None)
    if os.geteuid() != 0:
        raise ConfigError(
            f"no Docker Engine answers at {_machine_socket()} and starting one needs root",
            hint="start Docker, or run this with sudo",
        )
    return _start(own)


def stop_own_engine(lab_dir: Path) -> bool:
    """End our own dockerd and what it left in the kernel; True when one was running. Its data is not removed here."""
    own = OwnEngine(lab_dir / "docker")
    pid = own.pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid, _STOP_TIMEOUT_S):
            os.kill(pid, signal.SIGKILL)
            _gone(pid, 10)
    _end_helpers(own)
    if own.traces.is_file():
        engine_traces.restore(json.loads(own.traces.read_text(encoding="utf-8")))
        own.traces.unlink()
    return pid is not None


def _machine_socket() -> Path:
    named = os.environ.get("DOCKER_HOST", "")
    return Path(named.removeprefix("unix://")) if named.startswith("unix://") else _MACHINE_SOCKET


def _start(own: OwnEngine) -> DockerHost:
    program = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise ConfigError("no Docker Engine runs and dockerd is not installed", hint="apt-get install docker.io")
    longest = own.exec_root / _LONGEST_SOCKET
    if len(os.fsencode(longest)) > 107:
        raise ConfigError(
            f"the state directory is too deep for a Unix socket: {longest} is over 107 bytes",
            hint="set XDG_STATE_HOME to a shorter path",
        )
    own.root.mkdir(parents=True, exist_ok=True)
    own.pid_file.unlink(missing_ok=True)
    _forget_containerd(own)
    if not own.traces.is_file():
        partial = own.traces.with_suffix(".partial")
        partial.write_text(json.dumps(engine_traces.record()), encoding="utf-8")
        partial.replace(own.traces)
    config = own.root / "daemon.json"
    config.write_text("{}\n", encoding="utf-8")
    command = [
        program,
        f"--config-file={config}",
        "--data-root",
        str(own.data_root),
        "--exec-root",
        str(own.exec_root),
        f"--pidfile={own.pid_file}",
        f"--host=unix://{own.socket}",
        "--storage-driver=overlay2",
        "--log-level=warn",
    ]
    with own.log.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
    return _wait_until_up(own, lambda: process.poll() is None)


def _wait_until_up(own: OwnEngine, alive: Callable[[], bool]) -> DockerHost:
    host = DockerHost(own.socket, own=True)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if host.answers():
            return host
        if not alive():
            break
        time.sleep(0.1)
    what = f"was not ready within {_START_TIMEOUT_S} s" if alive() else "ended"
    said = own.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if own.log.is_file() else []
    raise NoVerdictError(
        f"dockerd {what} and did not answer at {own.socket}; it said:\n" + "\n".join(said),
        hint=f"its log is {own.log}; `dspark-ops lab down` clears it away",
    )


def _gone(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with Path(f"/proc/{pid}/stat").open(encoding="ascii", errors="replace") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def _forget_containerd(own: OwnEngine) -> None:
    """Let a new dockerd start its own containerd after the old pair was killed.

    dockerd takes the pid file's process for a running containerd although it may be a zombie, and then waits in vain.
    The shims live on: the new containerd finds them, and dockerd ends their containers in order.
    """
    for pid in _processes_naming(str(own.exec_root), {"containerd"}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _gone(pid, 5)
    for name in ("containerd.pid", "containerd.sock", "containerd.sock.ttrpc", "containerd-debug.sock"):
        (own.exec_root / "containerd" / name).unlink(missing_ok=True)


def _end_helpers(own: OwnEngine) -> None:
    """End containerd and shims of ours that outlived dockerd (after a kill -9): those that name our exec root."""
    for _ in range(3):
        left = _processes_naming(str(own.root), _PROGRAMS)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for pid in left:
            _gone(pid, 5)


def _processes_naming(root: str, programs: Set[str]) -> list[int]:
    """Processes of these programs whose arguments lie below `root`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = [a.decode(errors="replace") for a in (entry / "cmdline").read_bytes().split(b"\0")]
        except OSError:
            continue
        if argv and Path(argv[0]).name in programs and any(root in argument for argument in argv[1:]):
            found.append(int(entry.name))
    return found
