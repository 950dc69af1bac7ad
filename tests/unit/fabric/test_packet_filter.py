"""What a host's packet filter does with the peer's first packet."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from dspark_ops.fabric.packet_filter import Packet, passage
from dspark_ops.facts.firewall import parse_iptables

PACKET = Packet("enp1s0f0np0", IPv4Address("192.168.100.11"), IPv4Address("192.168.100.10"), 25000)
UFW = """-P INPUT DROP
-P FORWARD DROP
-P OUTPUT ACCEPT
-N ufw-before-input
-N ufw-user-input
-N ufw-not-local
-N ufw-logging-deny
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
-A ufw-logging-deny -m limit --limit 3/min -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
"""


def verdict(listing: str, packet: Packet = PACKET) -> str:
    filters = parse_iptables(listing)
    assert filters is not None
    found = passage(filters, packet)
    assert found is not None
    return found.verdict


def test_ufw_drops_what_it_was_not_told_to_let_in() -> None:
    """The shape that `ufw enable` makes on Ubuntu, shortened: reconstructed."""
    assert verdict(UFW) == "drop"
    assert verdict(UFW + "-A ufw-user-input -i enp1s0f0np0 -j ACCEPT\n") == "accept"
    assert verdict(UFW + "-A ufw-user-input -i enp1s0f0np0 -s 192.168.100.11/32 -j ACCEPT\n") == "accept"
    assert verdict(UFW + "-A ufw-user-input -i enP2p1s0f0np0 -j ACCEPT\n") == "drop"
    assert verdict(UFW, Packet(PACKET.device, PACKET.source, PACKET.destination, 22)) == "accept"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("-i enp1s0f0np0", "drop"),
        ("-i enp+", "drop"),
        ("-i eth+", "accept"),
        ("! -i enp1s0f0np0", "accept"),
        ("! -i lo", "drop"),
        ("-o enp1s0f0np0", "accept"),
        ("-s 192.168.100.0/24", "drop"),
        ("-s 192.168.101.0/24", "accept"),
        ("! -s 192.168.101.0/24", "drop"),
        ("-s 10.0.0.0/8,192.168.100.11/32", "drop"),
        ("-s somehost", "unknown"),
        ("! -s somehost", "unknown"),
        ("-d 192.168.100.10/32", "drop"),
        ("-d 192.168.100.11/32", "accept"),
        ("-p tcp", "drop"),
        ("-p udp", "accept"),
        ("-p 6", "drop"),
        ("-p tcp -m tcp --dport 25000", "drop"),
        ("-p tcp -m tcp --dport 25001", "accept"),
        ("-p tcp -m tcp --dport 24000:25000", "drop"),
        ("-p tcp -m tcp --dport 25000:25001", "drop"),
        ("-p tcp -m tcp --dport 24000:24999", "accept"),
        ("-p tcp -m tcp --dport 25001:", "accept"),
        ("-p tcp -m tcp --dport 20000:", "drop"),
        ("-p tcp -m tcp --dport :25000", "drop"),
        ("-p tcp -m multiport --dports 22,25000", "drop"),
        ("-p tcp -m tcp --dport https", "unknown"),
        ("-m state --state NEW", "drop"),
        ("-m conntrack --ctstate ESTABLISHED", "accept"),
        ("-m conntrack ! --ctstate ESTABLISHED", "drop"),
        ("-m addrtype --dst-type LOCAL", "drop"),
        ("-m addrtype --dst-type MULTICAST", "accept"),
        ("-m limit --limit 3/min", "unknown"),
        ("-m limit --limit 3/min -i lo", "accept"),
        ('-m comment --comment "lab\'s own"', "drop"),
        ("-m mark --mark 0x1", "unknown"),
    ],
)
def test_one_rule(rule: str, wanted: str) -> None:
    assert verdict(f"-P INPUT ACCEPT\n-A INPUT {rule} -j DROP\n") == wanted


def test_a_doubt_that_changes_nothing_is_none() -> None:
    doubt = "-P INPUT {}\n-A INPUT -m limit --limit 3/min -j ACCEPT\n-A INPUT -i enp+ -j {}\n"
    assert verdict(doubt.format("DROP", "ACCEPT")) == "unknown"
    assert verdict("-P INPUT ACCEPT\n-A INPUT -m limit --limit 3/min -j LOG\n-A INPUT -i lo -j DROP\n") == "accept"


def test_a_chain_that_returns_goes_on_behind_the_jump() -> None:
    listing = "-P INPUT ACCEPT\n-N x\n-A INPUT -j x\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\n"
    assert verdict(listing + "-A x -i enp+ -j RETURN\n-A x -j ACCEPT\n") == "drop"
    assert verdict(listing + "-A x -i lo -j RETURN\n-A x -j ACCEPT\n") == "accept"


def test_chains_that_call_each_other_end() -> None:
    assert verdict("-P INPUT ACCEPT\n-N a\n-N b\n-A INPUT -j a\n-A a -j b\n-A b -j a\n") == "unknown"


def test_without_the_input_chain_there_is_no_verdict() -> None:
    filters = parse_iptables("-P FORWARD DROP\n-N INPUT\n")
    assert filters is not None
    assert passage(filters, PACKET) is None
    assert parse_iptables("nonsense\n") is None
    assert parse_iptables(None) is None


def test_a_return_that_may_not_apply_is_a_doubt_about_what_stands_behind_it() -> None:
    flood = "-P INPUT ACCEPT\n-N x\n-A INPUT -p tcp -j x\n-A x -m limit --limit 25/sec -j RETURN\n-A x -j DROP\n"
    assert verdict(flood) == "unknown"
    assert verdict(flood.replace("-m limit --limit 25/sec", "-i lo")) == "drop"
