from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.transport.base import Command
from dspark_ops.transport.ssh import SshRunner, SshTarget, resolve_target


def test_a_target_follows_the_ssh_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host spark\n  HostName 10.0.0.5\n  Port 2222\n  User nv\n  IdentityFile ~/k\n  UserKnownHostsFile ~/kh\n"
        "Host far\n  HostName 10.0.0.6\n  ProxyJump gate\n"
    )
    target = resolve_target("spark", config, 3)
    assert (target.hostname, target.port, target.user) == ("10.0.0.5", 2222, "nv")
    assert target.identity_files == (str(Path.home() / "k"),)
    assert str(Path.home() / "kh") in target.known_hosts
    assert target.proxy_command is None
    assert resolve_target("far", config, 3).proxy_command == f"ssh -F {config} -W 10.0.0.6:22 gate"


def test_an_absent_or_broken_configuration_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NoVerdictError, match="cannot be read"):
        resolve_target("spark", tmp_path / "absent", 3)


def _runner(port: int) -> SshRunner:
    return SshRunner("head", SshTarget("spark-head", "127.0.0.1", port, "nobody", (), (), None, 1.0))


def test_a_closed_port_is_a_reading_that_says_so() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        reading = _runner(held.getsockname()[1]).read([Command("u", ("uname",))])
    assert not reading.reachable
    assert "spark-head" in (reading.error or "")
    assert "refused" in (reading.error or "").lower()
    assert reading.hint


def test_a_server_that_never_speaks_ends_at_the_time_limit() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        reading = _runner(silent.getsockname()[1]).read([Command("u", ("uname",))])
    assert not reading.reachable
    assert reading.elapsed_s < 10


def test_a_name_that_cannot_be_resolved_is_said() -> None:
    target = SshTarget("nowhere", "nowhere.invalid", 22, None, (), (), None, 2.0)
    reading = SshRunner("head", target).read([Command("u", ("uname",))])
    assert not reading.reachable
    assert "resolved" in (reading.error or "")


def test_a_proxy_program_that_is_not_here_is_said() -> None:
    target = SshTarget("far", "127.0.0.1", 1, None, (), (), "no-such-proxy-program 127.0.0.1 1", 1.0)
    reading = SshRunner("head", target).read([Command("u", ("uname",))])
    assert not reading.reachable
    assert "no-such-proxy-program" in (reading.error or "")


@pytest.mark.parametrize("line", [b"spark ssh-rsa A\n", b"\xff\xfe ssh-rsa AAAA\n"])
def test_a_damaged_known_hosts_file_is_said(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "known").write_bytes(line)
    target = SshTarget("spark", "127.0.0.1", 1, None, (), (str(tmp_path / "known"),), None, 1.0)
    reading = SshRunner("head", target).read([Command("u", ("uname",))])
    assert not reading.reachable
    assert "known-hosts file" in (reading.error or "")


if TYPE_CHECKING:

    class _Buffered(paramiko.BufferedFile[bytes]):
        def _set_mode(self, mode: str, bufsize: int) -> None: ...

else:
    _Buffered = paramiko.BufferedFile


class _Channel:
    """A channel that prints a few bytes, and is then lost or ends."""

    def __init__(self, printed: bytes, lost: bool) -> None:
        self.printed, self.lost = printed, lost

    def __enter__(self) -> _Channel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_combine_stderr(self, _: bool) -> None:
        pass

    def exec_command(self, _: str) -> None:
        if self.lost:
            raise paramiko.SSHException("SSH session not active")

    def makefile(self, mode: str, size: int) -> _Printed:
        return _Printed(self.printed, mode, size)


class _Printed(_Buffered):
    def __init__(self, printed: bytes, mode: str, size: int) -> None:
        super().__init__()
        self.left = io.BytesIO(printed)
        self._set_mode(mode, size)

    def _read(self, size: int) -> bytes:
        return self.left.read(size)


def test_a_log_that_is_no_text_is_told_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SshRunner, "_open_channel", lambda _: _Channel(b"one\ntw\xffo\nthree\n", lost=False))
    assert list(_runner(1).stream(Command("l", ("docker", "logs", "x")))) == ["one", "tw\ufffdo", "three"]


def test_a_session_that_is_lost_in_the_middle_of_a_log_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SshRunner, "_open_channel", lambda _: _Channel(b"", lost=True))
    with pytest.raises(NoVerdictError, match="session was lost"):
        list(_runner(1).stream(Command("l", ("docker", "logs", "x"))))
