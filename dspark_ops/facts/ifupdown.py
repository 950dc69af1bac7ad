"""/etc/network/interfaces: the stanzas of ifupdown, where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_interface

from dspark_ops.facts.model import Fact, whole_number
from dspark_ops.transport.base import Files, Probe

PROBES: tuple[Probe, ...] = (
    Files("persistence.interfaces", ("/etc/network/interfaces", "/etc/network/interfaces.d/*"), root=True),
)


class InterfacesStanza(Fact):
    """One `iface` stanza: the device, the method (static, dhcp, manual) and what it gives."""

    path: str
    name: str
    method: str
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    gateway: bool = False


def parse_interfaces(files: Mapping[str, str]) -> tuple[InterfacesStanza, ...]:
    """Every `iface NAME inet METHOD` of the files, in their order."""
    return tuple(stanza for path in sorted(files) for stanza in _stanzas(path, files[path]))


def _stanzas(path: str, content: str) -> list[InterfacesStanza]:
    found: list[InterfacesStanza] = []
    name, method, options = "", "", {"": ""}

    def close() -> None:
        if name:
            found.append(_stanza(path, name, method, options))

    for raw in content.splitlines():
        words = raw.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("iface", "auto", "mapping", "source", "source-directory") or words[0].startswith("allow-"):
            close()
            is_stanza = words[0] == "iface" and len(words) == 4 and words[2] in ("inet", "inet6")
            name, method, options = (words[1], words[3], {}) if is_stanza else ("", "", {})
        elif name and len(words) > 1:
            options.setdefault(words[0], words[1])
    close()
    return found


def _stanza(path: str, name: str, method: str, options: Mapping[str, str]) -> InterfacesStanza:
    address = options.get("address")
    if address is not None and "/" not in address and "netmask" in options:
        address = f"{address}/{options['netmask']}"
    try:
        addresses = () if address is None else (str(ip_interface(address)),)
    except ValueError:
        addresses = ()
    return InterfacesStanza(
        path=path,
        name=name,
        method=method,
        addresses=addresses,
        mtu=whole_number(options.get("mtu")),
        gateway="gateway" in options,
    )
