"""Who configures a port again after a boot: every file and profile that gives it an address, an MTU or a lease."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface
from typing import Literal

from dspark_ops.facts import ifupdown, networkd, networkmanager
from dspark_ops.facts.ifupdown import InterfacesStanza
from dspark_ops.facts.makers import Maker
from dspark_ops.facts.model import Fact
from dspark_ops.facts.netplan import NetplanDevice, NetplanFile
from dspark_ops.facts.networkd import NetworkdFile
from dspark_ops.facts.networkmanager import NmProfile
from dspark_ops.transport.base import Command, Links, NodeReading, Probe

_UNITS = ("NetworkManager.service", "systemd-networkd.service", "networking.service")
PROBES: tuple[Probe, ...] = (
    *networkmanager.PROBES,
    *networkd.PROBES,
    *ifupdown.PROBES,
    Command("persistence.managers", ("systemctl", "show", "--property=Id,ActiveState", *_UNITS)),
    Links("persistence.programs", ("/usr/sbin/netplan",)),
)

Manager = Literal["netplan", "networkmanager", "networkd", "ifupdown"]


class PersistenceFacts(Fact):
    """What could configure the ports, beside netplan's own files.

    networkmanager, networkd, ifupdown: whether that manager runs; netplan: whether it is installed. None: not seen.
    """

    netplan: bool | None = None
    networkmanager: bool | None = None
    networkd: bool | None = None
    ifupdown: bool | None = None
    profiles: tuple[NmProfile, ...] = ()
    networkd_files: tuple[NetworkdFile, ...] = ()
    interfaces: tuple[InterfacesStanza, ...] = ()


class Owner(Fact):
    """One file or profile that is about a port, and what it gives it.

    label: how a person finds it, the path or the profile's name with it. idle: why it has no effect (its manager does
    not run, another file comes first), None when it has one. unmanaged: it takes the port away from its manager.
    dormant: it would take the port the day its manager runs. volatile: it is gone after a boot. automatic: made by
    NetworkManager itself, because nobody configures the port.
    """

    manager: Manager
    path: str
    label: str
    maker: Maker
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    dhcp: bool = False
    gateway: bool = False
    link_local_ipv4: bool = False
    unmanaged: bool = False
    idle: str | None = None
    dormant: bool = False
    volatile: bool = False
    automatic: bool = False

    @property
    def ours(self) -> bool:
        return self.maker == "dspark-ops"

    @property
    def silent(self) -> bool:
        """It names the port and gives it nothing."""
        given = self.addresses or self.mtu is not None or self.dhcp or self.gateway or self.link_local_ipv4
        return not given and not self.unmanaged

    @property
    def gives(self) -> str:
        """What it does to the port, in words."""
        if self.unmanaged:
            return f"takes the port away from {self.manager}"
        parts = list(self.addresses)
        parts += ["an address by DHCP"] if self.dhcp else []
        parts += ["a link-local address"] if self.link_local_ipv4 else []
        parts += ["a default route"] if self.gateway else []
        lasting = " until the next boot" if self.volatile else ""
        return (
            f"gives {', '.join(parts) or 'no address'}, {'no MTU' if self.mtu is None else f'MTU {self.mtu}'}{lasting}"
        )

    def gives_exactly(self, address: IPv4Interface, mtu: int) -> bool:
        """That address and that MTU, for good, and nothing else."""
        plain = not (self.dhcp or self.gateway or self.link_local_ipv4 or self.unmanaged or self.volatile)
        return plain and self.addresses == (str(address),) and self.mtu == mtu


def owners_of(
    netdev: str, mac: str | None, netplan: tuple[NetplanFile, ...] | None, found: PersistenceFacts | None
) -> tuple[Owner, ...] | None:
    """Every file and profile about a port, netplan's first; None when they could not be read.

    What netplan makes out of its own files (profiles and units in /run) is not an owner of its own.
    """
    if netplan is None or found is None:
        return None
    unread = None if found.netplan is not False else "netplan is not installed"
    owners = [_of_netplan(file, device, unread) for file in netplan if (device := file.device(netdev, mac)) is not None]
    owners += _of_profiles(netdev, mac, found)
    owners += _of_networkd(netdev, mac, found)
    owners += [
        _of_stanza(item, None if found.ifupdown is not False else "ifupdown does not run")
        for item in found.interfaces
        if item.name == netdev and item.method != "loopback"
    ]
    if all(owner.automatic for owner in owners):
        return tuple(owners)
    return tuple(o.model_copy(update={"idle": o.idle or "the port has an owner"}) if o.automatic else o for o in owners)


def _of_netplan(file: NetplanFile, device: NetplanDevice, idle: str | None) -> Owner:
    return Owner(
        manager="netplan",
        path=file.path,
        label=file.path,
        maker=file.owner,
        addresses=device.addresses,
        mtu=device.mtu,
        dhcp=bool(device.dhcp4 or device.dhcp6),
        gateway=device.gateway,
        link_local_ipv4="ipv4" in (device.link_local or ()),
        idle=idle,
        volatile=file.path.startswith("/run/"),
    )


def _of_profiles(netdev: str, mac: str | None, found: PersistenceFacts) -> Iterator[Owner]:
    fitting = [p for p in found.profiles if not p.by_netplan and p.covers(netdev, mac)]
    # A profile for any device takes a port only where none names it, netplan's own ones included.
    named = any(p.named and p.covers(netdev, mac) for p in found.profiles)
    for profile in fitting:
        idle = None
        if found.networkmanager is False:
            idle = "NetworkManager does not run"
        elif not profile.autoconnect:
            idle = "it does not connect by itself"
        elif named and not profile.named:
            idle = "another profile names the port"
        yield Owner(
            manager="networkmanager",
            path=profile.path,
            label=f"NetworkManager profile {profile.id!r} ({profile.path})",
            maker="foreign",
            addresses=profile.addresses,
            mtu=profile.mtu,
            dhcp=profile.method == "auto",
            gateway=profile.gateway,
            link_local_ipv4=profile.method == "link-local",
            idle=idle,
            dormant=found.networkmanager is False and profile.named and profile.autoconnect and not profile.volatile,
            volatile=profile.volatile,
            automatic=profile.automatic,
        )


def _of_networkd(netdev: str, mac: str | None, found: PersistenceFacts) -> Iterator[Owner]:
    fitting = [f for f in found.networkd_files if f.covers(netdev, mac)]
    for position, file in enumerate(fitting):
        if file.by_netplan:
            continue
        idle = None
        if found.networkd is False:
            idle = "systemd-networkd does not run"
        elif position > 0:
            idle = f"{fitting[0].path} comes first"
        yield Owner(
            manager="networkd",
            path=file.path,
            label=file.path,
            maker=file.maker,
            addresses=() if file.unmanaged else file.addresses,
            mtu=None if file.unmanaged else file.mtu,
            dhcp=file.dhcp and not file.unmanaged,
            gateway=file.gateway and not file.unmanaged,
            link_local_ipv4=file.link_local_ipv4 and not file.unmanaged,
            unmanaged=file.unmanaged,
            idle=idle,
            volatile=file.path.startswith("/run/"),
        )


def _of_stanza(item: InterfacesStanza, idle: str | None) -> Owner:
    return Owner(
        manager="ifupdown",
        path=item.path,
        label=f"{item.path} (iface {item.name})",
        maker="foreign",
        addresses=item.addresses,
        mtu=item.mtu,
        dhcp=item.method == "dhcp",
        gateway=item.gateway,
        idle=idle,
    )


def parse_managers(text: str | None) -> dict[str, bool]:
    """Unit to "it runs", from `systemctl show --property=Id,ActiveState`."""
    found = {}
    for block in (text or "").split("\n\n"):
        said = dict(line.partition("=")[::2] for line in block.splitlines())
        if said.get("Id") and said.get("ActiveState"):
            found[said["Id"]] = said["ActiveState"] in ("active", "activating", "reloading")
    return found


def read_persistence(reading: NodeReading) -> PersistenceFacts | None:
    """The files and managers of a reading; None without root, to whom alone the profiles are readable."""
    names = ("persistence.profiles", "persistence.networkd", "persistence.interfaces")
    profiles, units, stanzas = (reading.get(name).files for name in names)
    if profiles is None or units is None or stanzas is None or (not reading.sudo and reading.user != "root"):
        return None
    running = parse_managers(reading.get("persistence.managers").text())
    programs = reading.get("persistence.programs").files
    return PersistenceFacts(
        netplan=None if programs is None else bool(programs),
        networkmanager=running.get(_UNITS[0]),
        networkd=running.get(_UNITS[1]),
        ifupdown=running.get(_UNITS[2]),
        profiles=networkmanager.parse_profiles(profiles),
        networkd_files=networkd.parse_networkd(units),
        interfaces=ifupdown.parse_interfaces(stanzas),
    )
