"""Devices out of what `ip` prints for people: the form in which a bug report comes. Nodes are read as JSON instead."""

from __future__ import annotations

import re
from ipaddress import ip_interface

from dspark_ops.facts.links import AddressFacts, LinkFacts

_HEAD = re.compile(r"\d+: ([^:\s@]+)(?:@\S+)?: <([A-Z0-9,_-]*)>(.*)")
_STATES = frozenset({"UP", "DOWN", "UNKNOWN", "DORMANT", "LOWERLAYERDOWN", "NOTPRESENT", "TESTING"})
_FLAGS = re.compile(r"<([A-Z0-9,_-]*)>")


def parse_ip_brief(text: str | None) -> tuple[LinkFacts, ...] | None:
    """`ip -br addr` or `ip -br link`; None when no line is of that form.

    The addresses do not say whether they are leases, and without flags an operstate of DOWN is all that tells of a
    missing carrier.
    """
    found = []
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) < 2 or words[1] not in _STATES:
            continue
        flags = _FLAGS.search(line)
        names = set(flags[1].split(",")) if flags else None
        found.append(
            LinkFacts(
                name=words[0].split("@")[0],
                mac=words[2] if flags and len(words) > 2 else None,
                operstate=words[1],
                admin_up=None if names is None else "UP" in names,
                carrier=_carrier(words[1], names),
                addresses=() if flags else _addresses(words[2:]),
            )
        )
    return tuple(found) or None


def _carrier(operstate: str, flags: set[str] | None) -> bool | None:
    if flags is not None:
        return "LOWER_UP" in flags if "UP" in flags else None
    return {"UP": True, "DOWN": False}.get(operstate)


def parse_ip_text(text: str | None) -> tuple[LinkFacts, ...] | None:
    """`ip addr`, `ip link` or `ip -s link`; None when no line is of that form."""
    found: list[dict[str, object]] = []
    addresses: list[list[AddressFacts]] = []
    for line in (text or "").splitlines():
        head = _HEAD.match(line)
        words = line.split()
        if head:
            flags, rest = set(head[2].split(",")), head[3].split()
            said = dict(zip(rest[::2], rest[1::2], strict=False))
            mtu, state = said.get("mtu", ""), said.get("state")
            found.append(
                {
                    "name": head[1],
                    "mtu": int(mtu) if mtu.isdecimal() and len(mtu) < 8 else None,
                    "operstate": state,
                    "master": said.get("master"),
                    "admin_up": "UP" in flags,
                    "carrier": "LOWER_UP" in flags if "UP" in flags else None,
                }
            )
            addresses.append([])
        elif found and len(words) > 1 and words[0].startswith("link/"):
            found[-1]["mac"] = words[1]
        elif found and len(words) > 1 and words[0] in ("inet", "inet6"):
            for entry in _addresses(words[1:2]):
                scope = words[words.index("scope") + 1] if "scope" in words[:-1] else None
                addresses[-1].append(entry.model_copy(update={"dynamic": "dynamic" in words, "scope": scope}))
    return (
        tuple(
            LinkFacts.model_validate({**said, "addresses": mine}) for said, mine in zip(found, addresses, strict=True)
        )
        or None
    )


def _addresses(words: list[str]) -> tuple[AddressFacts, ...]:
    found = []
    for word in words:
        try:
            found.append(AddressFacts(address=ip_interface(word)))
        except ValueError:
            continue
    return tuple(found)
