"""A pinned GID index must hold on every device of both nodes; a drift on one of them is named."""

from __future__ import annotations

from typing import Any

from dspark_ops.deploy.guards import start_guards
from dspark_ops.fabric.gid_pin import pin_problems
from tests.unit.doctor.pair_fixture import base_document, load_case_site, pair_facts


def drifted(role: str, hca: str, index: int, to: int) -> dict[str, Any]:
    """One entry of one device has moved, as was seen within half an hour (tonyd2wild DSpark-Vision issue 38)."""
    device = next(item for item in base_document()[role]["rdma"] if item["name"] == hca)
    gids = [dict(gid, index=to if gid["index"] == index else gid["index"]) for gid in device["gids"]]
    return {"set": [[[role, "rdma", hca, "gids"], gids]]}


def test_an_index_that_every_device_of_both_nodes_has_is_sound() -> None:
    assert pin_problems(load_case_site().site, 3, pair_facts()) == ([], [])


def test_one_device_that_drifted_is_named_with_where_the_entry_is_now() -> None:
    wrong, unread = pin_problems(load_case_site().site, 3, pair_facts(drifted("worker", "roceP2p1s0f0", 3, 4)))
    assert wrong == ["worker roceP2p1s0f0: the RoCE v2 entry of 192.168.101.11 is at 4, not at 3"]
    assert unread == []


def test_a_device_that_was_not_read_is_not_sound() -> None:
    wrong, unread = pin_problems(load_case_site().site, 3, pair_facts({"set": [[["head", "rdma"], None]]}))
    assert wrong == []
    assert unread == [f"the RDMA device of {name} on the head" for name in ("enp1s0f0np0", "enP2p1s0f0np0")]


def test_a_deploy_refuses_a_pin_that_does_not_hold_and_asks_nothing_without_a_pin() -> None:
    facts = pair_facts(drifted("head", "rocep1s0f0", 3, 4))
    pinned = [r for r in start_guards(load_case_site("fabric.gid_index=3").site, facts) if "gid" in r.check]
    assert ["rocep1s0f0" in refusal.observed for refusal in pinned] == [True]
    assert "fabric.gid_index" in pinned[0].remedy
    assert not [r for r in start_guards(load_case_site().site, facts) if "gid" in r.check]
