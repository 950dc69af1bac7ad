"""A Hugging Face hub over HTTP for tests: the same routes, headers and redirects, and the harm a test asks for.

Runs inside a test or as a program on a node (standard library only). What it serves is a directory: one repository at
one commit. Files that end in .safetensors are in LFS: they are sent from `/store/`, behind a redirect, as on the hub.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import threading
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PIECE = 1 << 18


@dataclass(frozen=True)
class Kept:
    """One file of the repository."""

    name: str
    path: Path
    size: int
    git: str
    sha256: str

    @property
    def lfs(self) -> bool:
        return self.name.endswith(".safetensors")

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git

    def sibling(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"rfilename": self.name, "size": self.size, "blobId": self.git}
        return plain | ({"lfs": {"sha256": self.sha256, "size": self.size, "pointerSize": 134}} if self.lfs else {})

    def entry(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"type": "file", "path": self.name, "size": self.size, "oid": self.git}
        return plain | ({"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.lfs else {})


def keep(path: Path, name: str) -> Kept:
    """A file with its digests."""
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return Kept(name, path, len(content), git, hashlib.sha256(content).hexdigest())


@dataclass
class Harm:
    """What goes wrong, by file name. Every field is a set or a map of names; rate_bytes_s slows all files.

    missing: 404. corrupt: one byte differs. etag, size, commit: the headers tell of another content. cut: each
    connection ends after so many bytes. stall: after half of the file nothing comes. no_range: sent from the start.
    busy: so many answers of 503 first. unlisted: not in the metadata.
    """

    missing: set[str] = field(default_factory=set)
    corrupt: set[str] = field(default_factory=set)
    etag: set[str] = field(default_factory=set)
    size: set[str] = field(default_factory=set)
    commit: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    stall: set[str] = field(default_factory=set)
    no_range: set[str] = field(default_factory=set)
    busy: dict[str, int] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    rate_bytes_s: float | None = None
    token: str | None = None


class HubServer(ThreadingHTTPServer):
    """The hub and, on a second port, its store: as in the world, the store is another host."""

    daemon_threads = True

    def __init__(
        self, folder: Path, repo: str, revision: str, port: int = 0, store: HubServer | None = None, host: str = ""
    ) -> None:
        self.repo, self.revision, self.store = repo, revision, store
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        self.files = {name: keep(folder / name, name) for name in names}
        self.harm = store.harm if store is not None else Harm()
        self.asked: list[tuple[str, str, str | None]] = []
        super().__init__((host or "127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/store/"):
            # A store knows its own signatures; a hub's token does not belong there.
            if self.headers.get("Authorization"):
                self._plain(400, b"no authorization wanted here")
                return
            file = next((f for f in hub.files.values() if f.sha256 == path.removeprefix("/store/")), None)
            self._send(file, {"ETag": '"of-the-store"'}, body=body) if file else self._plain(404, b"")
            return
        if hub.harm.token and self.headers.get("Authorization") != f"Bearer {hub.harm.token}":
            self._plain(401, b"gated")
            return
        if path in (f"/api/models/{hub.repo}/revision/{name}" for name in (hub.revision, "main")):
            siblings = [f.sibling() for f in hub.files.values() if f.name not in hub.harm.unlisted]
            told = {"id": hub.repo, "modelId": hub.repo, "sha": hub.revision, "siblings": siblings}
            self._plain(200, json.dumps(told).encode(), "application/json")
            return
        if path == f"/api/models/{hub.repo}/tree/{hub.revision}":
            self._plain(200, json.dumps([f.entry() for f in hub.files.values()]).encode(), "application/json")
            return
        found = re.fullmatch(rf"/{re.escape(hub.repo)}/resolve/({hub.revision}|main)/(.+)", path)
        file = hub.files.get(found[2]) if found else None
        if file is None or file.name in hub.harm.missing:
            self._plain(404, b"Entry not found")
            return
        self._resolve(file, body=body)

    def _resolve(self, file: Kept, *, body: bool) -> None:
        hub, name = self.server, file.name
        if hub.harm.busy.get(name, 0) > 0:
            hub.harm.busy[name] -= 1
            self._plain(503, b"busy")
            return
        commit = "f" * 40 if name in hub.harm.commit else hub.revision
        etag = "0" * len(file.etag) if name in hub.harm.etag else file.etag
        headers = {"X-Repo-Commit": commit}
        if not file.lfs:
            self._send(file, headers | {"ETag": f'"{etag}"'}, body=body)
            return
        size = file.size + (1 if name in hub.harm.size else 0)
        where = (hub.store or hub).address + f"/store/{file.sha256}"
        self.send_response(302)
        for key, value in (headers | {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size)}).items():
            self.send_header(key, value)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _plain(self, status: int, text: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _send(self, file: Kept, headers: dict[str, str], *, body: bool) -> None:
        harm, size = self.server.harm, file.size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        begin = int(asked[1]) if asked and file.name not in harm.no_range else 0
        ranged = asked is not None and file.name not in harm.no_range
        if ranged and begin >= size:
            self._plain(416, b"")
            return
        end = min(int(asked[2]) + 1, size) if ranged and asked and asked[2] else size
        self.send_response(206 if ranged else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if ranged:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if body:
            with suppress(OSError):
                self._bytes(file, begin, end)

    def _bytes(self, file: Kept, begin: int, end: int) -> None:
        harm, at = self.server.harm, begin
        until = min(end, begin + harm.cut[file.name]) if file.name in harm.cut else end
        with file.path.open("rb") as source:
            source.seek(begin)
            while at < until:
                if file.name in harm.stall and at >= file.size // 2:
                    time.sleep(3600)
                piece = source.read(min(_PIECE, until - at))
                if file.name in harm.stall:
                    piece = piece[: max(1, file.size // 2 - at)]
                    source.seek(at + len(piece))
                if file.name in harm.corrupt and at <= file.size // 2 < at + len(piece):
                    spot = file.size // 2 - at
                    piece = piece[:spot] + bytes([piece[spot] ^ 1]) + piece[spot + 1 :]
                self.wfile.write(piece)
                at += len(piece)
                if harm.rate_bytes_s:
                    time.sleep(len(piece) / harm.rate_bytes_s)
        if until < end:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Tests look at `asked`."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Serve a directory as one commit of one repository of a hub.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate-bytes-s", type=float)
    given = parser.parse_args(arguments)
    hub = HubServer(given.folder, given.repo, given.revision, given.port)
    hub.harm.rate_bytes_s = given.rate_bytes_s
    hub.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
