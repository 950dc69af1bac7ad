"""What is gathered before anything is ended: bounded in time and size, kept for root alone, the oldest thrown away.

The texts are kept as they are, but for the environment's values: they stay on the node, in a directory of mode 0700.
Whoever packs them for others takes the secrets out (`dspark-ops evidence`).
"""

from __future__ import annotations

import base64
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from dspark_ops.supervise.node import containers, kernel_log
from dspark_ops.supervise.node.commands import run

#: Of one text, and of all the texts of a node.
_TEXT_BYTES = 1 << 20
_NODE_BYTES = 4 << 20
_MOST_STACKS = 8
#: A bundle is not begun with less room than this: the state of the supervisor needs it more.
_ROOM_BYTES = 64 << 20


def gather_here(limit_s: float) -> dict[str, str]:
    """The texts of this node by name, packed for the way: zlib and base64. What was not ready in time says so."""
    seen = None
    with suppress(containers.ContainerError):
        seen = containers.look()
    sources: dict[str, Callable[[], str]] = {
        "log.txt": containers.logs,
        "inspect.json": containers.inspect_text,
        "kernel.txt": lambda: kernel_log.tail(kernel_log.read_lines()),
        "meminfo.txt": lambda: _file(Path("/proc/meminfo")),
        "counters.txt": rdma_counters,
        "sockets.txt": lambda: _said(["ss", "-tanp"], 5.0),
        "processes.txt": lambda: _said(["ps", "-eo", "pid,ppid,stat,wchan:32,rss,etime,args", "--sort=-rss"], 5.0),
        "gpu.txt": lambda: _said(["nvidia-smi", "-q", "-d", "POWER,UTILIZATION,TEMPERATURE,CLOCK"], 8.0),
    }
    if seen is not None and seen.running:
        ended = seen.id
        sources["stacks.txt"] = lambda: stacks(ended, limit_s * 0.7)
    texts = _side_by_side(sources, limit_s)
    packed, size = {}, 0
    for name, text in texts.items():
        packed[name] = pack(text)
        size += len(packed[name])
        if size > _NODE_BYTES:
            packed[name] = pack("-- left out: the bundle is full")
    return packed


def pack(text: str) -> str:
    """The end of a text for the way."""
    raw = zlib.compress(text.encode("utf-8", "replace")[-_TEXT_BYTES:], 6)
    return base64.b64encode(raw).decode("ascii")


def unpack(text: str) -> bytes:
    """One text of `gather_here`; at most as much as it may be. Raises: ValueError."""
    try:
        return zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _TEXT_BYTES)
    except zlib.error as error:
        raise ValueError(f"the text is damaged: {error}") from None


def rdma_counters(root: Path = Path("/sys/class/infiniband")) -> str:
    """GIDs and counters of every RDMA port, `PATH VALUE` a line; values that are 0 too."""
    lines = []
    for kind in ("state", "phys_state", "rate", "gids/*", "gid_attrs/types/*", "counters/*", "hw_counters/*"):
        for path in sorted(root.glob(f"*/ports/*/{kind}"))[:2000]:
            with suppress(OSError):
                value = path.read_text(errors="replace").strip()
                if kind != "gids/*" or value.strip("0:"):
                    lines.append(f"{path.relative_to(root)} {value}")
    return "\n".join(lines) or "-- no RDMA devices"


def stacks(container_id: str, limit_s: float) -> str:
    """The Python stacks of the rank's processes, where py-spy is there; a process that stands still answers too."""
    if shutil.which("py-spy") is None:
        return "-- py-spy is not installed"
    deadline = time.monotonic() + limit_s
    parts = []
    for pid in containers.left_of(container_id)[:_MOST_STACKS]:
        left = deadline - time.monotonic()
        if left < 1.0:
            parts.append("-- no time was left for the others")
            break
        parts.append(_said(["py-spy", "dump", "--nonblocking", "--pid", str(pid)], min(left, 5.0)))
    return "\n\n".join(parts) or "-- no processes"


class Bundles:
    """The bundles of this node: one directory per incident, at most so many."""

    def __init__(self, root: Path, keep: int) -> None:
        self._root = root
        self._keep = keep

    def write(self, incident: str, parts: dict[str, dict[str, str] | str]) -> Path:
        """Write the texts of each role, or why there are none, and throw the oldest bundles away.

        Raises:
            OSError: no room, or the disk does not take it; what was written of the bundle is taken away again.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prune(self._keep - 1)
        room = os.statvfs(self._root)
        if room.f_bavail * room.f_frsize < _ROOM_BYTES:
            raise OSError(f"less than {_ROOM_BYTES >> 20} MiB are free at {self._root}")
        final = self._root / incident
        fresh = self._root / f".{incident}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700)
            for role, texts in parts.items():
                (fresh / role).mkdir(mode=0o700)
                named = {"missing.txt": texts} if isinstance(texts, str) else texts
                for name, text in named.items():
                    # The name comes over the link: nothing but a name may become a path.
                    path = fresh / role / Path(name).name
                    path.write_bytes(text.encode() if isinstance(texts, str) else _unpacked(text))
                    path.chmod(0o600)
            shutil.rmtree(final, ignore_errors=True)
            fresh.replace(final)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return final

    def _prune(self, keep: int) -> None:
        with suppress(OSError):
            found = sorted(self._root.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in found[: max(0, len(found) - max(0, keep))]:
                shutil.rmtree(path, ignore_errors=True)


def _unpacked(text: str) -> bytes:
    try:
        return unpack(text)
    except ValueError as error:
        return f"-- {error}".encode()


def _side_by_side(sources: dict[str, Callable[[], str]], limit_s: float) -> dict[str, str]:
    """Run all at once; one that is late or fails says so in its place."""
    futures: dict[str, Future[str]] = {}
    for name, source in sources.items():
        future: Future[str] = Future()
        futures[name] = future
        threading.Thread(target=_into, args=(future, source), daemon=True).start()
    deadline = time.monotonic() + limit_s
    texts = {}
    for name, future in futures.items():
        try:
            texts[name] = future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            texts[name] = f"-- not ready within {limit_s:g} s"
        except Exception as error:
            texts[name] = f"-- {error!r}"
    return texts


def _into(future: Future[str], source: Callable[[], str]) -> None:
    try:
        future.set_result(source())
    except Exception as error:
        future.set_exception(error)


def _said(argv: list[str], limit_s: float) -> str:
    done = run(argv, timeout_s=limit_s, max_bytes=_TEXT_BYTES)
    return (done.out + done.err) if done.ok else f"{done.out}\n-- {' '.join(argv)}: {done.said()}"


def _file(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
