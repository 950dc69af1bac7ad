"""Who configures a port after a boot: netplan, NetworkManager, networkd and ifupdown, each told from its own files."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from dspark_ops.facts.ifupdown import parse_interfaces
from dspark_ops.facts.netplan import NetplanFile, parse_netplan
from dspark_ops.facts.networkd import parse_networkd
from dspark_ops.facts.networkmanager import parse_profile, parse_profiles
from dspark_ops.facts.persistence import PersistenceFacts, owners_of, parse_managers, read_persistence
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import text

RAIL, MAC = "enp1s0f0np0", "02:00:00:00:01:10"
WANTED = IPv4Interface("10.77.0.1/24")
PROFILE = """\
# made with nmcli
[connection]
id=cx7-p0a
uuid=0e2a3a1c-7d3b-4a58-9d5e-111111111111
type=ethernet
interface-name=enp1s0f0np0

[ethernet]
mtu=9000

[ipv4]
address1=10.77.0.1/24
method=manual
never-default=true

[ipv6]
method=disabled
"""
UNIT = "[Match]\nName=enp1s0f0np0\n[Link]\nMTUBytes=9000\n[Network]\nAddress=10.77.0.1/24\nLinkLocalAddressing=no\n"
SYSTEM = "/etc/NetworkManager/system-connections"
NETPLAN_PROFILE = PROFILE.replace("id=cx7-p0a", "id=netplan-enp1s0f0np0")
OURS = """\
# Written by dspark-ops (role fabric). Do not edit.
network:
  version: 2
  ethernets:
    enp1s0f0np0: {addresses: [10.77.0.1/24], mtu: 9000, dhcp4: false, link-local: []}
"""


def facts(
    *, profiles: dict[str, str] | None = None, units: dict[str, str] | None = None, **managers: bool | None
) -> PersistenceFacts:
    """What a node has; every manager runs unless said otherwise."""
    return PersistenceFacts(
        networkmanager=managers.get("networkmanager", True),
        networkd=managers.get("networkd", True),
        ifupdown=managers.get("ifupdown", True),
        profiles=parse_profiles(profiles or {}),
        networkd_files=parse_networkd(units or {}),
    )


def netplan(*contents: str) -> tuple[NetplanFile, ...]:
    return tuple(parse_netplan(f"/etc/netplan/{40 + i}-x.yaml", content) for i, content in enumerate(contents))


def test_a_profile_made_with_nmcli_is_an_owner_that_gives_exactly_the_wanted() -> None:
    (owner,) = owners_of(RAIL, MAC, (), facts(profiles={f"{SYSTEM}/cx7-p0a.nmconnection": PROFILE})) or ()
    assert (owner.manager, owner.ours, owner.idle) == ("networkmanager", False, None)
    assert "cx7-p0a" in owner.label
    assert owner.gives == "gives 10.77.0.1/24, MTU 9000"
    assert owner.gives_exactly(WANTED, 9000)
    assert not owner.gives_exactly(WANTED, 1500)
    assert not owner.gives_exactly(IPv4Interface("10.77.0.1/16"), 9000)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("mtu=9000", "mtu=0"), "no MTU"),
        (("address1=10.77.0.1/24", "address1=10.77.0.1/24,10.77.0.254"), None),
        (("never-default=true", "gateway=10.77.0.254"), "a default route"),
        (("method=manual", "method=auto"), "DHCP"),
        (("method=manual", "method=link-local"), "link-local"),
        (("address1=10.77.0.1/24", "address1=10.77.0.1/24\naddress2=10.9.0.1/24"), "10.9.0.1/24"),
    ],
)
def test_a_profile_that_gives_anything_else_says_what(changed: tuple[str, str], says: str | None) -> None:
    content = PROFILE.replace(*changed)
    (owner,) = owners_of(RAIL, MAC, (), facts(profiles={f"{SYSTEM}/a.nmconnection": content})) or ()
    # never-default wins over a gateway, so that one alone stays as wanted.
    assert owner.gives_exactly(WANTED, 9000) is (says is None)
    assert says is None or says in owner.gives


def test_what_netplan_makes_for_networkmanager_is_no_second_owner() -> None:
    found = facts(
        profiles={"/run/NetworkManager/system-connections/netplan-enp1s0f0np0.nmconnection": NETPLAN_PROFILE},
        units={"/run/systemd/network/10-netplan-enp1s0f0np0.network": UNIT},
    )
    assert [o.manager for o in owners_of(RAIL, MAC, netplan(OURS), found) or ()] == ["netplan"]


def test_a_profile_beside_our_netplan_file_is_a_second_owner() -> None:
    found = facts(profiles={f"{SYSTEM}/cx7-p0a.nmconnection": PROFILE})
    owners = owners_of(RAIL, MAC, netplan(OURS), found) or ()
    assert [(o.manager, o.ours) for o in owners] == [("netplan", True), ("networkmanager", False)]


def test_a_profile_is_of_no_effect_where_networkmanager_does_not_run_or_it_does_not_connect() -> None:
    (owner,) = owners_of(RAIL, MAC, (), facts(profiles={f"{SYSTEM}/a": PROFILE}, networkmanager=False)) or ()
    assert owner.idle == "NetworkManager does not run"
    assert owner.dormant, "it would take the port the day NetworkManager runs"
    quiet = PROFILE.replace("type=ethernet", "type=ethernet\nautoconnect=false")
    (owner,) = owners_of(RAIL, MAC, (), facts(profiles={f"{SYSTEM}/a": quiet})) or ()
    assert (owner.idle, owner.dormant) == ("it does not connect by itself", False)


def test_a_profile_for_any_device_takes_a_port_only_where_none_names_it() -> None:
    wired = "[connection]\nid=Wired connection 1\ntype=802-3-ethernet\n[ipv4]\nmethod=auto\n"
    path = "/run/NetworkManager/system-connections/Wired connection 1.nmconnection"
    (alone,) = owners_of(RAIL, MAC, (), facts(profiles={path: wired})) or ()
    assert (alone.idle, alone.dhcp, alone.volatile) == (None, True, True)
    both = owners_of(RAIL, MAC, (), facts(profiles={path: wired, f"{SYSTEM}/cx7": PROFILE})) or ()
    assert {o.idle for o in both} == {None, "another profile names the port"}


def test_what_networkmanager_makes_up_steps_back_for_any_owner() -> None:
    path = "/run/NetworkManager/system-connections/Wired connection 2.nmconnection"
    made = "[connection]\nid=Wired connection 2\ntype=ethernet\nautoconnect-priority=-999\ninterface-name=enp1s0f0np0\n"
    found = facts(profiles={path: made + "[ipv4]\nmethod=auto\n"})
    (alone,) = owners_of(RAIL, MAC, (), found) or ()
    assert (alone.automatic, alone.idle, alone.dhcp) == (True, None, True)
    assert [o.idle for o in owners_of(RAIL, MAC, netplan(OURS), found) or ()] == [None, "the port has an owner"]


def test_netplan_files_have_no_effect_without_netplan() -> None:
    found = facts().model_copy(update={"netplan": False})
    (owner,) = owners_of(RAIL, MAC, netplan(OURS), found) or ()
    assert owner.idle == "netplan is not installed"


def test_a_file_that_only_names_the_port_is_silent() -> None:
    (owner,) = (
        owners_of(RAIL, MAC, netplan("network: {ethernets: {enp1s0f0np0: {dhcp4: no, optional: true}}}"), facts()) or ()
    )
    assert owner.silent
    assert not (owners_of(RAIL, MAC, netplan(OURS), facts()) or ())[0].silent


def test_profiles_match_by_mac_and_pattern_and_other_kinds_are_left_out() -> None:
    by_mac = PROFILE.replace("interface-name=enp1s0f0np0\n", "").replace(
        "mtu=9000", f"mac-address={MAC.upper()}\nmtu=9000"
    )
    profile = parse_profile("/etc/x", by_mac)
    assert profile is not None
    assert profile.covers("any", MAC)
    assert not profile.covers("any", "02:00:00:00:01:11")
    assert not profile.covers("any", None)
    pattern = parse_profile(
        "/etc/x", PROFILE.replace("interface-name=enp1s0f0np0", "") + "[match]\ninterface-name=enp1*;\n"
    )
    assert pattern is not None
    assert pattern.covers(RAIL, None)
    assert not pattern.covers("enP2p1s0f0np0", None)
    wifi = "[connection]\nid=home\ntype=wifi\n[wifi-security]\npsk=S3CRET\n"
    assert parse_profile("/etc/x", wifi) is None


def test_networkd_takes_the_first_file_by_name_and_its_drop_ins() -> None:
    files = {
        "/etc/systemd/network/20-cx7.network": UNIT,
        "/etc/systemd/network/20-cx7.network.d/mtu.conf": "[Link]\nMTUBytes=1500\n",
        "/usr/lib/systemd/network/99-all.network": "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
    }
    first, last = owners_of(RAIL, MAC, (), facts(units=files)) or ()
    assert (first.mtu, first.addresses, first.idle, first.maker) == (1500, ("10.77.0.1/24",), None, "foreign")
    assert last.idle == "/etc/systemd/network/20-cx7.network comes first"
    assert last.dhcp
    assert [o.idle for o in owners_of("enP7s7", None, (), facts(units=files)) or ()] == [None]


def test_a_networkd_file_that_sorts_before_netplans_takes_the_port_from_it() -> None:
    run = {"/run/systemd/network/10-netplan-enp1s0f0np0.network": UNIT}
    early = {**run, "/etc/systemd/network/05-x.network": "[Match]\nName=enp1s0f0np0\n[Link]\nUnmanaged=yes\n"}
    late = {**run, "/etc/systemd/network/50-x.network": UNIT}
    by_netplan = netplan(OURS)
    assert [o.idle for o in owners_of(RAIL, MAC, by_netplan, facts(units=early)) or ()] == [None, None]
    assert (owners_of(RAIL, MAC, by_netplan, facts(units=early)) or ())[1].gives == "takes the port away from networkd"
    shadowed = (owners_of(RAIL, MAC, by_netplan, facts(units=late)) or ())[1]
    assert shadowed.idle == "/run/systemd/network/10-netplan-enp1s0f0np0.network comes first"


def test_a_networkd_file_of_etc_hides_one_of_its_name_and_an_empty_one_masks_it() -> None:
    vendor = {"/usr/lib/systemd/network/80-wired.network": "[Match]\nType=ether\n[Network]\nDHCP=yes\n"}
    assert [f.path for f in parse_networkd(vendor)] == ["/usr/lib/systemd/network/80-wired.network"]
    assert parse_networkd({**vendor, "/etc/systemd/network/80-wired.network": ""}) == ()
    (own,) = parse_networkd({**vendor, "/etc/systemd/network/80-wired.network": UNIT})
    assert own.mtu == 9000


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ("Name=enp1s0f0np0", True),
        ("Name=en* eth*", True),
        ("Name=!enp*", False),
        ("Name=!wl* ww*", True),
        ("Name=wlP9s9", False),
        (f"MACAddress={MAC.upper()}", True),
        ("MACAddress=02:00:00:00:ff:ff", False),
        ("Type=ether", True),
        ("Type=wlan", False),
        ("Kind=veth\nName=host0", False),
        ("Virtualization=container", False),
    ],
)
def test_a_networkd_match(match: str, fits: bool) -> None:
    (file,) = parse_networkd({"/etc/systemd/network/a.network": f"[Match]\n{match}\n"})
    assert file.covers(RAIL, MAC) is fits


def test_interfaces_stanzas() -> None:
    content = (
        "auto lo\niface lo inet loopback\n\n# rail\nauto enp1s0f0np0\niface enp1s0f0np0 inet static\n"
        "  address 10.77.0.1\n  netmask 255.255.255.0\n  mtu 9000\niface enp1s0f1np1 inet dhcp\n"
    )
    stanzas = parse_interfaces({"/etc/network/interfaces": content})
    found = PersistenceFacts(interfaces=stanzas, ifupdown=True)
    (owner,) = owners_of(RAIL, MAC, (), found) or ()
    assert owner.gives_exactly(WANTED, 9000)
    (lease,) = owners_of("enp1s0f1np1", None, (), found) or ()
    assert lease.dhcp
    (idle,) = owners_of(RAIL, MAC, (), found.model_copy(update={"ifupdown": False})) or ()
    assert idle.idle == "ifupdown does not run"


def test_netplan_devices_by_pattern_mac_and_set_name() -> None:
    content = """\
network:
  ethernets:
    rails: {match: {name: "enp1s0f*"}, mtu: 9000}
    lan: {match: {macaddress: "02:00:00:00:01:02"}, dhcp4: true}
    named: {match: {macaddress: "02:00:00:00:01:99"}, set-name: eth9, gateway4: 10.0.0.1}
"""
    (file,) = netplan(content)
    assert file.device(RAIL) is not None
    assert file.device("enP2p1s0f0np0") is None
    lan = file.device("enP7s7", "02:00:00:00:01:02")
    assert lan is not None
    assert lan.dhcp4
    assert file.device("enP7s7", "02:00:00:00:01:03") is None
    named = file.device("eth9")
    assert named is not None
    assert named.gateway
    assert file.device("lan") is None, "an id is no device name when something else matches"


MARKS = {
    "dspark-ops": OURS,
    "sparkrun": "# Auto-generated by sparkrun on 2026-10-01T08:00:00Z\n" + text("netplan/mtu9000-one-cable.yaml"),
    "cloud-init": "# This file is generated from information provided by the datasource. To disable cloud-init's\n"
    "# network configuration capabilities, write a file\nnetwork: {version: 2, ethernets: {enP7s7: {dhcp4: true}}}\n",
    "installer": "# This is the network config written by 'subiquity'\nnetwork: {ethernets: {enP7s7: {dhcp4: true}}}\n",
    "networkmanager": "network: {ethernets: {NM-1: {match: {name: enp1s0f0np0}, networkmanager: {uuid: 1}}}}\n",
    "spark-vllm-docker": text("netplan/foreign-98-spark-vllm-docker.yaml"),
    "nvidia": text("netplan/nvidia-option1-node1.yaml"),
    "foreign": text("netplan/mtu9000-one-cable.yaml"),
}


@pytest.mark.parametrize("maker", MARKS)
def test_the_tool_is_told_by_the_content_whatever_the_file_is_called(maker: str) -> None:
    for path in ("/etc/netplan/40-cx7.yaml", "/etc/netplan/zz.yaml"):
        assert parse_netplan(path, MARKS[maker]).owner == maker


def test_the_name_tells_only_where_the_content_does_not() -> None:
    plain = "network: {ethernets: {enp1s0f0np0: {mtu: 9000}}}\n"
    assert parse_netplan("/etc/netplan/50-cloud-init.yaml", plain).owner == "cloud-init"
    assert parse_netplan("/etc/netplan/50-cloud-init.yaml", MARKS["sparkrun"]).owner == "sparkrun"


def test_managers() -> None:
    shown = "Id=NetworkManager.service\nActiveState=inactive\n\nId=systemd-networkd.service\nActiveState=active\n"
    assert parse_managers(shown) == {"NetworkManager.service": False, "systemd-networkd.service": True}
    assert parse_managers(None) == {}


def test_without_root_the_owners_are_unknown_and_not_nobody() -> None:
    names = ("persistence.profiles", "persistence.networkd", "persistence.interfaces")
    results = {name: ProbeResult(id=name, files={}) for name in names}
    reading = NodeReading(node="head", reachable=True, user="nvidia", sudo=False, results=results)
    assert read_persistence(reading) is None
    seen = read_persistence(reading.model_copy(update={"sudo": True}))
    assert seen is not None
    assert seen.networkmanager is None
    assert owners_of(RAIL, MAC, (), seen) == ()
    assert owners_of(RAIL, MAC, None, seen) is None
    assert owners_of(RAIL, MAC, (), None) is None


def test_a_password_of_a_wireless_profile_never_reaches_the_facts() -> None:
    wifi = "[connection]\nid=home\ntype=wifi\n[wifi-security]\npsk=S3CRET\n"
    dot1x = PROFILE + "[802-1x]\npassword=S3CRET\n"
    results = {
        "persistence.profiles": ProbeResult(id="p", files={f"{SYSTEM}/home": wifi, f"{SYSTEM}/cx7": dot1x}),
        "persistence.networkd": ProbeResult(id="n", files={}),
        "persistence.interfaces": ProbeResult(id="i", files={}),
    }
    reading = NodeReading(node="head", reachable=True, user="root", results=results)
    seen = read_persistence(reading)
    assert seen is not None
    assert [p.id for p in seen.profiles] == ["cx7-p0a"]
    assert "S3CRET" not in seen.model_dump_json()
