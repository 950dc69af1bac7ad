"""Pairing and addresses: what is plugged decides, sound addresses stay, nothing overlaps, doubt is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import RefusedError
from dspark_ops.fabric.ports import FabricPort
from dspark_ops.fabric.rails import (
    PortPair,
    UsedNetwork,
    pair_ports,
    plan_addresses,
)

Node = Callable[..., Any]

BARE = (
    FabricPort("enp1s0f0np0", 0, "A", False, "rocep1s0f0"),
    FabricPort("enP2p1s0f0np0", 0, "B", False, "roceP2p1s0f0"),
    FabricPort("enp1s0f1np1", 1, "A", False, "rocep1s0f1"),
    FabricPort("enP2p1s0f1np1", 1, "B", False, "roceP2p1s0f1"),
)


def plugged(*cages: int) -> tuple[FabricPort, ...]:
    return tuple(replace(port, carrier=port.cage in cages) for port in BARE)


def names(pairs: tuple[PortPair, ...]) -> list[tuple[str, str]]:
    return [(pair.head.netdev, pair.worker.netdev) for pair in pairs]


def test_two_cables_make_four_rails_with_the_addresses_in_place(node: Node) -> None:
    head, head_used = node("two-cables-ok", "head")
    worker, worker_used = node("two-cables-ok", "worker", shift=1)
    pairing = pair_ports(head, worker)
    plan = plan_addresses(pairing.pairs, [*head_used, *worker_used])
    assert [rail.name for rail in plan.rails] == ["p0a", "p0b", "p1a", "p1b"]
    assert plan.adopted == ("p0a", "p0b", "p1a", "p1b")
    assert {rail.head.netdev: str(rail.head.address) for rail in plan.rails} == {
        "enp1s0f0np0": "10.77.0.1/24",
        "enP2p1s0f0np0": "10.77.2.1/24",
        "enp1s0f1np1": "10.77.1.1/24",
        "enP2p1s0f1np1": "10.77.3.1/24",
    }
    assert str(plan.rails[3].worker.address) == "10.77.3.2/24"
    assert plan.notes == pairing.notes == ()


def test_one_cable_makes_two_rails_over_both_halves(node: Node) -> None:
    head, head_used = node("p1-ok", "head")
    worker, worker_used = node("p1-ok", "worker", shift=1)
    plan = plan_addresses(pair_ports(head, worker).pairs, [*head_used, *worker_used])
    assert [(rail.name, rail.head.hca, str(rail.worker.address)) for rail in plan.rails] == [
        ("p1a", "rocep1s0f1", "192.168.100.11/24"),
        ("p1b", "roceP2p1s0f1", "192.168.101.11/24"),
    ]


def test_one_crossed_cable_is_paired_with_a_note(node: Node) -> None:
    head, _ = node("cross-cage", "head", side="head")
    worker, _ = node("cross-cage", "worker", side="worker")
    pairing = pair_ports(head, worker)
    assert names(pairing.pairs) == [("enp1s0f1np1", "enp1s0f0np0"), ("enP2p1s0f1np1", "enP2p1s0f0np0")]
    assert "crossed: cage 1 of the head faces cage 0 of the worker" in pairing.notes[0]


def test_twins_in_one_subnet_get_a_subnet_each(node: Node) -> None:
    head, head_used = node("same-subnet-bad", "head")
    worker, worker_used = node("same-subnet-bad", "worker", shift=1)
    plan = plan_addresses(pair_ports(head, worker).pairs, [*head_used, *worker_used])
    assert plan.adopted == ()
    assert [str(rail.head.address) for rail in plan.rails] == ["10.77.0.1/24", "10.77.1.1/24"]
    assert any("192.168.100.10/24, not kept" in note for note in plan.notes)


def test_a_rail_in_the_management_network_is_moved(node: Node) -> None:
    head, head_used = node("overlap-mgmt-bad", "head")
    worker, worker_used = node("overlap-mgmt-bad", "worker", shift=1)
    plan = plan_addresses(pair_ports(head, worker).pairs, [*head_used, *worker_used])
    assert plan.adopted == ("p1b",)
    assert [str(rail.head.address) for rail in plan.rails] == ["10.77.0.1/24", "192.168.2.10/24"]


def test_two_addresses_on_an_end_are_not_guessed_between(node: Node) -> None:
    head, head_used = node("duplicate-address-bad", "head")
    worker, worker_used = node("duplicate-address-bad", "worker", shift=20)
    plan = plan_addresses(pair_ports(head, worker).pairs, [*head_used, *worker_used])
    assert plan.adopted == ()
    assert any("192.168.100.10/24, 192.168.177.11/24, not kept" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("head", "worker", "part"),
    [
        (plugged(), plugged(), "no fabric port has carrier on either node"),
        (plugged(0), plugged(), "worker: enp1s0f0np0 (cage 0) no carrier"),
        (plugged(0, 1), plugged(1), "the plugged cages differ"),
        ((), plugged(0), "head: no ConnectX-7 port was found"),
        (tuple(replace(p, carrier=None) for p in BARE), plugged(0), "enp1s0f0np0 (cage 0) carrier unknown"),
    ],
)
def test_doubt_is_refused_with_what_was_seen(
    head: tuple[FabricPort, ...], worker: tuple[FabricPort, ...], part: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        pair_ports(head, worker)
    assert part in caught.value.message
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_a_twin_without_carrier_still_makes_a_rail_and_is_named() -> None:
    head = tuple(replace(p, carrier=p.netdev == "enp1s0f0np0") for p in BARE)
    pairing = pair_ports(head, plugged(0))
    assert names(pairing.pairs)[1] == ("enP2p1s0f0np0", "enP2p1s0f0np0")
    assert pairing.notes == ("no carrier on head enP2p1s0f0np0, though its twin has one: check the cable",)


def test_a_missing_half_is_named() -> None:
    pairing = pair_ports(tuple(p for p in plugged(0) if p.half == "A"), plugged(0))
    assert names(pairing.pairs) == [("enp1s0f0np0", "enp1s0f0np0")]
    assert "head: cage 0 shows no port on PCIe half B" in pairing.notes[0]


def test_two_crossed_cables_show_in_the_addresses_alone() -> None:
    def addressed(ports: tuple[FabricPort, ...], *third: int, last: int) -> tuple[FabricPort, ...]:
        return tuple(
            replace(p, addresses=(IPv4Interface(f"10.9.{n}.{last}/24"),)) for p, n in zip(ports, third, strict=True)
        )

    head = addressed(plugged(0, 1), 0, 1, 2, 3, last=1)
    pairing = pair_ports(head, addressed(plugged(0, 1), 2, 3, 0, 1, last=2))
    assert names(pairing.pairs)[0] == ("enp1s0f0np0", "enp1s0f1np1")
    assert "crossed" in pairing.notes[0]
    straight = pair_ports(head, addressed(plugged(0, 1), 0, 1, 2, 3, last=2))
    assert names(straight.pairs)[0] == ("enp1s0f0np0", "enp1s0f0np0")


def test_a_full_default_supernet_falls_back_and_says_so() -> None:
    used = [UsedNetwork(IPv4Network("10.0.0.0/8"), "head", "route through tun0", "tun0")]
    plan = plan_addresses(pair_ports(plugged(0), plugged(0)).pairs, used)
    assert str(plan.rails[0].head.address) == "172.29.0.1/24"
    assert "172.29.0.0/16, because 10.77.0.0/16 overlaps" in plan.notes[0]


def test_no_free_subnet_is_refused_with_what_is_in_use() -> None:
    used = [UsedNetwork(IPv4Network("10.77.0.0/16"), "worker", "route through br-1", "br-1")]
    with pytest.raises(RefusedError, match=r"2 free /24 .* worker route through br-1 10\.77\.0\.0/16") as caught:
        plan_addresses(pair_ports(plugged(0), plugged(0)).pairs, used, [IPv4Network("10.77.0.0/16")])
    assert "--supernet" in (caught.value.hint or "")


def addresses() -> st.SearchStrategy[tuple[IPv4Interface, ...]]:
    one = st.builds(
        lambda third, last, prefix: IPv4Interface(f"10.77.{third}.{last}/{prefix}"),
        st.integers(0, 6),
        st.integers(0, 255),
        st.integers(20, 32),
    )
    return st.lists(one, max_size=2).map(tuple)


@given(
    ends=st.lists(st.tuples(addresses(), addresses()), min_size=4, max_size=4),
    busy=st.lists(st.tuples(st.integers(0, 40), st.integers(18, 32)), max_size=8),
)
def test_chosen_addresses_never_overlap_anything(
    ends: list[tuple[tuple[IPv4Interface, ...], tuple[IPv4Interface, ...]]], busy: list[tuple[int, int]]
) -> None:
    """Rails among each other, and every rail against all that was seen elsewhere on either node."""
    head = tuple(replace(p, addresses=e[0]) for p, e in zip(plugged(0, 1), ends, strict=True))
    worker = tuple(replace(p, addresses=e[1]) for p, e in zip(plugged(0, 1), ends, strict=True))
    used = [
        UsedNetwork(IPv4Network((f"10.77.{third}.0", prefix), strict=False), "head", "route", "enP7s7")
        for third, prefix in busy
    ]
    used += [UsedNetwork(a.network, "head", "address", p.netdev) for p in head for a in p.addresses]
    used += [UsedNetwork(a.network, "worker", "address", p.netdev) for p in worker for a in p.addresses]
    try:
        plan = plan_addresses(pair_ports(head, worker).pairs, used)
    except RefusedError:
        pytest.fail("three supernets cannot be full here")
    networks = [rail.head.address.network for rail in plan.rails]
    assert not [(a, b) for a, b in combinations(networks, 2) if a.overlaps(b)]
    for rail in plan.rails:
        assert rail.head.address.network == rail.worker.address.network
        assert rail.head.address.ip != rail.worker.address.ip
        own = {("head", rail.head.netdev), ("worker", rail.worker.netdev)}
        for item in used:
            if (item.role, item.netdev) not in own:
                assert not rail.head.address.network.overlaps(item.network), (rail, item)
