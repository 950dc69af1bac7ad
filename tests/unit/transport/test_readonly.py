from __future__ import annotations

import pytest

from dspark_ops.facts.snapshot import PROBES
from dspark_ops.transport.base import Command, Http
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only


def test_every_fact_probe_passes_the_guard() -> None:
    assert_read_only(PROBES)


@pytest.mark.parametrize(
    "argv",
    [
        ("rm", "-rf", "/"),
        ("sh", "-c", "true"),
        ("docker", "rm", "x"),
        ("docker", "image", "rm", "x"),
        ("docker", "run", "x"),
        ("ip", "link", "set", "dev", "x", "mtu", "1500"),
        ("ip", "addr", "add", "10.0.0.1/24", "dev", "x"),
        ("ethtool", "-s", "x", "speed", "1"),
        ("nvidia-smi", "-r"),
        ("systemctl", "restart", "docker"),
        ("ping", "-f", "10.0.0.1"),
        ("journalctl", "--vacuum-size=1M"),
        ("journalctl", "--cursor-file=/tmp/x"),
        ("nvidia-smi", "--power-limit=60"),
        ("nvidia-smi", "--filename=/tmp/x"),
        ("ethtool", "--set-fec", "x", "encoding", "off"),
        ("nmcli", "-t", "connection", "delete", "x"),
    ],
)
def test_what_could_write_is_never_sent(argv: tuple[str, ...]) -> None:
    with pytest.raises(ReadOnlyViolationError, match="x"):
        assert_read_only([Command("x", argv)])


def test_only_addresses_are_asked_over_http() -> None:
    assert_read_only([Http("ok", "http://10.77.0.1:8000/health"), Http("lo", "http://127.0.0.1:8000/health")])
    with pytest.raises(ReadOnlyViolationError, match="numeric"):
        assert_read_only([Http("h", "http://example.org:80/")])
