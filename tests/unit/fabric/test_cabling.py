"""Which cage faces which: what the ports saw decides, doubt and contradiction are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.config.models import Role
from dspark_ops.errors import RefusedError
from dspark_ops.fabric.cabling import Sighting, sightings
from dspark_ops.fabric.ports import FabricPort
from dspark_ops.fabric.rails import Pairing, pair_ports
from dspark_ops.facts.neighbours import EchoFacts, LldpFacts, NeighbourFacts

NAMES = {(0, "A"): "enp1s0f0np0", (0, "B"): "enP2p1s0f0np0", (1, "A"): "enp1s0f1np1", (1, "B"): "enP2p1s0f1np1"}


def node(number: int, *up: int) -> tuple[FabricPort, ...]:
    """The four ports of node 1 or 2, with a carrier in the given cages."""
    return tuple(
        FabricPort(
            name,
            cage,
            "A" if half == "A" else "B",
            cage in up,
            name.replace("en", "roce", 1).removesuffix(f"np{cage}"),
            mac=f"02:00:00:00:0{number}:{cage}{'1' if half == 'A' else '5'}",
            link_local=(IPv6Address(f"fe80::{number}:{cage}{1 if half == 'A' else 5}"),),
        )
        for (cage, half), name in NAMES.items()
    )


@dataclass(frozen=True)
class Saw:
    """What one node reports."""

    echoes: tuple[EchoFacts, ...] | None = None
    neighbours: tuple[NeighbourFacts, ...] | None = None
    lldp: tuple[LldpFacts, ...] | None = None


def port(ports: Sequence[FabricPort], cage: int, half: str = "A") -> FabricPort:
    return next(p for p in ports if (p.cage, p.half) == (cage, half))


def echo(ports: Sequence[FabricPort], cage: int, *heard: FabricPort) -> EchoFacts:
    return EchoFacts(device=port(ports, cage).netdev, responders=tuple(p.link_local[0] for p in heard))


def neighbour(ports: Sequence[FabricPort], cage: int, far: FabricPort, *, fresh: bool = True) -> NeighbourFacts:
    assert far.mac is not None
    return NeighbourFacts(device=port(ports, cage).netdev, address=IPv4Address("10.77.0.2"), mac=far.mac, fresh=fresh)


def paired(
    head: Sequence[FabricPort], worker: Sequence[FabricPort], at_head: Saw, at_worker: Saw | None = None
) -> Pairing:
    ports: dict[Role, Sequence[FabricPort]] = {"head": head, "worker": worker}
    return pair_ports(head, worker, sightings(ports, {"head": at_head, "worker": at_worker or Saw()}))


def cables(pairing: Pairing) -> list[tuple[int, int]]:
    return [(cable.head_cage, cable.worker_cage) for cable in pairing.cables]


HEAD, WORKER = node(1, 0, 1), node(2, 0, 1)


@pytest.mark.parametrize(
    "saw",
    [
        Saw(echoes=(echo(HEAD, 0, port(WORKER, 1)),)),
        Saw(neighbours=(neighbour(HEAD, 0, port(WORKER, 1)),)),
        Saw(lldp=(LldpFacts(device="enp1s0f0np0", chassis="spark-b", port="enp1s0f1np1"),)),
        Saw(lldp=(LldpFacts(device="enp1s0f0np0", port=port(WORKER, 1, "B").mac),)),
    ],
    ids=["echo", "neighbour", "lldp by name", "lldp by address"],
)
def test_one_port_that_sees_the_other_cage_shows_that_both_cables_are_crossed(saw: Saw) -> None:
    pairing = paired(HEAD, WORKER, saw)
    assert cables(pairing) == [(0, 1), (1, 0)]
    assert "crossed" in " ".join(pairing.notes)
    joined = {(p.head.netdev, p.worker.netdev) for p in pairing.pairs}
    assert joined == {
        ("enp1s0f0np0", "enp1s0f1np1"),
        ("enP2p1s0f0np0", "enP2p1s0f1np1"),
        ("enp1s0f1np1", "enp1s0f0np0"),
        ("enP2p1s0f1np1", "enP2p1s0f0np0"),
    }


def test_a_port_may_see_both_twins_of_the_far_cage_because_they_share_the_cable() -> None:
    saw = Saw(echoes=(echo(HEAD, 0, port(WORKER, 0, "A"), port(WORKER, 0, "B")),))
    assert cables(paired(HEAD, WORKER, saw)) == [(0, 0), (1, 1)]


def test_a_live_answer_outweighs_a_stale_neighbour_from_before_the_cable_was_moved() -> None:
    saw = Saw(echoes=(echo(HEAD, 0, port(WORKER, 0)),), neighbours=(neighbour(HEAD, 0, port(WORKER, 1), fresh=False),))
    assert cables(paired(HEAD, WORKER, saw)) == [(0, 0), (1, 1)]
    alone = Saw(neighbours=(neighbour(HEAD, 0, port(WORKER, 1), fresh=False),))
    assert cables(paired(HEAD, WORKER, alone)) == [(0, 1), (1, 0)]


def test_a_cage_that_sees_two_cages_is_refused_with_what_was_seen() -> None:
    saw = Saw(echoes=(echo(HEAD, 0, port(WORKER, 0), port(WORKER, 1)),))
    with pytest.raises(RefusedError, match="sees two cages") as caught:
        paired(HEAD, WORKER, saw)
    assert "head enp1s0f0np0 sees worker enp1s0f1np1 (echo)" in caught.value.message
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_two_cages_that_claim_the_same_far_cage_are_refused() -> None:
    saw = Saw(echoes=(echo(HEAD, 0, port(WORKER, 0)), echo(HEAD, 1, port(WORKER, 0))))
    with pytest.raises(RefusedError, match="not certain"):
        paired(HEAD, WORKER, saw)


def test_a_cable_that_loops_back_into_its_own_node_is_named() -> None:
    saw = Saw(echoes=(echo(HEAD, 0, port(HEAD, 1)),))
    with pytest.raises(RefusedError, match="joins the two cages of one node"):
        paired(HEAD, WORKER, saw)


def test_a_stranger_proves_nothing() -> None:
    saw = Saw(echoes=(EchoFacts(device="enp1s0f0np0", responders=(IPv6Address(1),)),))
    assert [c.evidence for c in paired(HEAD, WORKER, saw).cables] == [("carrier",), ("carrier",)]


def test_a_link_local_address_that_two_ports_share_proves_nothing() -> None:
    twin = tuple(replace(p, link_local=(IPv6Address("fe80::1"),)) for p in WORKER)
    saw = Saw(echoes=(EchoFacts(device="enp1s0f0np0", responders=(IPv6Address("fe80::1"),)),))
    assert [c.evidence for c in paired(HEAD, twin, saw).cables] == [("carrier",), ("carrier",)]


def test_ports_without_a_carrier_are_no_cables_whatever_an_old_table_says() -> None:
    head, worker = node(1, 0), node(2, 0)
    saw = Saw(neighbours=(neighbour(head, 1, port(worker, 1), fresh=False),))
    assert cables(paired(head, worker, saw)) == [(0, 0)]


@given(
    crossed=st.booleans(),
    by=st.lists(st.sampled_from([(r, c) for r in ("head", "worker") for c in (0, 1)]), min_size=1, unique=True),
)
def test_any_one_true_sighting_is_enough_and_they_all_agree(crossed: bool, by: list[tuple[Role, int]]) -> None:
    truth = {0: 1, 1: 0} if crossed else {0: 0, 1: 1}
    seen = [
        Sighting(role, "x", cage, "worker" if role == "head" else "head", "y", truth[cage], "echo") for role, cage in by
    ]
    pairing = pair_ports(HEAD, WORKER, seen)
    assert cables(pairing) == sorted(truth.items())
    assert len(pairing.pairs) == 4
