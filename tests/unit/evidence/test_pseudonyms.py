"""Pseudonyms: one-to-one, of the same shape, and the same relation between what belongs together."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.evidence.pseudonyms import ADDRESSES, Pseudonyms, hardware_in

KEY = b"k" * 32
NAMES = Pseudonyms(KEY)
PUBLIC4 = st.integers(1 << 24, (224 << 24) - 1).map(IPv4Address).filter(lambda a: a.is_global)
PUBLIC6 = st.integers(0x2A00 << 112, (0x2A0F << 112) - 1).map(IPv6Address)
LOW = st.integers(0, (1 << 24) - 1)


def mac_of(number: int) -> str:
    digits = format(number, "012x")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def link_local(mac: str) -> str:
    digits = mac.replace(":", "")
    number = int(digits[:6], 16) ^ 0x020000
    return str(IPv6Address((0xFE80 << 112) | (number << 40) | (0xFFFE << 24) | int(digits[6:], 16)))


@given(LOW, LOW)
def test_hardware_addresses_stay_different_and_keep_their_maker(one: int, other: int) -> None:
    a, b = mac_of(0x4CBB47 << 24 | one), mac_of(0x4CBB47 << 24 | other)
    mapped = NAMES.mac(a), NAMES.mac(b)
    assert (mapped[0] == mapped[1]) is (a == b)
    assert mapped[0].startswith("4c:bb:47:")


@given(LOW)
def test_what_is_derived_from_a_hardware_address_follows_it(low: int) -> None:
    mac = mac_of(0x4CBB47 << 24 | low)
    digits = mac.replace(":", "")
    mapped = NAMES.mac(mac)
    assert NAMES.ipv6(link_local(mac)) in (link_local(mapped), None if mapped == mac else link_local(mapped))
    guid = f"{digits[:4]}:{digits[4:6]}03:00{digits[6:8]}:{digits[8:]}"
    shown = mapped.replace(":", "")
    assert NAMES.guid(guid) == f"{shown[:4]}:{shown[4:6]}03:00{shown[6:8]}:{shown[8:]}"
    assert NAMES.mac(digits) == shown


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:00:5e:00:00:fb"])
def test_none_everybody_and_groups_are_no_machine(mac: str) -> None:
    assert NAMES.mac(mac) == mac


def test_spelling_is_kept() -> None:
    assert NAMES.mac("4C-BB-47-01-02-03") == NAMES.mac("4c:bb:47:01:02:03").upper().replace(":", "-")
    assert len(NAMES.ipv6("fe80:0000:0000:0000:4ebb:47ff:fe01:0203") or "") == 39
    assert NAMES.guid("0x4cbb470300010203").startswith("0x4cbb470300")


@given(PUBLIC4, PUBLIC4)
def test_public_addresses_stay_public_and_different(one: IPv4Address, other: IPv4Address) -> None:
    a, b = NAMES.ipv4(str(one)), NAMES.ipv4(str(other))
    assert a is not None
    assert b is not None
    assert IPv4Address(a).is_global
    assert (a == b) is (one == other)
    assert str(one).rsplit(".", 1)[1] == a.rsplit(".", 1)[1]


@given(
    PUBLIC4.filter(lambda a: str(a).split(".", 1)[0] not in ("100", "169", "172", "192", "198", "203")),
    st.integers(16, 30),
)
def test_a_host_stays_in_its_network(address: IPv4Address, length: int) -> None:
    network = IPv4Network((address, length), strict=False)
    shown = NAMES.ipv4(str(network.network_address), f"/{length}")
    assert shown is not None
    assert IPv4Address(NAMES.ipv4(str(address)) or "") in IPv4Network(f"{shown}/{length}")


@given(PUBLIC6, st.integers(32, 64))
def test_a_host_stays_in_its_network_6(address: IPv6Address, length: int) -> None:
    network = IPv6Network((address, length), strict=False)
    shown = NAMES.ipv6(str(network.network_address), f"/{length}") or str(network.network_address)
    assert IPv6Address(NAMES.ipv6(str(address)) or str(address)) in IPv6Network(f"{shown}/{length}")


@pytest.mark.parametrize(
    "text",
    [
        "10.77.0.1",
        "192.168.1.9",
        "127.0.0.1",
        "169.254.3.4",
        "224.0.0.251",
        "0.0.0.0",
        "255.255.255.0",
        "01.2.3.4",
        "1.2.3.999",
    ],
)
def test_what_is_private_or_no_address_says_nothing(text: str) -> None:
    assert NAMES.ipv4(text) is None


@pytest.mark.parametrize("text", ["::1", "::", "fe80::1", "fd00::77", "ff02::1", "12:34:56"])
def test_what_is_private_or_no_address_says_nothing_6(text: str) -> None:
    assert NAMES.ipv6(text) is None


def test_an_address_inside_another_is_mapped_too() -> None:
    inner = NAMES.ipv4("81.2.69.142")
    assert NAMES.ipv6("::ffff:5102:458e") == str(IPv6Address(f"::ffff:{inner}"))
    assert NAMES.ipv6("::ffff:0a4d:0001") is None


@given(st.text("0123456789ABCDEFXYZabc-", min_size=6, max_size=40))
def test_a_serial_number_keeps_its_shape(text: str) -> None:
    shown = NAMES.like(text)
    assert len(shown) == len(text)
    assert [c.isdigit() for c in shown] == [
        c.isdigit() or (c in "abcdefABCDEF" and s.isdigit()) for c, s in zip(text, shown, strict=True)
    ]
    assert [c == "-" for c in shown] == [c == "-" for c in text]


def test_another_key_gives_others() -> None:
    assert Pseudonyms(b"x" * 32).mac("4c:bb:47:01:02:03") != NAMES.mac("4c:bb:47:01:02:03")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lladdr 4c:bb:47:01:02:03 REACHABLE", "mac"),
        ("GUID 4cbb:4703:0001:0203", "guid"),
        ("inet6 2a02:8071:12::5/64 scope", "v6"),
        ("via 81.2.69.142.", "v4"),
        ("0x4cbb470300010203", "bare"),
    ],
)
def test_addresses_are_seen_in_a_text(text: str, kind: str) -> None:
    assert [m.lastgroup for m in ADDRESSES.finditer(text) if m[kind]]


@pytest.mark.parametrize(
    "text",
    [
        "0000:01:00.0 PCI",
        "12:34:56.789",
        "libcublas-12.9.1.4",
        "6.17.0-1014-nvidia",
        "1.2.3.4-1ubuntu",
        "v1.2.3.4",
        "sha256:" + "ab" * 32,
    ],
)
def test_what_only_looks_like_one_is_not(text: str) -> None:
    assert not [m for m in ADDRESSES.finditer(text) if m["mac"] or m["v4"] or m["guid"] or m["bare"]]


@settings(max_examples=20)
@given(st.lists(LOW, unique=True, min_size=2, max_size=30))
def test_hardware_in_a_text_is_listed(lows: list[int]) -> None:
    text = " ".join(mac_of(0x4CBB47 << 24 | low) for low in lows)
    assert len(hardware_in(text)) == len(lows)
    assert IPv4Interface("10.77.0.1/24").ip.is_private
