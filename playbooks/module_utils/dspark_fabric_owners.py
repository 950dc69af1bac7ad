"""Who else configures a rail: networkd's files and NetworkManager's profiles. Pure functions over their texts."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from ansible.module_utils.dspark_fabric_files import NETWORKD_PREFIX
from ansible.module_utils.dspark_netplan_rules import Rail

Sections = dict[str, list[tuple[str, str]]]

NETWORKD_FOLDERS = ("/usr/lib/systemd/network", "/run/systemd/network", "/etc/systemd/network")
_NETPLAN_MADE = "10-netplan-"
_NEUTRAL_NETWORKD = {
    "Match": None,
    "Link": {"MTUBytes", "RequiredForOnline", "ActivationPolicy"},
    "Address": {"Address"},
    "Network": {
        *("Address", "Description", "LinkLocalAddressing", "IPv6AcceptRA", "LLDP", "EmitLLDP"),
        *("ConfigureWithoutCarrier", "IgnoreCarrierLoss", "KeepConfiguration"),
    },
}


@dataclass(frozen=True)
class Claim:
    """What somebody else's file does to one rail. reasons: why it is not what is wanted; empty when it is."""

    source: str
    netdev: str
    reasons: tuple[str, ...]

    def sentence(self) -> str:
        """The conflict in words."""
        return f"{self.source} configures {self.netdev}: {'; '.join(self.reasons)}"


def parse_ini(text: str) -> Sections:
    """Sections of a unit-like file; a section or key that is repeated adds up, as networkd reads it."""
    found: Sections = {}
    section: list[tuple[str, str]] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], [])
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            section.append((key.strip(), value.strip()))
    return found


def networkd_claim(files: dict[str, str], rail: Rail, mac: str | None, *, ours: str) -> Claim | None:
    """The foreign file that networkd takes, or would take without ours, for the rail. files: path to text.

    ours: the name of the file that configures the rail when it is ours. A catch-all that sorts after it is no claim:
    networkd takes the first file that matches.
    """
    chosen: dict[str, str] = {}
    for folder in NETWORKD_FOLDERS:
        chosen.update({path.rpartition("/")[2]: path for path in files if path.rpartition("/")[0] == folder})
    for path in files:
        chosen.setdefault(path.rpartition("/")[2], path)
    for name in sorted(chosen):
        if name.startswith((NETWORKD_PREFIX, _NETPLAN_MADE)):
            continue
        sections = parse_ini(files[chosen[name]])
        matched = _networkd_match(sections, rail.netdev, mac)
        if matched is None or (matched == "pattern" and name > ours):
            continue
        return Claim(chosen[name], rail.netdev, tuple(_networkd_reasons(sections, rail)))
    return None


def _networkd_match(sections: Sections, netdev: str, mac: str | None) -> str | None:
    """How a file's [Match] takes a port: by its own name, by a pattern, or not."""
    rules = sections.get("Match", [])
    names = [word for key, value in rules if key in ("Name", "OriginalName") for word in value.split()]
    macs = [word.lower() for key, value in rules if key.endswith("MACAddress") for word in value.split()]
    if macs:
        return "name" if mac is not None and mac.lower() in macs else None
    if names and names[0].startswith("!"):
        excluded = [word.lstrip("!") for word in names]
        return None if any(fnmatch.fnmatchcase(netdev, word) for word in excluded) else "pattern"
    if netdev in names:
        return "name"
    if any(fnmatch.fnmatchcase(netdev, word) for word in names):
        return "pattern"
    # Matched by driver, type or path: whether it takes the port, only networkd knows.
    other = {key for key, _ in rules} - {"Name", "OriginalName"}
    return "pattern" if not names and other & {"Type", "Driver", "Path"} and _may_be_ethernet(rules) else None


def _may_be_ethernet(rules: list[tuple[str, str]]) -> bool:
    types = [value for key, value in rules if key == "Type"]
    return not types or any("ether" in value for value in types)


def _networkd_reasons(sections: Sections, rail: Rail) -> list[str]:
    reasons = []
    lines = [(section, key, value) for section, pairs in sections.items() for key, value in pairs]
    addresses = [value for section, key, value in lines if key == "Address" and section in ("Network", "Address")]
    if addresses != [rail.address]:
        reasons.append(f"addresses {', '.join(addresses) or 'none'} instead of {rail.address}")
    mtus = [value for section, key, value in lines if (section, key) == ("Link", "MTUBytes")]
    if mtus[-1:] != [str(rail.mtu)]:
        reasons.append(f"mtu {mtus[-1] if mtus else 'unset'} instead of {rail.mtu}")
    others = sorted({_other(section, key, value) for section, key, value in lines} - {""})
    return [*reasons, f"also sets {', '.join(others)}"] if others else reasons


def _other(section: str, key: str, value: str) -> str:
    allowed = _NEUTRAL_NETWORKD.get(section, set())
    if allowed is None or key in allowed:
        return ""
    if key == "DHCP" and value in ("no", "false", "none", "0"):
        return ""
    return f"{key}={value}" if section == "Network" else f"[{section}] {key}"


def profile_claim(profiles: dict[str, str], rail: Rail, mac: str | None) -> Claim | None:
    """The NetworkManager profile that takes the rail by itself, netplan's own left out. profiles: path to text."""
    for path in sorted(profiles):
        if path.rpartition("/")[2].startswith("netplan-"):
            continue
        sections = {name: dict(pairs) for name, pairs in parse_ini(profiles[path]).items()}
        if _takes(sections, rail.netdev, mac):
            name = sections["connection"].get("id", path.rpartition("/")[2])
            return Claim(f"the NetworkManager profile {name!r} ({path})", rail.netdev, _profile_reasons(sections, rail))
    return None


def _takes(sections: dict[str, dict[str, str]], netdev: str, mac: str | None) -> bool:
    connection = sections.get("connection", {})
    if connection.get("autoconnect", "true").lower() in ("false", "no", "0"):
        return False
    if connection.get("interface-name"):
        return connection["interface-name"] == netdev
    told = _ethernet(sections).get("mac-address", "").lower()
    if told:
        return mac is not None and told == mac.lower()
    patterns = sections.get("match", {}).get("interface-name", "").replace(";", " ").split()
    return any(fnmatch.fnmatchcase(netdev, pattern) for pattern in patterns)


def _ethernet(sections: dict[str, dict[str, str]]) -> dict[str, str]:
    return {**sections.get("802-3-ethernet", {}), **sections.get("ethernet", {})}


def _profile_reasons(sections: dict[str, dict[str, str]], rail: Rail) -> tuple[str, ...]:
    reasons = []
    connection, ipv4 = sections.get("connection", {}), sections.get("ipv4", {})
    if connection.get("master") or connection.get("controller"):
        reasons.append("makes it part of another interface; a rail must stand alone")
    listed = [value for key, value in ipv4.items() if key == "addresses" or key.removeprefix("address").isdigit()]
    given = [word for value in listed for word in value.split(";") if word]
    addresses = [word.split(",")[0] for word in given]
    if ipv4.get("method", "auto") != "manual":
        reasons.append(f"ipv4 method {ipv4.get('method', 'auto')} instead of manual")
    if addresses != [rail.address]:
        reasons.append(f"addresses {', '.join(addresses) or 'none'} instead of {rail.address}")
    mtu = _ethernet(sections).get("mtu", "unset")
    if mtu != str(rail.mtu):
        reasons.append(f"mtu {mtu} instead of {rail.mtu}")
    if ipv4.get("gateway") or any("," in word for word in given):
        reasons.append("also sets a gateway")
    six = sections.get("ipv6", {}).get("method", "auto")
    if six not in ("disabled", "ignore", "link-local"):
        reasons.append(f"ipv6 method {six}")
    return tuple(reasons)


def profile_commands(rails: list[Rail]) -> list[str]:
    """What an operator runs to have NetworkManager give the rails what is wanted."""
    return [
        f"nmcli connection add type ethernet con-name dspark-{rail.name} ifname {rail.netdev} "
        f"ipv4.method manual ipv4.addresses {rail.address} ipv4.never-default yes ipv6.method disabled "
        f"802-3-ethernet.mtu {rail.mtu} connection.autoconnect yes"
        for rail in rails
    ]
