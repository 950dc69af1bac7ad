"""A port of the node on the control host's loopback, through the SSH session that is there already (`ssh -L`)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paramiko

from dspark_ops.errors import NoVerdictError
from dspark_ops.transport.ssh import SshFailureError, SshRunner

_CHUNK = 65536
_POLL_S = 0.2
_JOIN_S = 5.0


@dataclass
class Forward:
    """port: on 127.0.0.1 of this machine. connections: how many were carried. failures: why others were not."""

    port: int
    connections: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def forward(runner: SshRunner, host: str, port: int) -> Iterator[Forward]:
    """Carry every connection to a free loopback port here to `host:port` as the node reaches it, until the end.

    One connection is opened and closed first, so that a refusal is said at once and not to the one who uses it.

    Raises:
        NoVerdictError: the node cannot be reached, refuses to forward, or nothing listens there.
    """
    _open(runner, host, port).close()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(_POLL_S)
        carrier = _Carrier(runner, host, port, Forward(listener.getsockname()[1]))
        accepting = threading.Thread(target=carrier.accept, args=(listener,), name="forward", daemon=True)
        accepting.start()
        try:
            yield carrier.carried
        finally:
            carrier.end()
            accepting.join(_JOIN_S)


@dataclass
class _Carrier:
    """The connections of one forward; each has one thread for each direction, so that neither waits for the other."""

    runner: SshRunner
    host: str
    port: int
    carried: Forward
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open_pairs: dict[int, tuple[socket.socket, paramiko.Channel]] = field(default_factory=dict)

    def accept(self, listener: socket.socket) -> None:
        while not self._over.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="forward", daemon=True).start()

    def end(self) -> None:
        """Cut what is still open: whoever used the forward has ended."""
        self._over.set()
        with self._lock:
            pairs = list(self._open_pairs.values())
        for client, channel in pairs:
            _cut(client, channel)

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(None)
            try:
                channel = _open(self.runner, self.host, self.port)
            except NoVerdictError as failure:
                with self._lock:
                    self.carried.failures.append(failure.message)
                return
            with channel:
                with self._lock:
                    self.carried.connections += 1
                    self._open_pairs[id(channel)] = (client, channel)
                if self._over.is_set():
                    _cut(client, channel)
                up = threading.Thread(target=_upward, args=(client, channel), name="forward-up", daemon=True)
                up.start()
                _downward(channel, client)
                up.join()
                with self._lock:
                    del self._open_pairs[id(channel)]


def _open(runner: SshRunner, host: str, port: int) -> paramiko.Channel:
    try:
        return runner.open_tunnel(host, port)
    except SshFailureError as failure:
        raise NoVerdictError(failure.message, hint=failure.hint) from None


def _upward(client: socket.socket, channel: paramiko.Channel) -> None:
    """From here to the node until the client has said all; the node is told that it has."""
    with contextlib.suppress(OSError, EOFError):
        while data := client.recv(_CHUNK):
            channel.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        channel.shutdown_write()


def _downward(channel: paramiko.Channel, client: socket.socket) -> None:
    """From the node to here until the service has said all. A client that is gone ends the connection."""
    try:
        while data := channel.recv(_CHUNK):
            client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):
        _cut(client, channel)


def _cut(client: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError, EOFError):
        channel.close()
