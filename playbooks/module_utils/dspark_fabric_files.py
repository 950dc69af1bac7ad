"""The files that give the rails their addresses: text and place for netplan and for networkd. Pure."""

from __future__ import annotations

from ansible.module_utils.dspark_netplan_rules import Rail

NETPLAN_MODE, NETWORKD_MODE = 0o600, 0o644
# Sorts before netplan's files (10-netplan-...) and distributions' catch-alls: networkd takes the first match.
NETWORKD_PREFIX = "09-dspark-fabric-"

_HEAD = """\
# Written by dspark-ops (role fabric). Do not edit: an edited file is refused, not overwritten. To change an address,
# change the site file and run `dspark-ops bootstrap`. What was here before is kept in /var/lib/dspark/journal.
"""
_NETPLAN_RAIL = """\
    # rail {name}
    {netdev}:
      addresses: [{address}]
      mtu: {mtu}
      dhcp4: false
      dhcp6: false
      accept-ra: false
      # No link-local address: it would add GIDs, and the index of the IPv4 one would drift.
      link-local: []
      # A port without a cable must not hold up the boot.
      optional: true
"""
_NETWORKD_RAIL = """\
# rail {name}
[Match]
Name={netdev}

[Link]
MTUBytes={mtu}
# A port without a cable must not hold up the boot.
RequiredForOnline=no

[Network]
Address={address}
DHCP=no
IPv6AcceptRA=no
# No link-local address: it would add GIDs, and the index of the IPv4 one would drift.
LinkLocalAddressing=no
"""


def netplan_text(rails: list[Rail]) -> str:
    """Our netplan file; empty without rails, then there is no file."""
    if not rails:
        return ""
    return f"{_HEAD}network:\n  version: 2\n  ethernets:\n" + "".join(_fill(_NETPLAN_RAIL, rail) for rail in rails)


def networkd_text(rail: Rail) -> str:
    """Our networkd file of one rail."""
    return _HEAD + _fill(_NETWORKD_RAIL, rail)


def networkd_name(rail: Rail) -> str:
    """Its name in /etc/systemd/network."""
    return f"{NETWORKD_PREFIX}{rail.netdev}.network"


def _fill(text: str, rail: Rail) -> str:
    return text.format(name=rail.name, netdev=rail.netdev, address=rail.address, mtu=rail.mtu)
