"""The live state: what counts as the same, what does not, and in which words it is put back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.roles.conftest import PLAYBOOKS, load

live = load(PLAYBOOKS / "module_utils" / "dspark_fabric_live.py", "fabric_live")

ROUTES = """\
default via 192.168.1.1 dev enP7s7 proto dhcp src 192.168.1.44 metric 100
default proto static metric 50 \\\tnexthop via 10.1.0.1 dev a weight 1 \\\tnexthop via 10.2.0.1 dev b weight 1 linkdown
10.77.0.0/24 dev enp1s0f0np0 proto kernel scope link src 10.77.0.1
172.16.0.0/12 via 192.168.1.2 dev enP7s7 onlink
blackhole 10.9.0.0/16
"""


def address(text: str, **more: Any) -> dict[str, Any]:
    told = {"address": text, "scope": "global", "lifetime_s": None, "broadcast": None, "prefix_route": True}
    return {**told, **more}


def state(*addresses: dict[str, Any], routes: tuple[str, ...] = ("default via 192.168.1.1 dev mgmt",)) -> Any:
    link = {"mtu": 1500, "up": True, "addresses": list(addresses), "sysctls": {}}
    return {"links": {"mgmt": link}, "routes": list(routes), "services": []}


WAS = state(address("192.168.1.44/24", lifetime_s=3600), address("fe80::1/64", scope="link"))


def test_routes_are_kept_in_words_that_ip_takes_and_kernel_ones_come_with_their_address() -> None:
    assert live._routes(ROUTES) == [
        "172.16.0.0/12 via 192.168.1.2 dev enP7s7 onlink",
        "blackhole 10.9.0.0/16",
        "default proto static metric 50 nexthop via 10.1.0.1 dev a weight 1 nexthop via 10.2.0.1 dev b weight 1",
        "default via 192.168.1.1 dev enP7s7 proto dhcp src 192.168.1.44 metric 100",
    ]


def test_the_same_state_has_no_differences_whatever_a_router_or_a_lease_renewed() -> None:
    now = copy.deepcopy(WAS)
    now["links"]["mgmt"]["addresses"][0]["lifetime_s"] = 3000
    now["links"]["mgmt"]["addresses"].append(address("2001:db8::5/64", lifetime_s=600))
    now["links"]["new0"] = now["links"]["mgmt"]
    now["routes"].append("10.5.0.0/16 via 192.168.1.9 dev mgmt")
    assert live.differences(WAS, {}, [], now) == []
    assert live.differences(WAS, {}, ["mgmt"], now) == ["the route `10.5.0.0/16 via 192.168.1.9 dev mgmt` is left over"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda s: s["links"].pop("mgmt"), "mgmt is gone"),
        (lambda s: s["links"]["mgmt"].update(mtu=9000), "mgmt has MTU 9000, it had 1500"),
        (lambda s: s["links"]["mgmt"].update(up=False), "mgmt is down, it was up"),
        (lambda s: s["links"]["mgmt"]["addresses"].pop(0), "mgmt lacks 192.168.1.44/24"),
        (lambda s: s["links"]["mgmt"]["addresses"].pop(1), "mgmt lacks fe80::1/64"),
        (lambda s: s["links"]["mgmt"]["addresses"].append(address("10.77.0.1/24")), "mgmt still has 10.77.0.1/24"),
        (lambda s: s["routes"].clear(), "the route `default via 192.168.1.1 dev mgmt` is missing"),
    ],
)
def test_every_harm_is_named(harm: Any, words: str) -> None:
    now = copy.deepcopy(WAS)
    harm(now)
    assert live.differences(WAS, {"mgmt": ["10.77.0.1/24"]}, [], now) == [words]


def test_a_lease_does_not_outlive_itself_because_we_put_it_back() -> None:
    words = live._words(address("192.168.1.44/24", lifetime_s=3600, broadcast="192.168.1.255"))
    assert " ".join(words) == "scope global valid_lft 3600 preferred_lft 3600 broadcast 192.168.1.255"
    assert live._words(address("fe80::1/64", scope="link", prefix_route=False)) == ["scope", "link", "noprefixroute"]


@pytest.mark.parametrize(("name", "master", "ours"), [("enP7s7", None, True), ("bond0", None, True)])
def test_ports_of_containers_are_nobodys_business(name: str, master: str | None, ours: bool) -> None:
    assert live._of_a_container({"ifname": name, "master": master}) is not ours
    for other in ({"ifname": "veth12"}, {"ifname": "docker0"}, {"ifname": name, "master": "br-0123456789ab"}):
        assert live._of_a_container(other)


@given(st.text(max_size=300))
def test_any_text_of_routes_is_read_without_an_accident(text: str) -> None:
    assert all("proto kernel" not in route for route in live._routes(text))
