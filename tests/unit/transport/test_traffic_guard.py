from __future__ import annotations

import pytest

from dspark_ops.transport.base import Command
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only

BOUNDED = ("timeout", "-k", "2", "60", "ib_write_bw", "-d", "rocep1s0f0", "-x", "3", "-F", "-p", "18515")


@pytest.mark.parametrize("end", [("-D", "3"), ("-n", "300", "-t", "8", "-u", "20"), ("-D", "3", "10.77.0.2")])
def test_bounded_traffic_may_run(end: tuple[str, ...]) -> None:
    assert_read_only([Command("x", (*BOUNDED, *end)), Command("v", ("ib_write_lat", "--version"))])


@pytest.mark.parametrize(
    "argv",
    [
        BOUNDED,
        (*BOUNDED, "-D", "0"),
        (*BOUNDED, "-D", "9999"),
        (*BOUNDED, "-D", "3", "--run_infinitely"),
        (*BOUNDED, "-D", "3", "--out_json_file=/etc/passwd"),
        (*BOUNDED, "-D", "3", "host.example"),
        (*BOUNDED, "-D", "3", "10.77.0.2", "-F"),
        (*BOUNDED, "-n"),
        ("ib_write_bw", "-d", "rocep1s0f0", "-D", "3"),
        ("timeout", "-k", "2", "60", "rm", "-rf", "/"),
        ("timeout", "60", "ib_write_bw", "-D", "3"),
        ("timeout", "-k", "2", "99999", "ib_write_bw", "-D", "3"),
        ("timeout", "-k", "2", "0.5", "ib_write_bw", "-D", "3"),
    ],
)
def test_traffic_without_an_end_or_with_a_strange_option_is_never_sent(argv: tuple[str, ...]) -> None:
    with pytest.raises(ReadOnlyViolationError, match="x"):
        assert_read_only([Command("x", argv)])
