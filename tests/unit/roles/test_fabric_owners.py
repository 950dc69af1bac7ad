"""Who else configures a rail: networkd's files and NetworkManager's profiles, and our own texts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.roles.conftest import PLAYBOOKS, load

owners = load(PLAYBOOKS / "module_utils" / "dspark_fabric_owners.py", "fabric_owners")
files = load(PLAYBOOKS / "module_utils" / "dspark_fabric_files.py", "fabric_files")
control = load(PLAYBOOKS / "module_utils" / "dspark_fabric_control.py", "fabric_control")
rules = load(PLAYBOOKS / "module_utils" / "dspark_netplan_rules.py", "netplan_rules")

PORT, MAC = "enp1s0f0np0", "02:00:00:00:00:01"
RAIL = rules.Rail("p0a", PORT, "10.77.0.1/24", 9000)
OTHER = rules.Rail("p0b", "enP2p1s0f0np0", "10.77.1.1/24", 9000)
ETC = "/etc/systemd/network"
EXACT = f"[Match]\nName={PORT}\n[Link]\nMTUBytes=9000\n[Network]\nAddress=10.77.0.1/24\nDHCP=no\n"
PROFILE = f"""[connection]
id=rail
type=ethernet
interface-name={PORT}

[ethernet]
mtu=9000

[ipv4]
address1=10.77.0.1/24
method=manual
never-default=true

[ipv6]
method=disabled
"""


def networkd(text: str, name: str = "20-rail.network", ours: str = "09-dspark-fabric-x.network") -> Any:
    return owners.networkd_claim({f"{ETC}/{name}": text}, RAIL, MAC, ours=ours)


def profile(text: str) -> Any:
    return owners.profile_claim({"/etc/NetworkManager/system-connections/rail.nmconnection": text}, RAIL, MAC)


def test_our_netplan_file_byte_for_byte() -> None:
    text = files.netplan_text([RAIL, OTHER])
    rail = {"mtu": 9000, "dhcp4": False, "dhcp6": False, "accept-ra": False, "link-local": [], "optional": True}
    assert yaml.safe_load(text) == {
        "network": {
            "version": 2,
            "ethernets": {
                PORT: {"addresses": ["10.77.0.1/24"], **rail},
                OTHER.netdev: {"addresses": ["10.77.1.1/24"], **rail},
            },
        }
    }
    assert text.startswith("# Written by dspark-ops")
    assert "Do not edit" in text.splitlines()[0]
    assert all(line == line.rstrip() for line in text.splitlines())
    assert files.netplan_text([]) == ""


def test_what_we_write_is_what_we_would_adopt() -> None:
    """The rules and the texts agree on what a rail needs: our own text, found in another file, is no conflict."""
    found = rules.ownership(
        [RAIL, OTHER], {"/etc/netplan/10-copy.yaml": yaml.safe_load(files.netplan_text([RAIL]))}, {}
    )
    assert (found.own, set(found.adopted), found.conflicts) == ((OTHER.netdev,), {PORT}, ())
    claim = networkd(files.networkd_text(RAIL))
    assert (claim.source, claim.reasons) == (f"{ETC}/20-rail.network", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXACT.replace("9000", "1500"), "mtu 1500 instead of 9000"),
        (EXACT.replace("MTUBytes=9000\n", ""), "mtu unset"),
        (EXACT + "Address=10.9.9.9/24\n", "10.9.9.9/24"),
        (EXACT.replace("DHCP=no", "DHCP=yes"), "DHCP=yes"),
        (EXACT + "Gateway=10.77.0.254\n", "Gateway=10.77.0.254"),
        (EXACT + "[Route]\nDestination=0.0.0.0/0\n", "[Route] Destination"),
        (EXACT.replace("[Network]", "[Network]\nBond=bond0"), "Bond=bond0"),
        (f"[Match]\nName={PORT}\n[Link]\nUnmanaged=yes\n", "[Link] Unmanaged"),
        (EXACT.replace(f"Name={PORT}", f"MACAddress={MAC.upper()}").replace("9000", "1500"), "mtu 1500"),
    ],
)
def test_another_networkd_file_that_gives_anything_else_is_a_conflict(text: str, words: str) -> None:
    claim = networkd(text)
    assert words in claim.sentence()
    assert f"{ETC}/20-rail.network" in claim.sentence()


@pytest.mark.parametrize("match", ["Name=eth0", "Name=!enp*", "MACAddress=02:00:00:00:00:99", "Type=wlan"])
def test_a_networkd_file_of_another_port_is_no_claim(match: str) -> None:
    assert networkd(f"[Match]\n{match}\n[Network]\nDHCP=yes\n") is None


def test_networkd_takes_the_first_file_that_matches() -> None:
    catch_all = "[Match]\nName=en*\n[Network]\nDHCP=yes\n"
    # A distribution's catch-all that sorts after ours is no obstacle; one before ours would win.
    assert networkd(catch_all, "80-wired.network") is None
    assert "DHCP=yes" in networkd(catch_all, "05-wired.network").sentence()
    assert networkd(catch_all, "09-dspark-fabric-enp9.network") is None
    assert networkd(catch_all, "10-netplan-enp9.network", ours="10-netplan-x.network") is None
    # Of one name, /etc wins.
    both = {"/usr/lib/systemd/network/05-a.network": catch_all, f"{ETC}/05-a.network": ""}
    assert owners.networkd_claim(both, RAIL, MAC, ours="09-dspark-fabric-x.network") is None


def test_a_profile_that_gives_exactly_what_is_wanted_is_adopted() -> None:
    claim = profile(PROFILE)
    assert (claim.source, claim.reasons) == (
        "the NetworkManager profile 'rail' (/etc/NetworkManager/system-connections/rail.nmconnection)",
        (),
    )
    by_mac = PROFILE.replace(f"interface-name={PORT}", "").replace("mtu=9000", f"mtu=9000\nmac-address={MAC.upper()}")
    assert profile(by_mac).reasons == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("method=manual", "method=auto", "ipv4 method auto"),
        ("10.77.0.1/24", "10.77.0.9/24", "addresses 10.77.0.9/24 instead of"),
        ("10.77.0.1/24", "10.77.0.1/24,10.77.0.254", "gateway"),
        ("mtu=9000", "", "mtu unset"),
        ("method=disabled", "method=auto", "ipv6 method auto"),
        ("type=ethernet", "type=ethernet\nmaster=bond0", "part of another interface"),
    ],
)
def test_a_profile_that_gives_anything_else_is_a_conflict(old: str, new: str, words: str) -> None:
    assert words in profile(PROFILE.replace(old, new)).sentence()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"interface-name={PORT}", "interface-name=enP7s7"),
        ("[ethernet]", "[x]"),
        ("id=rail", "id=rail\nautoconnect=false"),
    ],
)
def test_a_profile_that_does_not_take_the_rail_by_itself_is_no_claim(old: str, new: str) -> None:
    text = PROFILE.replace(old, new)
    if old == "[ethernet]":
        text = text.replace(f"interface-name={PORT}", "")
    assert profile(text) is None


def test_netplans_own_profiles_are_no_claim() -> None:
    assert owners.profile_claim({"/run/NetworkManager/system-connections/netplan-a": PROFILE}, RAIL, MAC) is None


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_accident(text: str) -> None:
    for head in ("", f"[Match]\nName={PORT}\n", f"[connection]\ninterface-name={PORT}\n"):
        owners.networkd_claim({f"{ETC}/20-x.network": head + text}, RAIL, MAC, ours="09-x")
        profile(head + text)


@pytest.mark.parametrize(
    ("netdev", "address", "check"),
    [
        ("mgmt", "10.77.0.1/24", "fabric.management_port"),
        (PORT, "192.168.9.100/25", "fabric.management_subnet"),
        (PORT, "192.168.9.130/25", "fabric.management_subnet"),
        (PORT, "10.77.0.1/24", None),
    ],
)
def test_the_control_hosts_way_is_left_alone(netdev: str, address: str, check: str | None) -> None:
    links = {"mgmt": rules.Link("mgmt", MAC, 1500, True, None, ("192.168.9.7/24", "fe80::1/64"))}
    rail = rules.Rail("p0a", netdev, address, 9000)
    found = control.management_conflicts([rail], links, "192.168.9.1", "mgmt")
    assert [problem.endswith(f"[{check}]") for problem in found] == ([True] if check else [])
    # Nobody's session, as under a timer: nothing to guard.
    assert control.management_conflicts([rail], links, None, None) == []
