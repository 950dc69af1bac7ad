"""The worker's end of a transfer: files by digest over HTTP through one device, resumed where they were cut."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_ATTEMPT_S = 5.0
_PAUSE_S = 0.5
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class FetchError(Exception):
    """A file could not be fetched. check: what it is about, the second half of a check's id."""

    def __init__(self, message: str, check: str) -> None:
        super().__init__(message)
        self.check = check


class _CutError(Exception):
    """The connection ended, was silent or could not be made: tried again while the patience lasts."""


class _Connection(http.client.HTTPConnection):
    """An HTTP connection on a socket of ours."""

    def __init__(self, address: str, port: int, link: Callable[[], socket.socket]) -> None:
        super().__init__(address, port, timeout=_ATTEMPT_S)
        self._link = link

    def connect(self) -> None:
        self.sock = self._link()


class Source:
    """Where the files are. local and device: the address and the netdev that the connection must use, or None."""

    def __init__(
        self, address: str, port: int, token: str, local: str | None = None, device: str | None = None
    ) -> None:
        self.address, self.port, self._token = address, port, token
        self._local, self._device = local, device

    def _connect(self) -> socket.socket:
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            link.settimeout(_ATTEMPT_S)
            if self._device is not None:
                # Without it a lost rail would send this through whatever route is left: the management network.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._device.encode())
            if self._local is not None:
                link.bind((self._local, 0))
            link.connect((self.address, self.port))
        except OSError:
            link.close()
            raise
        return link

    def get(self, name: str, offset: int, size: int, sink: Callable[[bytes], None]) -> None:
        """Give the bytes of a file from `offset` on to `sink`, as they come.

        Raises:
            _CutError: the connection failed on the way; what came has been given.
            FetchError: the server refused, is gone, or has another file.
        """
        connection = _Connection(self.address, self.port, self._connect)
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Range": f"bytes={offset}-"}
            connection.request("GET", f"/{name}", headers=headers)
            answer = connection.getresponse()
            _judge(answer, name, offset, size)
            left = size - offset
            while left:
                chunk = answer.read1(min(_CHUNK, left))
                if not chunk:
                    raise _CutError("the connection ended early")
                sink(chunk)
                left -= len(chunk)
        except ConnectionRefusedError as error:
            # A cable that is cut is silent; a refusal says that the run which we belong to has ended.
            raise FetchError(f"nobody serves on {self.address} any more", "sync_refused") from error
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(str(error) or type(error).__name__) from error
        finally:
            connection.close()


def _judge(answer: http.client.HTTPResponse, name: str, offset: int, size: int) -> None:
    if answer.status in (401, 403):
        raise FetchError("the head refused our token: another sync has begun meanwhile", "sync_refused")
    if answer.status != 206:
        raise FetchError(f"the head answered {answer.status} for {name}", "sync_refused")
    found = _RANGE.fullmatch(answer.getheader("Content-Range") or "")
    if found is None or (int(found[1]), int(found[3])) != (offset, size):
        raise FetchError(
            f"the head sent {answer.getheader('Content-Range')!r} of {name}, expected {offset} to the end of {size}",
            "sync_refused",
        )


def fetch(
    source: Source,
    name: str,
    digest: str,
    size: int,
    folder: Path,
    silence_s: float,
    *,
    suffix: str = ".part",
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Bring one file; (bytes that came now, bytes that an earlier run had kept). With the suffix until it is whole.

    tell: is given the bytes that came or were there, as they are known. size 0 needs no server.

    Raises:
        FetchError: nothing came for silence_s, the token was refused, or the content has another digest (then it is
            thrown away).
    """
    whole, part = folder / name, folder / f"{name}{suffix}"
    if whole.exists():
        if _hash_of(whole).hexdigest() == digest:
            tell(whole.stat().st_size)
            return 0, whole.stat().st_size
        whole.unlink()
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    running = _hash_of(part)
    kept = part.stat().st_size if part.exists() else 0
    tell(kept)
    came = _complete(source, name, size, part, running, kept, silence_s, tell)
    if running.hexdigest() != digest:
        part.unlink()
        raise FetchError(
            f"{name} has the digest sha256:{running.hexdigest()}, expected sha256:{digest}; it was thrown away",
            "sync_digest",
        )
    part.replace(whole)
    return came, kept


def _complete(
    source: Source,
    name: str,
    size: int,
    part: Path,
    running: Any,
    kept: int,
    silence_s: float,
    tell: Callable[[int], None],
) -> int:
    came, last = 0, time.monotonic()
    with part.open("ab") as out:

        def sink(chunk: bytes) -> None:
            nonlocal came, last
            out.write(chunk)
            running.update(chunk)
            came += len(chunk)
            last = time.monotonic()
            tell(len(chunk))

        while kept + came < size:
            try:
                source.get(name, kept + came, size, sink)
            except _CutError as cut:
                if time.monotonic() - last >= silence_s:
                    raise FetchError(
                        f"nothing came from {source.address} for {silence_s:g} s ({cut})", "sync_silent"
                    ) from cut
                time.sleep(_PAUSE_S)
    return came


def _hash_of(path: Path) -> Any:
    digest = hashlib.sha256()
    if path.exists():
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
    return digest
