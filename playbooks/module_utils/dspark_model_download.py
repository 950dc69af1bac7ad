"""One blob from a hub into the cache: gone on with where it was cut, hashed while it comes, kept when it is right."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.dspark_model_hub_client import PAUSE_MAX_S, CutError, Hub, HubError
from ansible.module_utils.dspark_model_layout import INCOMPLETE, git_header

_CHUNK = 1 << 20
_STOPPED, _WHY_STOPPED = "weights.stopped", "stopped, because another file failed or the run ended"


def download(
    hub: Hub, file: dict[str, Any], blobs: Path, tell: Callable[[int], None], stop: threading.Event
) -> tuple[int, int, str]:
    """Bring one blob; (bytes that came, bytes that were there, its sha256). What came stays as `.incomplete`.

    Raises:
        HubError: refused, another content than promised (then it is thrown away), or nothing came for too long.
    """
    whole, part = blobs / file["blob"], blobs / (file["blob"] + INCOMPLETE)
    size = int(file["size"])
    if whole.exists():
        digest = _Running(file, whole).digest() if whole.stat().st_size == size else None
        if digest is not None:
            tell(size)
            return 0, size, digest
        whole.unlink()
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    running = _Running(file, part)
    kept = part.stat().st_size if part.exists() else 0
    tell(kept)
    came = _complete(hub, file, part, running, tell, stop)
    if running.digest() is None and kept:
        # What an earlier run left may have been wrong: once more from the beginning, and only once.
        part.unlink()
        tell(-size)
        running, kept = _Running(file, part), 0
        came += _complete(hub, file, part, running, tell, stop)
    digest = running.digest()
    if digest is None:
        part.unlink()
        raise HubError(
            f"{file['name']} has another digest than {file['blob']}; what came was thrown away", "weights.digest"
        )
    part.replace(whole)
    return came, kept, digest


class _Running:
    """The digests of a file while it grows, begun with what is there of it."""

    def __init__(self, file: dict[str, Any], path: Path) -> None:
        self._file = file
        self.restart()
        if path.exists():
            with path.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    self.update(chunk)

    def restart(self) -> None:
        self._sha256, self.size = hashlib.sha256(), 0
        # Only LFS gives a sha256; the name of any other blob is git's digest.
        git = self._file["blob"] != self._file["sha256"]
        self._sha1 = hashlib.sha1(git_header(int(self._file["size"])), usedforsecurity=False) if git else None

    def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._sha1 is not None:
            self._sha1.update(chunk)
        self.size += len(chunk)

    def digest(self) -> str | None:
        """The sha256 when all is as the hub promised, else None."""
        whole = self._sha256.hexdigest()
        right = self.size == int(self._file["size"]) and self._file["sha256"] in (None, whole)
        return whole if right and (self._sha1 is None or self._sha1.hexdigest() == self._file["blob"]) else None


def _complete(
    hub: Hub, file: dict[str, Any], part: Path, running: _Running, tell: Callable[[int], None], stop: threading.Event
) -> int:
    """Append to `part` until it has the promised size; the bytes that came."""
    size, came, failed = int(file["size"]), 0, 0
    with part.open("ab") as out:

        def sink(chunk: bytes) -> None:
            nonlocal came
            if stop.is_set():
                raise HubError(f"{file['name']}: {_WHY_STOPPED}", _STOPPED)
            if not chunk:
                # The server does not know ranges: from the beginning.
                tell(-running.size)
                out.truncate(0)
                running.restart()
                return
            out.write(chunk)
            running.update(chunk)
            came += len(chunk)
            tell(len(chunk))

        while running.size < size:
            before = came
            if stop.is_set():
                raise HubError(f"{file['name']}: {_WHY_STOPPED}", _STOPPED)
            try:
                hub.stream(file, running.size, sink)
            except CutError as cut:
                failed = 1 if came > before else failed + 1
                if failed >= hub.attempts:
                    raise HubError(
                        f"{file['name']}: nothing came in {failed} attempts in a row ({cut}); {running.size} of {size} "
                        f"bytes are kept",
                        "weights.silent",
                    ) from cut
                stop.wait(min(hub.pause_s * 2 ** (failed - 1), PAUSE_MAX_S))
    return came
