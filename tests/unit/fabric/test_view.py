"""The document and the drawing of `fabric show`: true to the facts, with and without a site."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.fabric.drawing import render_fabric
from dspark_ops.fabric.view import FabricView, build_view
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

CROSSED: dict[str, Any] = {
    "set": [
        [["worker", "links", "enp1s0f0np0", "carrier"], False],
        [["worker", "links", "enP2p1s0f0np0", "carrier"], False],
        [["worker", "links", "enp1s0f1np1", "carrier"], True],
        [["worker", "links", "enP2p1s0f1np1", "carrier"], True],
    ]
}
DARK: dict[str, Any] = {
    "set": [
        [[role, "links", name, "carrier"], False]
        for role in ("head", "worker")
        for name in ("enp1s0f0np0", "enP2p1s0f0np0")
    ]
}


def view(case: dict[str, Any] | None = None, *, nccl: bool = False, site: bool = True) -> FabricView:
    return build_view(pair_facts(case), load_case_site().site if site else None, nccl=nccl)


def test_a_healthy_pair_shows_one_cable_and_both_its_rails_as_the_site_names_them() -> None:
    shown = view()
    assert [(c.head_cage, c.worker_cage, c.crossed) for c in shown.cables] == [(0, 0, False)]
    assert [(r.name, r.half, r.head, r.worker, r.planned) for r in shown.rails] == [
        ("p0a", "A", "enp1s0f0np0", "enp1s0f0np0", True),
        ("p0b", "B", "enP2p1s0f0np0", "enP2p1s0f0np0", True),
    ]
    assert shown.notes == ()
    assert shown.ambiguity is None
    first = shown.ports_of("head")[0]
    assert (first.addresses, first.gid_indexes) == (("192.168.100.10/24",), {"192.168.100.10": (3,)})
    assert FabricView.model_validate_json(shown.model_dump_json()) == shown


def test_the_drawing_names_every_port_of_both_nodes_and_what_a_boot_brings_back() -> None:
    text = render_fabric(view())
    for port in view().ports:
        assert port.netdev in text
    assert "o====p0a====o" in text
    assert "cable 1" in text
    assert "no cable" in text
    assert "CROSSED" not in text
    assert "9000" in text


def test_a_crossed_cable_is_drawn_as_one_and_the_site_is_said_to_disagree() -> None:
    shown = view(CROSSED)
    assert [(c.head_cage, c.worker_cage, c.crossed) for c in shown.cables] == [(0, 1, True)]
    text = render_fabric(shown)
    assert "CROSSED" in text
    assert "rail p0a of the site joins head enp1s0f0np0 to worker enp1s0f0np0; no cable does" in text
    assert all(rail.planned is False for rail in shown.rails)


def test_without_any_carrier_it_shows_the_ports_and_says_why_there_is_no_rail() -> None:
    shown = view(DARK)
    assert shown.rails == ()
    assert shown.ambiguity is not None
    assert "no fabric port has carrier" in shown.ambiguity
    assert shown.hint
    assert render_fabric(shown).count("no cable") == 8


def test_what_could_not_be_read_is_shown_as_such() -> None:
    unread = {"set": [[["head", "netplan"], None], [["head", "links", "enp1s0f0np0", "mtu"], None]]}
    port = view(unread).ports_of("head")[0]
    assert (port.owner, port.mtu) == (None, None)


def test_two_hosts_without_a_site_have_rails_but_no_plan() -> None:
    shown = view(site=False)
    assert {rail.planned for rail in shown.rails} == {None}
    assert shown.site is None


@pytest.mark.parametrize("name", ["NCCL_IB_HCA", "NCCL_IB_GID_INDEX unset", "GLOO_SOCKET_IFNAME=enp1s0f0np0"])
def test_the_nccl_environment_is_shown_per_node_with_reasons(name: str) -> None:
    text = render_fabric(view(nccl=True))
    assert text.count(name) >= 2
    assert "# exactly the 2 rails" in text
