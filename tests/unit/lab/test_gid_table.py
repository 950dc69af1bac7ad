"""The look-alike's GID table follows the kernel's rules, holes included."""

from __future__ import annotations

import gid_table
import pytest
from gid_table import Gid

MAC = "02:00:00:00:00:02"
LINK_LOCAL = "fe80:0000:0000:0000:0000:00ff:fe00:0002"
SIZE = 16


def v4(last: int) -> str:
    return f"0000:0000:0000:0000:0000:ffff:c0a8:64{last:02x}"


def filled(table: tuple[Gid | None, ...]) -> dict[int, tuple[str, str]]:
    return {i: (entry.value, entry.type) for i, entry in enumerate(table) if entry is not None}


def test_a_port_without_address_has_the_two_default_entries_of_its_mac() -> None:
    table = gid_table.update((), MAC, [], size=SIZE)
    assert filled(table) == {0: (LINK_LOCAL, "IB/RoCE v1"), 1: (LINK_LOCAL, "RoCE v2")}


def test_an_ipv4_address_takes_2_and_3_and_the_link_local_one_is_not_entered_twice() -> None:
    table = gid_table.update((), MAC, ["192.168.100.10", "fe80::ff:fe00:2"], size=SIZE)
    assert filled(table) == {
        0: (LINK_LOCAL, "IB/RoCE v1"),
        1: (LINK_LOCAL, "RoCE v2"),
        2: (v4(10), "IB/RoCE v1"),
        3: (v4(10), "RoCE v2"),
    }


def test_an_address_that_goes_leaves_a_hole_and_the_next_one_takes_it() -> None:
    both = gid_table.update((), MAC, ["192.168.100.10", "192.168.100.11"], size=SIZE)
    one = gid_table.update(both, MAC, ["192.168.100.11"], size=SIZE)
    assert sorted(filled(one)) == [0, 1, 4, 5]
    again = gid_table.update(one, MAC, ["192.168.100.11", "192.168.100.12"], size=SIZE)
    assert filled(again)[3] == (v4(12), "RoCE v2")
    assert filled(again)[5] == (v4(11), "RoCE v2")


def test_a_stable_privacy_link_local_address_pushes_ipv4_to_5() -> None:
    table = gid_table.update((), MAC, ["fe80::1234:5678:9abc:def0"], size=SIZE)
    table = gid_table.update(table, MAC, ["fe80::1234:5678:9abc:def0", "192.168.100.10"], size=SIZE)
    assert filled(table)[5] == (v4(10), "RoCE v2")


@pytest.mark.parametrize("addresses", [[], ["192.168.100.10"], ["192.168.100.10", "2001:db8::1"]])
def test_the_same_addresses_change_nothing(addresses: list[str]) -> None:
    once = gid_table.update((), MAC, addresses, size=SIZE)
    assert gid_table.update(once, MAC, addresses, size=SIZE) == once


def test_a_full_table_drops_what_does_not_fit() -> None:
    table = gid_table.update((), MAC, [f"10.0.0.{n}" for n in range(1, 20)], size=6)
    assert len(table) == 6
    assert all(entry is not None for entry in table)
