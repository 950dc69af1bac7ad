"""Who configures a rail: every shape that other people's netplan files come in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import PLAYBOOKS, load

rules = load(PLAYBOOKS / "module_utils" / "dspark_netplan_rules.py", "netplan_rules")

PORT, MAC = "enp1s0f0np0", "02:00:00:00:00:01"
RAIL = rules.Rail("p0a", PORT, "10.77.0.1/24", 9000)
OTHER = rules.Rail("p0b", "enP2p1s0f0np0", "10.77.1.1/24", 9000)
FOREIGN = "/etc/netplan/98-foreign.yaml"
SAME = "{addresses: [10.77.0.1/24], mtu: 9000, dhcp4: false}"


def link(netdev: str = PORT, **more: Any) -> Any:
    given = {"mac": MAC, "mtu": 9000, "carrier": True, "master": None, "addresses": ("10.77.0.1/24",), **more}
    return rules.Link(netdev=netdev, **given)


def judge(*texts: str, rails: tuple[Any, ...] = (RAIL,)) -> Any:
    files = {f"/etc/netplan/9{n}-foreign.yaml": yaml.safe_load(text) for n, text in enumerate(texts)}
    return rules.ownership(list(rails), files, {PORT: link()})


def ethernet(body: str, name: str = PORT) -> str:
    return f"network: {{version: 2, ethernets: {{{name}: {body}}}}}"


@pytest.mark.parametrize(
    "text",
    [
        "network: {version: 2, renderer: NetworkManager}",
        "network:\n",
        "{}",
        ethernet("{dhcp4: true}", name="enP7s7"),
        ethernet("{}"),
        ethernet("{optional: true, dhcp4: false, dhcp6: no, link-local: []}"),
    ],
)
def test_a_file_that_gives_the_rail_nothing_leaves_it_to_us(text: str) -> None:
    assert judge(text) == rules.Ownership((PORT,), {}, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ethernet("{dhcp4: true}"), "also sets dhcp4"),
        (ethernet("{addresses: [192.168.1.1/24], mtu: 9000}"), "addresses 192.168.1.1/24 instead of 10.77.0.1/24"),
        (ethernet("{addresses: [10.77.0.1/24]}"), "mtu unset instead of 9000"),
        (ethernet("{addresses: [10.77.0.1/24], mtu: 1500}"), "mtu 1500"),
        (ethernet("{addresses: [10.77.0.1/24, 10.9.9.9/24], mtu: 9000}"), "10.9.9.9/24"),
        (ethernet("{addresses: [10.77.0.1/24], mtu: 9000, gateway4: 10.77.0.254}"), "gateway4"),
        (ethernet(f"{{match: {{macaddress: '{MAC.upper()}'}}, dhcp4: true}}", name="cx7"), PORT),
        (ethernet("{match: {name: 'enp1s0*'}, dhcp4: true}", name="any"), PORT),
        (f"network: {{bonds: {{bond0: {{interfaces: [{PORT}]}}}}}}", "bond bond0"),
        (f"network: {{bridges: {{br0: {{interfaces: [{PORT}]}}}}}}", "bridge br0"),
        (f"network: {{vlans: {{v5: {{id: 5, link: {PORT}}}}}}}", "VLAN v5"),
    ],
)
def test_anything_else_on_the_rail_is_a_conflict_that_names_the_file(text: str, words: str) -> None:
    found = judge(text)
    assert len(found.conflicts) == 1
    assert "/etc/netplan/90-foreign.yaml" in found.conflicts[0]
    assert words in found.conflicts[0]


def test_a_file_that_gives_exactly_what_is_wanted_is_adopted_and_the_other_rails_are_ours() -> None:
    found = judge(ethernet(SAME), rails=(RAIL, OTHER))
    assert found == rules.Ownership((OTHER.netdev,), {PORT: "/etc/netplan/90-foreign.yaml"}, ())


def test_files_are_merged_as_netplan_does() -> None:
    """A leftover file adds its address to a rail that another one gives correctly: two addresses, a second GID pair."""
    assert judge(ethernet("{addresses: [10.77.0.1/24]}"), ethernet("{mtu: 9000}")).adopted
    leftover = ethernet("{addresses: [10.8.0.1/24]}")
    for files in ((ethernet(SAME), leftover), (leftover, ethernet(SAME))):
        found = judge(*files)
        assert not found.adopted
        assert "10.77.0.1/24" in found.conflicts[0]
        assert "10.8.0.1/24" in found.conflicts[0]
        assert "90-foreign.yaml and /etc/netplan/91-foreign.yaml" in found.conflicts[0]
    assert judge(ethernet("{addresses: [10.77.0.1/24], mtu: 1500}"), ethernet("{mtu: 9000}")).adopted


def test_a_file_in_run_hides_the_one_of_the_same_name_in_etc() -> None:
    paths = ["/lib/netplan/00-a.yaml", "/etc/netplan/50-b.yaml", "/run/netplan/50-b.yaml", "/etc/netplan/00-a.yaml"]
    assert rules.effective_files(paths) == ["/etc/netplan/00-a.yaml", "/run/netplan/50-b.yaml"]


@pytest.mark.parametrize(
    ("links", "ours", "others", "check"),
    [
        ({}, set(), {}, "fabric.port_absent"),
        ({PORT: link(master="bond0")}, set(), {}, "fabric.port_enslaved"),
        ({PORT: link(carrier=False)}, set(), {}, "fabric.no_carrier"),
        ({PORT: link(addresses=("10.5.0.1/24",))}, set(), {}, "fabric.foreign_address"),
        ({PORT: link()}, set(), {"docker0": ["10.77.0.200/16"]}, "fabric.subnet_overlap"),
    ],
)
def test_live_conflicts(links: Any, ours: set[str], others: dict[str, list[str]], check: str) -> None:
    problems = rules.live_conflicts([RAIL], links, ours, others)
    assert len(problems) == 1
    assert problems[0].endswith(f"[{check}]")


def test_what_is_ours_or_unknown_is_no_conflict() -> None:
    fe80 = ("fe80::1/64", "10.5.0.1/24")
    assert rules.live_conflicts([RAIL], {PORT: link(addresses=fe80)}, {"10.5.0.1/24"}, {}) == []
    assert rules.live_conflicts([RAIL], {PORT: link(carrier=None, addresses=())}, set(), {"e": ["10.78.0.1/24"]}) == []


def test_effective_means_address_alone_mtu_and_carrier() -> None:
    assert rules.not_effective([RAIL], {PORT: link(addresses=("10.77.0.1/24", "fe80::1/64"))}) == []
    for bad in ({"mtu": 1500}, {"addresses": ()}, {"carrier": False}, {"carrier": None}):
        assert len(rules.not_effective([RAIL], {PORT: link(**bad)})) == 1, bad
    assert rules.not_effective([RAIL], {PORT: link(addresses=("10.77.0.1/24", "10.1.1.1/24"))})
    assert rules.not_effective([RAIL], {})


def test_a_port_that_is_no_rail_any_more_is_known_with_its_addresses() -> None:
    old = yaml.safe_load(ethernet(SAME))
    assert rules.dropped(old, [OTHER]) == {PORT: ["10.77.0.1/24"]}
    assert rules.dropped(old, [RAIL]) == {}
    assert rules.dropped(None, [RAIL]) == {}
