"""The head's way to the worker's end: ssh with an argument list, over the management address and then the fabric.

One connection per address is kept open (ssh's own master), so that a look costs a channel and not a key exchange. An
ssh that hangs is killed at the caller's limit, and the master with it: the next call begins anew.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.supervise.node.commands import Finished, run
from dspark_ops.supervise.node.config import WorkerLink
from dspark_ops.supervise.node.rank import VERSION

_CONNECT_S = 3
#: A path that failed is not tried first again for so long.
_SECOND_CHOICE_S = 20.0
_MASTER_PAUSE_S = 5.0
_SSH_FAILED = 255


class LinkError(Exception):
    """The worker's end did not answer, or said no. reached: its end answered, so that the request got there."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


@dataclass
class _Path:
    """One address. failed_at: monotonic seconds of the last failure, None after an answer. ok: of the last try."""

    name: str
    address: str
    socket: Path
    master: subprocess.Popen[bytes] | None = None
    master_at: float = -1e9
    failed_at: float | None = None
    ok: bool | None = None


class Link:
    """Asks the worker's end. Safe for several threads."""

    def __init__(self, worker: WorkerLink, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._worker = worker
        self._paths = self._paths_of(worker)
        self._lock = threading.Lock()
        self._closed = False

    def adopt(self, worker: WorkerLink) -> None:
        """Reach the worker by other addresses from now on; nothing happens when they are the same."""
        if worker == self._worker:
            return
        with self._lock:
            masters = [path.master for path in self._paths if path.master is not None]
            self._worker, self._paths = worker, self._paths_of(worker)
        for master in masters:
            _end(master)

    def _paths_of(self, worker: WorkerLink) -> list[_Path]:
        named = enumerate(worker.addresses)
        return [_Path(name, address, self._run_dir / f"ssh-{index}") for index, (name, address) in named]

    def ask(self, verb: str, *, timeout_s: float, **fields: Any) -> Any:
        """Send one request and give its result.

        A request that reached the worker's end is not sent again over another path.

        Raises:
            LinkError: no path led there within the limit each, or the other end says why it did not do it.
        """
        request = json.dumps({"v": VERSION, "verb": verb, **fields})
        failures = []
        for path in self._in_order():
            done = run(self._argv(path), timeout_s=timeout_s, stdin=request, max_bytes=16 << 20)
            said = _parse(done)
            if said is not None:
                self._note(path, None)
                if said.get("ok") is True:
                    return said.get("result")
                raise LinkError(f"worker: {said.get('error')}", reached=True)
            self._note(path, time.monotonic())
            failures.append(f"{path.name} ({path.address}): {done.said()}")
        raise LinkError("the worker cannot be reached: " + "; ".join(failures), reached=False)

    def probe(self, name: str, *, timeout_s: float) -> bool:
        """Whether the path of this name leads there now."""
        for path in self._paths:
            if path.name == name:
                request = json.dumps({"v": VERSION, "verb": "memory"})
                said = _parse(run(self._argv(path), timeout_s=timeout_s, stdin=request))
                self._note(path, None if said is not None else time.monotonic())
                return said is not None
        return False

    def reachable(self) -> dict[str, bool | None]:
        """By the name of each path, whether the last try got an answer; None before the first."""
        with self._lock:
            return {path.name: path.ok for path in self._paths}

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            self._closed = True
            masters = [path.master for path in self._paths if path.master is not None]
        for master in masters:
            _end(master)

    def _in_order(self) -> list[_Path]:
        """The paths in the order they were given, those that failed just now behind the others."""
        now = time.monotonic()
        with self._lock:
            return sorted(self._paths, key=lambda p: p.failed_at is not None and now - p.failed_at < _SECOND_CHOICE_S)

    def _note(self, path: _Path, failed_at: float | None) -> None:
        stale = None
        with self._lock:
            path.failed_at, path.ok = failed_at, failed_at is None
            if failed_at is not None:
                stale, path.master = path.master, None
        if stale is not None:
            _end(stale)

    def _argv(self, path: _Path) -> list[str]:
        self._keep_master(path)
        return ["ssh", "-T", *self._options(path), "-o", "ControlMaster=no", "--", path.address, "rank"]

    def _options(self, path: _Path) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._worker.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self._worker.identity),
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT_S),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": "2",
            "ServerAliveCountMax": "2",
            "LogLevel": "ERROR",
            "ControlPath": str(path.socket),
        }
        if self._worker.host_key_alias is not None:
            options["HostKeyAlias"] = self._worker.host_key_alias
        words = ["-F", "/dev/null"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        return [*words, "-l", self._worker.user, "-p", str(self._worker.port)]

    def _keep_master(self, path: _Path) -> None:
        """Start the connection that the calls share; a call that finds none makes one of its own."""
        with self._lock:
            alive = path.master is not None and path.master.poll() is None
            if self._closed or alive or time.monotonic() - path.master_at < _MASTER_PAUSE_S:
                return
            path.master_at = time.monotonic()
            with suppress(OSError):
                path.socket.unlink()
            argv = ["ssh", "-N", "-T", *self._options(path), "-o", "ControlMaster=yes", "--", path.address]
            with suppress(OSError):
                path.master = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )


def _parse(done: Finished) -> dict[str, Any] | None:
    """The answer of the other end, None when there was none, whatever ssh says."""
    if done.rc == _SSH_FAILED or not done.out.strip():
        return None
    try:
        said = json.loads(done.out)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and "ok" in said else None


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2.0)
