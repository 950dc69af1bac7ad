"""Nodes that are only an SSH server on a loopback port: each answers the reader's program with a recorded reading.

In a test as `SimulatedNodes`; as a program it prints one line of JSON with the ports, and at the end of its standard
input another with what it counted. The handshake, the log-in, the channel and the answer's bytes are real; the time
that a node takes to read itself is slept.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import AUTH_SUCCESSFUL, OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_SUCCEEDED

_PAYLOAD = re.compile(rb"\nmain\('([A-Za-z0-9+/=]*)'\)\n\Z")
_MARK = "\x1edspark-ops "


@dataclass
class Counts:
    """What one node saw. sessions: log-ins; programs: commands started in them; asked: probe ids of each."""

    sessions: int = 0
    programs: int = 0
    asked: list[list[str]] = field(default_factory=list)


class _Node(paramiko.ServerInterface):
    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.command = b""
        self.started = threading.Event()

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        self.counts.sessions += 1
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002
        self.command = command
        self.counts.programs += 1
        threading.Thread(target=self.started.set, daemon=True).start()
        return True


class SimulatedNodes:
    """So many nodes, listening until `close`. delay_s: what a node takes to read itself."""

    def __init__(self, count: int, readings: list[dict[str, Any]], delay_s: float = 0.0) -> None:
        self.readings, self.delay_s = readings, delay_s
        self.host_key = paramiko.ECDSAKey.generate()
        self.counts = [Counts() for _ in range(count)]
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        for number in range(count):
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    @property
    def ports(self) -> list[int]:
        return [listening.getsockname()[1] for listening in self._sockets]

    def write_access(self, folder: Path) -> Path:
        """A key, the host keys and an SSH configuration for node-0, node-1, … in a folder; the configuration."""
        return write_access(folder, self.ports, self.host_key.get_name(), self.host_key.get_base64())

    def close(self) -> None:
        for listening in self._sockets:
            listening.close()

    def _listen(self, number: int) -> None:
        while True:
            try:
                connection, _ = self._sockets[number].accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(number, connection), daemon=True).start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(self.host_key)
        node = _Node(self.counts[number])
        with suppress(paramiko.SSHException, OSError, EOFError):
            transport.start_server(server=node)
            while (channel := transport.accept(20)) is not None:
                node.started.wait(20)
                node.started.clear()
                self._answer(number, channel)

    def _answer(self, number: int, channel: paramiko.Channel) -> None:
        began = time.time()
        with channel.makefile("rb") as sent:
            program = sent.read()
        asked = _PAYLOAD.search(program)
        probes = json.loads(base64.b64decode(asked[1])) if asked else []
        self.counts[number].asked.append([probe["id"] for probe in probes])
        reading = self.readings[number % len(self.readings)]
        document = {
            **{name: reading[name] for name in ("user", "sudo", "hostname")},
            "results": [
                reading["results"].get(p["id"]) or {"id": p["id"], "error": "not recorded", "elapsed_s": 0.0}
                for p in probes
            ],
        }
        time.sleep(max(0.0, self.delay_s - (time.time() - began)))
        text = _MARK + json.dumps({**document, "began_s": began, "clock_s": time.time()}) + "\n"
        channel.sendall(text.encode())
        channel.send_exit_status(0)
        channel.close()


def write_access(folder: Path, ports: list[int], kind: str, public: str) -> Path:
    """As `SimulatedNodes.write_access`, for nodes in another process."""
    paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "key"))
    known = "".join(f"[127.0.0.1]:{port} {kind} {public}\n" for port in ports)
    (folder / "known_hosts").write_text(known, encoding="ascii")
    lines = ["Host node-*", "  User nvidia", f"  IdentityFile {folder / 'key'}"]
    lines.append(f"  UserKnownHostsFile {folder / 'known_hosts'}")
    for number, port in enumerate(ports):
        lines += [f"Host node-{number}", "  HostName 127.0.0.1", f"  Port {port}"]
    (folder / "config").write_text("\n".join(lines) + "\n", encoding="ascii")
    return folder / "config"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readings", nargs="+", type=Path, help="recorded readings; the nodes take them in turn")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a node takes to read itself")
    given = parser.parse_args()
    readings = [json.loads(path.read_text(encoding="utf-8")) for path in given.readings]
    nodes = SimulatedNodes(given.count, readings, given.delay)
    key = nodes.host_key
    said = {"ports": nodes.ports, "kind": key.get_name(), "public": key.get_base64()}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    sys.stdout.write(json.dumps([{"sessions": c.sessions, "programs": c.programs} for c in nodes.counts]) + "\n")
    nodes.close()


if __name__ == "__main__":
    main()
