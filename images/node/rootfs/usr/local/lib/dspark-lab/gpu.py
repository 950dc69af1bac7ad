"""Who uses the GPU: the processes that hold /dev/nvidia0 open, told to anyone who asks on a socket.

The real nvidia-smi shows every user all processes; another user's descriptors can be read by root alone, so the daemon
answers for the tool.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from pathlib import Path

import memory
from board import RUN

SOCKET = RUN / "gpu.sock"
DEVICE = "nvidia0"


def holders() -> list[dict[str, object]]:
    """Processes with the device open, by pid: name as in their arguments, MiB by claim or else resident size."""
    claims = memory.claims_mib()
    found: list[dict[str, object]] = []
    for process in sorted((p for p in Path("/proc").iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        try:
            if not any(fd.readlink().name == DEVICE for fd in (process / "fd").iterdir()):
                continue
            name = (process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            resident = re.search(r"^VmRSS:\s+(\d+)", (process / "status").read_text(encoding="utf-8"), re.MULTILINE)
        except OSError:
            continue
        pid = int(process.name)
        mib = claims.get(pid) or max(1, int(resident[1]) // 1024 if resident else 1)
        found.append({"pid": pid, "name": name, "used_mib": mib})
    return found


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(json.dumps(holders()).encode())


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve() -> None:
    """Answer on the socket from a thread of its own, as long as the process lives."""
    SOCKET.unlink(missing_ok=True)
    server = _Server(str(SOCKET), _Answer)
    SOCKET.chmod(0o666)
    threading.Thread(target=server.serve_forever, daemon=True).start()
