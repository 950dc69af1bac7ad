"""Serves the files in one directory over HTTP, on one address through one device, to whoever has the token.

Started as a transient unit of systemd and stopped at the end of the play; ends by itself when nobody has asked for a
while. Read only: GET of names that are digests, with a byte range. Writes its port and a fresh token to a file that
only root can read; nothing of it is in an argument list.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import re
import secrets
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_NAME = re.compile(r"/(config|[0-9a-f]{40}|[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d{1,18})-")
_PIECE = 8 << 20
_SLOW_CLIENT_S = 30


class RailServer(ThreadingHTTPServer):
    """One directory, one token. asked_at: when the last bytes went out (monotonic)."""

    daemon_threads = True

    def __init__(self, folder: Path, address: str, device: str | None) -> None:
        self.folder, self.token, self.asked_at = folder, secrets.token_hex(32), time.monotonic()
        self._device = device
        super().__init__((address, 0), _Handler)

    def server_bind(self) -> None:
        if self._device is not None:
            # An address is answered on every device of a Linux host; this one only on its rail.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._device.encode())
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of ours: it comes again, or not."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SLOW_CLIENT_S
    server: RailServer

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            self._refuse(401)
            return
        name = _NAME.fullmatch(self.path)
        wanted = _RANGE.fullmatch(self.headers.get("Range", "bytes=0-"))
        if name is None or wanted is None:
            self._refuse(404 if name is None else 416)
            return
        try:
            descriptor = os.open(self.server.folder / name[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self._refuse(404)
            return
        try:
            self._send(descriptor, int(wanted[1]))
        finally:
            os.close(descriptor)

    def _send(self, descriptor: int, offset: int) -> None:
        size = os.fstat(descriptor).st_size
        if offset >= size:
            self._refuse(416)
            return
        self.send_response(206)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Range", f"bytes {offset}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - offset))
        self.end_headers()
        with os.fdopen(os.dup(descriptor), "rb") as source:
            while offset < size:
                sent = self.connection.sendfile(source, offset, min(_PIECE, size - offset))
                offset += sent
                self.server.asked_at = time.monotonic()
                if not sent:
                    self.close_connection = True
                    return

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """One line a request is no use to anybody; the play reports what was moved."""


def _write_access(path: Path, port: int, token: str) -> None:
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        json.dump({"port": port, "token": token}, out)
    fresh.replace(path)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Serve the files of one directory on one address.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--device")
    parser.add_argument("--access", type=Path, required=True)
    parser.add_argument("--idle-s", type=float, default=120)
    given = parser.parse_args(arguments)
    server = RailServer(given.folder, given.address, given.device)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _write_access(given.access, server.server_address[1], server.token)
    while time.monotonic() - server.asked_at < given.idle_s:
        time.sleep(min(1.0, given.idle_s / 4))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
