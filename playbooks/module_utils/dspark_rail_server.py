"""The head's end of a transfer: a server of one directory on one address of one device, a transient unit of systemd."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

_START_S = 10.0
_CONFINED = (
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=CAP_NET_RAW",
    "RestrictAddressFamilies=AF_INET AF_UNIX",
)


class ServerError(Exception):
    """The server did not start; the message says why and names no check."""


class RailServer:
    """One server under one unit name. protect_home: as systemd counts, `yes` hides /home and `read-only` shows it."""

    def __init__(self, unit: str, *, protect_home: str = "yes") -> None:
        self.unit, self._home = f"{unit}.service", protect_home
        self.access = Path("/run") / unit / "access.json"

    def start(self, program: str, folder: Path, address: str, device: str, timeout_s: int) -> tuple[int, str]:
        """Start it, after an end of one that an earlier run left behind; its port and its token.

        Raises:
            ServerError: it did not start.
        """
        self.stop()
        properties = (
            f"RuntimeMaxSec={timeout_s}",
            f"RuntimeDirectory={self.access.parent.name}",
            "RuntimeDirectoryMode=0700",
            f"ReadOnlyPaths={folder}",
            f"ProtectHome={self._home}",
            *_CONFINED,
        )
        words = [word for each in properties for word in ("--property", each)]
        command = [sys.executable, "-I", program, "--folder", str(folder), "--access", str(self.access)]
        where = ["--address", address, "--device", device]
        began = subprocess.run(
            ["systemd-run", "--quiet", "--collect", f"--unit={self.unit}", *words, *command, *where],
            capture_output=True,
            text=True,
            check=False,
        )
        until = time.monotonic() + _START_S
        while began.returncode == 0 and time.monotonic() < until:
            if self.access.exists():
                access = json.loads(self.access.read_text(encoding="utf-8"))
                return int(access["port"]), str(access["token"])
            time.sleep(0.05)
        said = began.stderr.strip() or self._journal()
        self.stop()
        raise ServerError(f"the server on {address} ({device}) did not start: {said}")

    def stop(self) -> None:
        """End it, if it runs."""
        subprocess.run(["systemctl", "stop", self.unit], capture_output=True, check=False)
        subprocess.run(["systemctl", "reset-failed", self.unit], capture_output=True, check=False)

    def _journal(self) -> str:
        words = ["journalctl", "--no-pager", "-o", "cat", "-n", "1", "-u", self.unit]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "it said nothing"
