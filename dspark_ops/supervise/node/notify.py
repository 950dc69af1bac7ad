"""Tells systemd that the daemon is ready, what it does, and that its loop made progress."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """sd_notify without a library. Does nothing where the daemon was not started by systemd."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        micros = environ.get("WATCHDOG_USEC", "")
        #: Seconds after which systemd kills the daemon if `progress` was not said; None without a watchdog.
        self.watchdog_s = int(micros) / 1e6 if micros.isascii() and micros.isdecimal() and int(micros) else None
        self._said = ""

    def ready(self, status: str) -> None:
        """The daemon watches now."""
        self._send(f"READY=1\nSTATUS={_line(status)}")
        self._said = status

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent only when it changed."""
        if status != self._said:
            self._send(f"STATUS={_line(status)}")
            self._said = status

    def progress(self) -> None:
        """The loop did a round of its real work."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A lost message is made good by the next one, and by the watchdog if there is none.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(1.0)
            out.sendto(text.encode(), self._address)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
