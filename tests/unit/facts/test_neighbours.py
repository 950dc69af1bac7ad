"""Who is at the other end: the kernel's table, `ping -6` and LLDP as they print it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.neighbours import parse_echo, parse_lldp, parse_neighbours

# Printed on the rehearsal pair on 2026-11-25 (iproute2 6.1, iputils 20221126).
TABLE = """[{"dst":"10.77.77.1","dev":"enP7s7","lladdr":"02:42:EA:30:3f:e9","state":["REACHABLE"]},
{"dst":"fe80::47ff:fe02:1a16","dev":"enp1s0f0np0","lladdr":"02:00:47:02:1a:16","state":["DELAY"]},
{"dst":"fe80::47ff:fe02:1a17","dev":"enp1s0f1np1","lladdr":"02:00:47:02:1a:17","state":["STALE"]},
{"dst":"10.77.1.2","dev":"enP2p1s0f0np0","state":["FAILED"]},
{"dst":"10.77.2.2","dev":"enp1s0f1np1","state":["INCOMPLETE"]}]"""
ECHO = """PING ff02::1(ff02::1) from :: enp1s0f0np0: 56 data bytes
64 bytes from fe80::47ff:fe02:1a16%enp1s0f0np0: icmp_seq=1 ttl=64 time=0.118 ms

--- ff02::1 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = 0.118/0.118/0.118/0.000 ms
"""
SILENCE = """PING ff02::1(ff02::1) from :: enp1s0f0np0: 56 data bytes

--- ff02::1 ping statistics ---
1 packets transmitted, 0 received, 100% packet loss, time 0ms
"""
# The layout of lldpd's json0 writer (lldpd 1.0.16, lldpctl(8)); values are ours.
LLDP = {
    "lldp": [
        {
            "interface": [
                {
                    "name": "enp1s0f0np0",
                    "via": "LLDP",
                    "chassis": [
                        {"id": [{"type": "mac", "value": "02:00:00:00:00:01"}], "name": [{"value": "spark-b"}]}
                    ],
                    "port": [
                        {"id": [{"type": "mac", "value": "02:00:00:00:02:01"}], "descr": [{"value": "enp1s0f1np1"}]}
                    ],
                }
            ]
        }
    ]
}


def test_the_table_gives_what_has_an_address_and_says_what_is_fresh() -> None:
    found = parse_neighbours(TABLE)
    assert found is not None
    assert [(n.device, str(n.address), n.mac, n.fresh) for n in found] == [
        ("enP7s7", "10.77.77.1", "02:42:ea:30:3f:e9", True),
        ("enp1s0f0np0", "fe80::47ff:fe02:1a16", "02:00:47:02:1a:16", True),
        ("enp1s0f1np1", "fe80::47ff:fe02:1a17", "02:00:47:02:1a:17", False),
    ]


def test_nothing_printed_is_an_empty_table_and_no_answer_is_unknown() -> None:
    assert parse_neighbours("") == ()
    assert parse_neighbours(None) is None
    assert parse_neighbours('Object "neigh" is unknown') is None


def test_an_echo_names_each_responder_once() -> None:
    assert parse_echo("enp1s0f0np0", ECHO).responders == (IPv6Address("fe80::47ff:fe02:1a16"),)
    doubled = ECHO.replace("64 bytes from", "64 bytes from fe80::9%enp1s0f0np0: icmp_seq=1 (DUP!)\n64 bytes from")
    assert len(parse_echo("enp1s0f0np0", doubled).responders) == 2
    assert parse_echo("enp1s0f0np0", SILENCE).responders == ()


def test_lldp_as_lldpctl_prints_it() -> None:
    found = parse_lldp(json.dumps(LLDP))
    assert found is not None
    assert [(n.device, n.chassis, n.port, n.description) for n in found] == [
        ("enp1s0f0np0", "spark-b", "02:00:00:00:02:01", "enp1s0f1np1")
    ]
    assert parse_lldp('{"lldp": [{}]}') == ()
    assert parse_lldp("lldpctl: unable to connect") is None


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    parse_neighbours(text)
    parse_lldp(text)
    parse_echo("x", text)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"dst": st.ip_addresses().map(str) | st.text(max_size=4), "dev": st.text(max_size=5)},
            optional={"lladdr": st.just("02:00:00:00:00:01"), "state": st.lists(st.sampled_from(["STALE", "FAILED"]))},
        )
    )
)
def test_only_entries_with_a_hardware_address_and_a_sure_state_count(rows: list[dict[str, object]]) -> None:
    found = parse_neighbours(json.dumps(rows))
    assert found is not None
    assert len(found) <= sum("lladdr" in row for row in rows)
    assert all(isinstance(entry.address, IPv4Address | IPv6Address) for entry in found)
