"""A forward through a real SSH session (paramiko's own server): what it carries, what it refuses, what it leaves."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.transport.forward import forward
from dspark_ops.transport.ssh import SshRunner, SshTarget

HOST_KEY = paramiko.RSAKey.generate(2048)


@dataclass
class Node(paramiko.ServerInterface):
    """An sshd that lets one key in and connects where it is asked to, as OpenSSH does."""

    user_key: paramiko.PKey
    allows: bool = True
    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    transports: list[paramiko.Transport] = field(default_factory=list)
    _waiting: dict[int, socket.socket] = field(default_factory=dict)

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        return paramiko.AUTH_SUCCESSFUL if key == self.user_key else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_UNKNOWN_CHANNEL_TYPE

    def check_channel_direct_tcpip_request(
        self,
        chanid: int,
        origin: tuple[str, int],  # noqa: ARG002
        destination: tuple[str, int],
    ) -> int:
        self.asked.append(destination)
        if not self.allows:
            return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            self._waiting[chanid] = socket.create_connection(destination, timeout=5)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        return paramiko.OPEN_SUCCEEDED

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(HOST_KEY)
            transport.start_server(server=self)
            self.transports.append(transport)
            threading.Thread(target=self._channels, args=(transport,), daemon=True).start()

    def _channels(self, transport: paramiko.Transport) -> None:
        while transport.is_active():
            channel = transport.accept(0.2)
            if channel is not None and channel.get_id() in self._waiting:
                service = self._waiting.pop(channel.get_id())
                service.settimeout(None)
                threading.Thread(target=_carry, args=(channel, service), daemon=True).start()
                threading.Thread(target=_carry, args=(service, channel), daemon=True).start()


def _carry(source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        sink.shutdown_write() if isinstance(sink, paramiko.Channel) else sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    server = Node(paramiko.RSAKey.generate(2048))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    for transport in server.transports:
        transport.close()


@pytest.fixture
def runner(node: Node, tmp_path: Path) -> Iterator[SshRunner]:
    key, known = tmp_path / "key", tmp_path / "known_hosts"
    assert isinstance(node.user_key, paramiko.RSAKey)
    node.user_key.write_private_key_file(str(key))
    known.write_text(f"[127.0.0.1]:{node.port} {HOST_KEY.get_name()} {HOST_KEY.get_base64()}\n")
    target = SshTarget("spark-head", "127.0.0.1", node.port, "nvidia", (str(key),), (str(known),), None, 5.0)
    one = SshRunner("head", target)
    yield one
    one.close()


@pytest.fixture
def api() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body[::-1])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port: int, body: bytes) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1", data=body, timeout=10) as answer:
        text: bytes = answer.read()
    return text


def test_requests_are_carried_there_and_answers_back(runner: SshRunner, node: Node, api: int) -> None:
    with forward(runner, "127.0.0.1", api) as local:
        assert ask(local.port, b"abc") == b"cba"
        assert ask(local.port, b"x" * 300_000) == b"x" * 300_000
        assert (local.connections, local.failures) == (2, [])
    assert set(node.asked) == {("127.0.0.1", api)}
    assert len(node.transports) == 1


def test_an_end_of_one_direction_is_passed_on_and_the_other_goes_on(runner: SshRunner) -> None:
    def answer_after_the_end(listener: socket.socket) -> None:
        listener.accept()[0].close()  # the connection that only sees whether somebody listens
        client, _ = listener.accept()
        with client:
            told = b"".join(iter(lambda: client.recv(4096), b""))
            client.sendall(told.upper())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_after_the_end, args=(listener,), daemon=True).start()
        with (
            forward(runner, "127.0.0.1", listener.getsockname()[1]) as local,
            socket.create_connection(("127.0.0.1", local.port), timeout=10) as asking,
        ):
            asking.sendall(b"abc")
            asking.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: asking.recv(4096), b"")) == b"ABC"


def test_many_at_the_same_time_do_not_mix(runner: SshRunner, api: int) -> None:
    answers: dict[int, bytes] = {}
    with forward(runner, "127.0.0.1", api) as local:
        threads = [
            threading.Thread(target=lambda n=n: answers.update({n: ask(local.port, f"{n:06d}".encode() * 5000)}))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert answers == {n: (f"{n:06d}" * 5000)[::-1].encode() for n in range(8)}


def test_only_this_machine_reaches_it_and_only_while_it_is_open(runner: SshRunner, api: int) -> None:
    with forward(runner, "127.0.0.1", api) as local:
        port = local.port
        with socket.create_connection(("127.0.0.1", port)) as held:
            held.sendall(b"GET")
            time.sleep(0.2)
            with Path("/proc/net/tcp").open(encoding="ascii") as table:
                listening = [row.split()[1] for row in table if row.split()[3] == "0A"]
            assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_an_open_connection_is_cut_at_the_end(runner: SshRunner, api: int) -> None:
    with forward(runner, "127.0.0.1", api) as local:
        held = socket.create_connection(("127.0.0.1", local.port))
        deadline = time.monotonic() + 30
        while local.connections == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
    with held:
        held.settimeout(30)
        assert held.recv(1) == b""


def test_nothing_that_listens_there_is_said_at_once(runner: SshRunner) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        told = f"spark-head: no connection to 127.0.0.1 port {port}"
        with pytest.raises(NoVerdictError, match=told), forward(runner, "127.0.0.1", port):
            pytest.fail("it was opened")


def test_an_sshd_that_does_not_forward_is_said_with_the_remedy(runner: SshRunner, node: Node, api: int) -> None:
    node.allows = False
    with pytest.raises(NoVerdictError, match="does not forward") as refused, forward(runner, "127.0.0.1", api):
        pytest.fail("it was opened")
    assert "AllowTcpForwarding" in (refused.value.hint or "")


def test_a_service_that_goes_away_meanwhile_is_remembered(runner: SshRunner, node: Node, api: int) -> None:
    with forward(runner, "127.0.0.1", api) as local:
        node.allows = False
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            ask(local.port, b"x")
        deadline = time.monotonic() + 30
        while not local.failures and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "does not forward" in local.failures[0]
        node.allows = True
        assert ask(local.port, b"ab") == b"ba"


def test_a_session_that_was_lost_is_opened_again(runner: SshRunner, node: Node, api: int) -> None:
    with forward(runner, "127.0.0.1", api) as local:
        node.transports[0].close()
        time.sleep(0.3)
        assert ask(local.port, b"ab") == b"ba"
    assert len(node.transports) == 2


def test_a_node_that_is_not_reached_is_no_verdict(tmp_path: Path) -> None:
    target = SshTarget("spark-head", "127.0.0.1", 1, "nvidia", (), (), None, 2.0)
    with pytest.raises(NoVerdictError, match="spark-head"), forward(SshRunner("head", target), "127.0.0.1", 8000):
        pytest.fail("it was opened")
