"""The daemon's control socket: one request as a line of JSON, one answer as a line of JSON. For root on this node."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dspark_ops.supervise.node.strict import DocumentError, Fields, parse_object

VERBS = ("status", "explain", "hold", "resume", "adopt")
_LARGEST = 64 << 10
_CLIENT_S = 5.0
_ANSWER_S = 30.0
Handler = Callable[[str, dict[str, Any]], Any]


class ControlError(Exception):
    """A request was refused, or the daemon could not be asked."""


def read_request(text: str) -> tuple[str, dict[str, Any]]:
    """The verb and its fields, checked.

    hold: reason, owner, for_s (seconds, at most a week), drain. resume: owner, null for everything that it waits with.

    Raises:
        DocumentError: it is not a request.
    """
    fields = Fields(parse_object(text, "the request"), "the request")
    verb = fields.text("verb", one_of=VERBS)
    given: dict[str, Any] = {}
    if verb == "hold":
        given = {
            "reason": fields.text("reason"),
            "owner": fields.text("owner"),
            "for_s": fields.number("for_s", low=1.0, high=7 * 86400.0),
            "drain": fields.flag("drain", False),
        }
    if verb == "resume":
        given = {"owner": fields.text_or_none("owner")}
    fields.done()
    return verb, given


class ControlServer:
    """Listens at a socket of mode 0600 and hands each request to the handler, one after the other."""

    def __init__(self, path: Path, handler: Handler) -> None:
        """Raises: OSError, the socket cannot be made."""
        self._path = path
        self._handler = handler
        self._closed = False
        with suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._socket.close()
        with suppress(OSError):
            self._path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.2)  # no file handle is left, or the client went away: the next one is served
                continue
            with client, suppress(OSError):
                client.settimeout(_CLIENT_S)
                said = self._answer(_line_of(client))
                client.sendall((json.dumps(said) + "\n").encode())

    def _answer(self, line: str) -> dict[str, Any]:
        try:
            verb, fields = read_request(line)
            return {"ok": True, "result": self._handler(verb, fields)}
        except (DocumentError, ControlError) as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            return {"ok": False, "error": f"unexpected: {error!r}"}


def request(path: Path, verb: str, **fields: Any) -> Any:
    """Ask the daemon of this node and give its result.

    Raises:
        ControlError: it does not run, does not answer, or says no.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
            client.settimeout(_ANSWER_S)
            client.connect(str(path))
            client.sendall((json.dumps({"verb": verb, **fields}) + "\n").encode())
            line = _line_of(client, 16 << 20)
    except OSError as error:
        raise ControlError(f"the supervisor cannot be asked at {path}: {error.strerror or error}") from None
    try:
        said = parse_object(line, "the supervisor's answer")
    except DocumentError as error:
        raise ControlError(str(error)) from None
    if said.get("ok") is not True:
        raise ControlError(str(said.get("error")))
    return said.get("result")


def _line_of(client: socket.socket, largest: int = _LARGEST) -> str:
    """Read to the end of the line, or of the stream."""
    raw = bytearray()
    while not raw.endswith(b"\n") and len(raw) <= largest:
        chunk = client.recv(65536)
        if not chunk:
            break
        raw += chunk
    return raw.decode("utf-8", "replace")
