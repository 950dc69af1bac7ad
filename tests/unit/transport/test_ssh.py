from __future__ import annotations

import socket
from pathlib import Path

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
