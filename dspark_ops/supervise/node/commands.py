"""Runs a program with a limit of time and of output. Nothing the supervisor calls can hold it up for longer."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 65536
#: How long after its own end a program's output is still read: a child of it may hold the pipe open for ever.
_AFTER_END_S = 0.3


@dataclass(frozen=True)
class Finished:
    """How a program ended. rc: None when it did not run or had to be killed, and error says which."""

    rc: int | None
    out: str
    err: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.rc == 0

    def said(self) -> str:
        """One line about a failure."""
        text = self.error or self.err.strip() or self.out.strip()
        last = text.splitlines()[-1] if text else ""
        return last[:300] or f"exit code {self.rc}"


def run(argv: Sequence[str], *, timeout_s: float, stdin: str = "", max_bytes: int = 4 << 20) -> Finished:
    """Run a program in a process group of its own; whatever is left of the group is killed at the limit.

    max_bytes: of each stream; what comes beyond it is read and dropped.
    """
    deadline = time.monotonic() + timeout_s
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return Finished(None, "", "", f"{argv[0]} could not be started: {error.strerror or error}")
    kept = _pump(process, stdin.encode(), deadline, max_bytes)
    rc: int | None = None
    failed = None
    try:
        rc = process.wait(max(0.05, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        failed = f"{argv[0]} did not end within {timeout_s:g} s"
        _kill_group(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    out, err = (bytes(part).decode("utf-8", "replace") for part in kept)
    return Finished(rc, out, err, failed)


def _pump(process: subprocess.Popen[bytes], given: bytes, deadline: float, limit: int) -> tuple[bytearray, bytearray]:
    """Feed the input and gather both outputs until they end, the program has ended, or the deadline."""
    kept = (bytearray(), bytearray())
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    with selectors.DefaultSelector() as selector:
        for index, stream in enumerate((process.stdout, process.stderr)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, index)
        os.set_blocking(process.stdin.fileno(), False)
        left = memoryview(given)
        if left:
            selector.register(process.stdin, selectors.EVENT_WRITE, None)
        else:
            process.stdin.close()
        ended_at: float | None = None
        while selector.get_map():
            now = time.monotonic()
            if process.poll() is not None:
                ended_at = ended_at or now
            if now >= deadline or (ended_at is not None and now - ended_at > _AFTER_END_S):
                break
            for key, _ in selector.select(min(0.2, max(0.01, deadline - now))):
                if key.data is None:
                    left = _feed(process, left)
                    if not left:
                        selector.unregister(key.fileobj)
                        process.stdin.close()
                elif not _take(key.fd, kept[key.data], limit):
                    selector.unregister(key.fileobj)
    return kept


def _feed(process: subprocess.Popen[bytes], left: memoryview) -> memoryview:
    """Write what fits; nothing is left when the program does not want it any more."""
    assert process.stdin is not None  # noqa: S101
    try:
        written = os.write(process.stdin.fileno(), left[:_CHUNK])
    except BlockingIOError:
        return left
    except OSError:
        return left[:0]
    return left[written:]


def _take(fd: int, kept: bytearray, limit: int) -> bool:
    """Read what is there; False at the end of the stream."""
    try:
        chunk = os.read(fd, _CHUNK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    if len(kept) < limit:
        kept += chunk[: limit - len(kept)]
    return bool(chunk)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(2.0)
