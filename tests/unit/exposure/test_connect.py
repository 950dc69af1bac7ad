"""The probe that knocks: what it says of a port, and what the guard never sends."""

from __future__ import annotations

import socket

import pytest

from dspark_ops.transport import collector
from dspark_ops.transport.base import Command, Connect
from dspark_ops.transport.readonly import CONNECT_LIMIT, ReadOnlyViolationError, assert_read_only


def test_open_and_refused_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as closing:
        port, gone = listener.getsockname()[1], closing.getsockname()[1]
        closing.close()
        answer = collector.run(Connect("x", (("127.0.0.1", port), ("127.0.0.1", gone)), 2.0).wire(), sudo=False)
    assert answer["files"] == {f"127.0.0.1 {port}": "open", f"127.0.0.1 {gone}": "refused"}


def test_an_address_without_a_way_is_told_in_the_kernels_words() -> None:
    answer = collector.run(Connect("x", (("::ffff:256", 1),), 1.0).wire(), sudo=False)
    assert next(iter(answer["files"].values())) not in ("open", "refused")


@pytest.mark.parametrize(
    "targets", [(("example.com", 80),), (("10.0.0.0/8", 80),), (("10.0.0.1", 0),), (("10.0.0.1", 65536),)]
)
def test_only_numeric_addresses_and_ports_are_tried(targets: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ReadOnlyViolationError):
        assert_read_only([Connect("x", targets)])


def test_a_sweep_is_refused() -> None:
    assert_read_only([Connect("x", tuple(("10.0.0.1", port) for port in range(1, CONNECT_LIMIT + 1)))])
    with pytest.raises(ReadOnlyViolationError, match="more than"):
        assert_read_only([Connect("x", tuple(("10.0.0.1", port) for port in range(1, CONNECT_LIMIT + 2)))])


@pytest.mark.parametrize(
    "argv",
    [
        ("nft", "flush", "ruleset"),
        ("nft", "-s", "list", "ruleset"),
        ("nft", "-f", "x"),
        ("printenv",),
        ("printenv", "SECRET"),
    ],
)
def test_nft_only_lists_our_table_and_the_environment_stays_private(argv: tuple[str, ...]) -> None:
    with pytest.raises(ReadOnlyViolationError):
        assert_read_only([Command("x", argv)])
    assert_read_only([Command("x", ("nft", "-s", "list", "table", "inet", "dspark_exposure"))])
