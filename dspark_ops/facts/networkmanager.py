"""NetworkManager's connection profiles: what each of them gives which device."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from dspark_ops.facts.ini import ini_sections, truth, values_of
from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, Probe

_DIRECTORIES = ("/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections")
# A keyfile may hold a Wi-Fi password: only what is named below is kept of it.
PROBES: tuple[Probe, ...] = (
    Files("persistence.profiles", tuple(f"{folder}/*.nmconnection" for folder in _DIRECTORIES), root=True),
)
_ETHERNET = ("ethernet", "802-3-ethernet")
# The priority that NetworkManager gives the "Wired connection N" profiles of its own making.
_LAST_RESORT = "-999"


class NmProfile(Fact):
    """One Ethernet profile.

    interface: the device it is for; None with neither mac nor patterns: any Ethernet device. volatile: it lives in /run
    and is gone after a boot. by_netplan: netplan made it out of one of its own files. automatic: NetworkManager made it
    itself, for a port that nobody configures. method: of IPv4.
    """

    path: str
    id: str
    interface: str | None = None
    mac: str | None = None
    patterns: tuple[str, ...] = ()
    autoconnect: bool = True
    method: str | None = None
    addresses: tuple[str, ...] = ()
    gateway: bool = False
    mtu: int | None = None
    volatile: bool = False
    by_netplan: bool = False
    automatic: bool = False

    @property
    def named(self) -> bool:
        """It says for which device it is."""
        return bool(self.interface or self.mac or self.patterns)

    def covers(self, netdev: str, mac: str | None) -> bool:
        """True when it can be brought up on that network device."""
        if self.interface is not None and self.interface != netdev:
            return False
        if self.mac is not None and (mac is None or self.mac != mac.lower()):
            return False
        return not self.patterns or any(fnmatchcase(netdev, pattern) for pattern in self.patterns)


def parse_profile(path: str, content: str) -> NmProfile | None:
    """One keyfile; None when it is of another kind of device (Wi-Fi, bridge), or no keyfile."""
    sections = ini_sections(content)

    def last(names: tuple[str, ...], key: str) -> str | None:
        found = values_of(sections, names, key)
        return found[-1] or None if found else None

    connection = ("connection",)
    if last(connection, "type") not in _ETHERNET:
        return None
    name = last(connection, "id") or path.rsplit("/", 1)[-1].removesuffix(".nmconnection")
    addresses, gateway = _addresses(sections)
    never = truth(last(("ipv4",), "never-default")) is True
    mac = last(_ETHERNET, "mac-address")
    mtu = whole_number(last(_ETHERNET, "mtu"))
    return NmProfile(
        path=path,
        id=name,
        interface=last(connection, "interface-name"),
        mac=mac.lower() if mac else None,
        patterns=tuple(part for part in (last(("match",), "interface-name") or "").split(";") if part),
        autoconnect=truth(last(connection, "autoconnect")) is not False,
        method=last(("ipv4",), "method"),
        addresses=addresses,
        gateway=(gateway or last(("ipv4",), "gateway") is not None) and not never,
        # 0 is "automatic", which is not a value of its own.
        mtu=mtu or None,
        volatile=path.startswith("/run/"),
        automatic=last(connection, "autoconnect-priority") == _LAST_RESORT,
        by_netplan=path.startswith("/run/") and path.rsplit("/", 1)[-1].startswith("netplan-"),
    )


def _addresses(sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]) -> tuple[tuple[str, ...], bool]:
    """`address1=10.0.0.1/24,10.0.0.254`: the address, and after a comma the gateway."""
    found, gateway = [], False
    for name, keys in sections:
        for key, value in keys if name in ("ipv4", "ipv6") else ():
            if key.removeprefix("address").isdecimal() or key in ("address", "addresses"):
                for entry in filter(None, (part.strip() for part in value.split(";"))):
                    address, _, router = entry.partition(",")
                    found.append(address.strip())
                    gateway = gateway or (name == "ipv4" and bool(router.strip()))
    return tuple(found), gateway


def parse_profiles(files: Mapping[str, str]) -> tuple[NmProfile, ...]:
    """The Ethernet profiles among the files of both directories; a profile in /etc hides one of its name in /run."""
    found: dict[str, NmProfile] = {}
    for path in sorted(files):  # /etc before /run
        if path.startswith(_DIRECTORIES):
            profile = parse_profile(path, files[path])
            if profile is not None:
                found.setdefault(path.rsplit("/", 1)[-1], profile)
    return tuple(found.values())
