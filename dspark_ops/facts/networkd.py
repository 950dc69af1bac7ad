"""systemd-networkd's files: which one applies to which device, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from dspark_ops.facts.ini import Section, ini_sections, truth, values_of
from dspark_ops.facts.makers import Maker, maker_of
from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, Probe

# In the order in which a file of the same name hides the others.
_DIRECTORIES = tuple(f"{root}/systemd/network" for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
PROBES: tuple[Probe, ...] = (
    Files(
        "persistence.networkd",
        tuple(f"{folder}/{name}" for folder in _DIRECTORIES for name in ("*.network", "*.network.d/*.conf")),
        root=True,
    ),
)


class NetworkdFile(Fact):
    """One `.network` file with its drop-ins. unmanaged: it takes the device away from networkd and gives nothing.

    names, macs, types: what it matches; all empty with match_all: every device. drop_ins: their paths.
    """

    path: str
    maker: Maker
    names: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    match_all: bool = False
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    dhcp: bool = False
    gateway: bool = False
    link_local_ipv4: bool = False
    unmanaged: bool = False
    drop_ins: tuple[str, ...] = ()

    @property
    def by_netplan(self) -> bool:
        """netplan made it out of one of its own files."""
        return self.maker == "netplan"

    def covers(self, netdev: str, mac: str | None) -> bool:
        """True when its [Match] fits that Ethernet device."""
        if self.match_all:
            return True
        if self.macs and (mac is None or mac.lower() not in self.macs):
            return False
        if self.types and "ether" not in self.types:
            return False
        return bool(self.names or self.macs or self.types) and (not self.names or _name_fits(self.names, netdev))


def _name_fits(names: tuple[str, ...], netdev: str) -> bool:
    """A "!" before the first pattern turns the whole list around."""
    inverted = names[0].startswith("!")
    patterns = (names[0].removeprefix("!"), *names[1:])
    return any(fnmatchcase(netdev, pattern) for pattern in patterns) is not inverted


def parse_networkd(files: Mapping[str, str]) -> tuple[NetworkdFile, ...]:
    """The `.network` files in networkd's order: by name, whatever their directory; the first that matches wins.

    A file that is empty hides others of its name and applies to nothing.
    """
    chosen: dict[str, str] = {}
    drop_ins: dict[str, dict[str, str]] = {}
    for folder in _DIRECTORIES:
        for path in files:
            parts = path.removeprefix(folder + "/").split("/")
            if not path.startswith(folder + "/"):
                continue
            if len(parts) == 1 and parts[0].endswith(".network"):
                chosen.setdefault(parts[0], path)
            elif len(parts) == 2 and parts[0].endswith(".network.d"):
                drop_ins.setdefault(parts[0].removesuffix(".d"), {}).setdefault(parts[1], path)
    found = []
    for name in sorted(chosen):
        extra = [path for _, path in sorted(drop_ins.get(name, {}).items())]
        if files[chosen[name]].strip():
            found.append(_parse(chosen[name], files, extra))
    return tuple(found)


def _parse(path: str, files: Mapping[str, str], drop_ins: list[str]) -> NetworkdFile:
    content = files[path]
    sections = ini_sections(content) + tuple(s for extra in drop_ins for s in ini_sections(files[extra]))

    def words(section: str, key: str) -> tuple[str, ...]:
        return tuple(word for value in values_of(sections, (section,), key) for word in value.split())

    def last(section: str, key: str) -> str:
        return (values_of(sections, (section,), key) or ("",))[-1]

    matched = {key for name, keys in sections if name == "Match" for key, _ in keys}
    dhcp = last("Network", "DHCP").lower()
    return NetworkdFile(
        path=path,
        maker=_maker(path, content),
        names=words("Match", "Name"),
        macs=tuple(mac.lower() for key in ("MACAddress", "PermanentMACAddress") for mac in words("Match", key)),
        # A kind is one of virtual devices, which a port of the NIC is not.
        types=(*words("Match", "Type"), *(("virtual",) if "Kind" in matched else ())),
        match_all=not matched,
        addresses=(
            *_reset(values_of(sections, ("Network",), "Address")),
            *_reset(values_of(sections, ("Address",), "Address")),
        ),
        mtu=_bytes(last("Link", "MTUBytes")),
        dhcp=truth(dhcp) is True or dhcp in ("ipv4", "ipv6"),
        gateway=_gateway(sections),
        link_local_ipv4=truth(last("Network", "LinkLocalAddressing")) is True
        or last("Network", "LinkLocalAddressing").lower() == "ipv4",
        unmanaged=truth(last("Link", "Unmanaged")) is True,
        drop_ins=tuple(drop_ins),
    )


def _maker(path: str, content: str) -> Maker:
    if path.startswith("/run/") and "/10-netplan-" in path:
        return "netplan"
    return "systemd" if path.startswith("/usr/") else maker_of(path, content)


def _reset(values: tuple[str, ...]) -> tuple[str, ...]:
    """An empty value takes back the ones before it."""
    kept: list[str] = []
    for value in values:
        kept = [*kept, value] if value else []
    return tuple(kept)


def _gateway(sections: tuple[Section, ...]) -> bool:
    if any(values_of(sections, ("Network",), "Gateway")):
        return True
    for name, keys in sections:
        said = dict(keys)
        if name == "Route" and said.get("Gateway") and said.get("Destination", "0.0.0.0/0") in ("0.0.0.0/0", ""):
            return True
    return False


def _bytes(text: str) -> int | None:
    """`9000`; a suffix K, M or G counts in steps of 1024."""
    number = whole_number(text)
    if number is None and text[-1:].upper() in ("K", "M", "G"):
        base = whole_number(text[:-1])
        number = None if base is None else base * 1024 ** ("KMG".index(text[-1].upper()) + 1)
    return number
