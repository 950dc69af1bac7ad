"""Whether a host's packet filter lets a new TCP connection in from a rail. Pure: a walk through the chains.

RoCE itself is not filtered: the NIC delivers it past the kernel. The sockets of NCCL, Gloo and the engine are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dspark_ops.facts.firewall import FirewallChain, FirewallFacts, FirewallRule

_ENDS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop"}
_DEPTH = 16


@dataclass(frozen=True)
class Packet:
    """The first packet of a TCP connection: which device it comes in by, from whom, to whom, to which port."""

    device: str
    source: IPv4Address
    destination: IPv4Address
    port: int


@dataclass(frozen=True)
class Passage:
    """What becomes of a packet. verdict: accept, drop, or unknown where a rule cannot be judged; by: that rule."""

    verdict: str
    by: str


def passage(filters: FirewallFacts, packet: Packet) -> Passage | None:
    """What INPUT does with a packet; None when the table has no such chain."""
    chain = filters.chain("INPUT")
    if chain is None or chain.policy is None:
        return None
    found = _walk(filters, chain, packet, _DEPTH)
    return found or Passage(_ENDS.get(chain.policy, "unknown"), f"-P INPUT {chain.policy}")


def _walk(filters: FirewallFacts, chain: FirewallChain, packet: Packet, depth: int) -> Passage | None:
    """The first verdict in a chain, or None when it falls through to its caller."""
    doubt: Passage | None = None
    for rule in chain.rules:
        fits = _fits(rule, packet)
        if fits is False or rule.target is None:
            continue
        if rule.target == "RETURN":
            if fits:
                return doubt
            doubt = doubt or Passage("unknown", rule.text)
            continue
        found = _of_target(filters, rule, packet, depth)
        if found is None:
            continue
        if fits is None:
            # It may apply: that is no verdict, only a doubt about a packet that the rest would treat otherwise.
            doubt = doubt or Passage("unknown", rule.text)
            continue
        return found if doubt is None or doubt.verdict == found.verdict else doubt
    return doubt


def _of_target(filters: FirewallFacts, rule: FirewallRule, packet: Packet, depth: int) -> Passage | None:
    target = rule.target or ""
    if target in _ENDS:
        return Passage(_ENDS[target], rule.text)
    chain = filters.chain(target)
    if chain is None:
        return None  # LOG, MARK and the like go on with the next rule
    return _walk(filters, chain, packet, depth - 1) if depth > 0 else Passage("unknown", rule.text)


def _fits(rule: FirewallRule, packet: Packet) -> bool | None:
    """Whether a rule applies; None when something in it cannot be judged and nothing else rules it out."""
    checks = [
        _turned(rule.in_device, lambda word: _device(word, packet.device)),
        _turned(rule.out_device, lambda _: False),
        _turned(rule.source, lambda word: _inside(word, packet.source)),
        _turned(rule.destination, lambda word: _inside(word, packet.destination)),
        _turned(rule.protocol, lambda word: word in ("tcp", "all", "6")),
        _turned(rule.ports, lambda word: _port(word, packet.port)),
        _turned(rule.states, lambda word: "NEW" in word.split(",")),
        _turned(rule.address_type, lambda word: word == "LOCAL"),
    ]
    if False in checks:
        return False
    return None if rule.unclear or None in checks else True


def _turned(word: str | None, judge: Callable[[str], bool | None]) -> bool | None:
    if word is None:
        return True
    found = judge(word.removeprefix("!"))
    return found if found is None or not word.startswith("!") else not found


def _device(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _inside(text: str, address: IPv4Address) -> bool | None:
    try:
        return any(address in IPv4Network(part, strict=False) for part in text.split(","))
    except ValueError:
        return None


def _port(text: str, port: int) -> bool | None:
    try:
        for part in text.split(","):
            low, _, high = part.partition(":")
            if int(low or 0) <= port <= int(high or (low if ":" not in part else 65535)):
                return True
    except ValueError:
        return None
    return False
