"""The host's packet filter, as `iptables -S` lists it. No judgement: the chains and their rules in order."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dspark_ops.facts.model import Fact
from dspark_ops.transport.base import Command, NodeReading, Probe

PROBES: tuple[Probe, ...] = (Command("firewall.rules", ("iptables", "-S"), root=True, timeout_s=5.0),)
_FLAGS = {
    "-i": "in_device",
    "--in-interface": "in_device",
    "-o": "out_device",
    "--out-interface": "out_device",
    "-s": "source",
    "--source": "source",
    "-d": "destination",
    "--destination": "destination",
    "-p": "protocol",
    "--protocol": "protocol",
    "--dport": "ports",
    "--dports": "ports",
    "--destination-port": "ports",
    "--ctstate": "states",
    "--state": "states",
    "--dst-type": "address_type",
    "-j": "target",
    "--jump": "target",
    "-g": "target",
}
# Words that say nothing of which packet is meant.
_SILENT = {"--comment": 1, "-m": 1, "--match": 1, "--reject-with": 1, "--log-prefix": 1, "--log-level": 1}


class FirewallRule(Fact):
    """One rule. A matcher that is None is not in it; a leading "!" turns it round.

    unclear: it matches by something else too (a rate, a set, a mark), so that it may or may not apply.
    """

    text: str
    target: str | None = None
    in_device: str | None = None
    out_device: str | None = None
    source: str | None = None
    destination: str | None = None
    protocol: str | None = None
    ports: str | None = None
    states: str | None = None
    address_type: str | None = None
    unclear: bool = False


class FirewallChain(Fact):
    """One chain. policy: of a built-in one, ACCEPT or DROP; None for one that others jump to."""

    name: str
    policy: str | None = None
    rules: tuple[FirewallRule, ...] = ()


class FirewallFacts(Fact):
    """The filter table. installed: the program that lists it is there; without it nobody made rules of this kind."""

    installed: bool = True
    chains: tuple[FirewallChain, ...] = ()

    def chain(self, name: str) -> FirewallChain | None:
        """A chain by name, or None."""
        return next((chain for chain in self.chains if chain.name == name), None)


def parse_iptables(text: str | None) -> FirewallFacts | None:
    """The chains of `iptables -S`; None when the text holds none."""
    policies: dict[str, str | None] = {}
    rules: dict[str, list[FirewallRule]] = {}
    for line in (text or "").splitlines():
        try:
            words = shlex.split(line)
        except ValueError:
            words = line.split()
        if len(words) == 3 and words[0] == "-P":
            policies[words[1]] = words[2]
        elif len(words) == 2 and words[0] == "-N":
            policies.setdefault(words[1], None)
        elif len(words) > 2 and words[0] == "-A":
            policies.setdefault(words[1], None)
            rules.setdefault(words[1], []).append(_rule(line.strip(), words[2:]))
    if not policies:
        return None
    return FirewallFacts(
        chains=tuple(
            FirewallChain(name=name, policy=policy, rules=tuple(rules.get(name, ())))
            for name, policy in policies.items()
        )
    )


def _rule(text: str, words: Sequence[str]) -> FirewallRule:
    found: dict[str, str] = {}
    unclear, turned, position = False, "", 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "!":
            turned = "!"
        elif word in _FLAGS and position < len(words):
            name = _FLAGS[word]
            unclear = unclear or name in found
            found[name] = turned + words[position]
            turned, position = "", position + 1
        elif word in _SILENT:
            turned, position = "", position + _SILENT[word]
        else:
            # Words after the target belong to the target (--set-mark), the others to a matcher that is not known.
            unclear = unclear or "target" not in found
            turned = ""
    return FirewallRule.model_validate({**found, "text": text[:200], "unclear": unclear})


def read_firewall(reading: NodeReading) -> FirewallFacts | None:
    """The filter of a reading; None where the program was refused or failed."""
    result = reading.get("firewall.rules")
    if "no such program" in (result.error or "") or "iptables: command not found" in (result.stderr or ""):
        return FirewallFacts(installed=False)
    return parse_iptables(result.text())
