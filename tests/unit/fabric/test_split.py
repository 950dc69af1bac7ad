"""The split verdict on every recorded pair of readings, and what must never pass."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.config.models import Role
from dspark_ops.fabric.ports import Half
from dspark_ops.fabric.selection import SplitPort, selected_hcas
from dspark_ops.fabric.split import NodeSplit, SplitResult, measure_split
from dspark_ops.fabric.split_rules import (
    COUNTED,
    DEVICES,
    ERRORS,
    HALVES,
    ONE_HALF,
    PROOF_FLOOR_BYTES,
    STRAY,
    judge_errors,
    judge_match,
    judge_split,
)
from dspark_ops.facts.counters import DeviceCounters, NodeCounters
from dspark_ops.report.models import Finding, judge
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.facts.captures import expect, names, text

PLACES: dict[str, tuple[int, Half]] = {
    "rocep1s0f0": (0, "A"),
    "rocep1s0f1": (1, "A"),
    "roceP2p1s0f0": (0, "B"),
    "roceP2p1s0f1": (1, "B"),
}
CAGE_1 = ("rocep1s0f1", "roceP2p1s0f1")
ALL = tuple(PLACES)
# Which cages are plugged in each capture, and what the running rank was told where the capture says so.
PLUGGED = {
    "counters/TRAP-two-cables-one-half.json": ALL,
    "counters/two-cables-four-rails-25.json": ALL,
    "counters/ring-asymmetry.json": ALL,
}
TOLD = {
    "counters/TRAP-two-cables-one-half.json": "rocep1s0f0,rocep1s0f1",
    "counters/ring-asymmetry.json": "rocep1s0f0,rocep1s0f1",
}


def ports(plugged: tuple[str, ...], told: str | None = None, role: Role = "head") -> list[SplitPort]:
    """Every device of a node; the plugged ones have a rail each."""
    chosen = selected_hcas(told, ALL)
    return [
        SplitPort(
            role, hca, f"p{cage}{half.lower()}" if hca in plugged else None, cage, half, hca in plugged, hca in chosen
        )
        for hca, (cage, half) in PLACES.items()
    ]


def counted(tree: Mapping[str, Mapping[str, dict[str, int]]], at: float = 100.0, boot: str = "one") -> NodeCounters:
    devices = tuple(
        DeviceCounters(name=name, counters=kinds["counters"], hw_counters=kinds.get("hw_counters"))
        for name, kinds in sorted(tree.items())
    )
    return NodeCounters(uptime_s=at, boot_id=boot, devices=devices)


def split_of(name: str, told: str | None = None) -> tuple[NodeSplit, dict[str, Finding]]:
    """A capture, measured and judged with the floor of a proof run."""
    document = json.loads(text(name))
    before, after = counted(document["before"]), counted(document["after"], at=110.0)
    result = measure_split(ports(PLUGGED.get(name, CAGE_1), told), {"head": before}, {"head": after})
    found = (*judge_split(result, floor_bytes=PROOF_FLOOR_BYTES), *judge_errors(result))
    return result.nodes[0], {finding.id: finding for finding in found}


EXPECTED_STATUS: dict[str, dict[str, str]] = {
    "pass": {DEVICES: "ok", HALVES: "ok", STRAY: "ok", ERRORS: "ok"},
    "inconclusive": {COUNTED: "unknown"},
    "fail": {DEVICES: "fail", ONE_HALF: "fail"},
    "fail-errors": {DEVICES: "ok", HALVES: "ok", ERRORS: "fail"},
    "warn-one-half": {ONE_HALF: "warn", DEVICES: "ok", ERRORS: "ok"},
    # The devices are even only when both directions count; both of them sit on half A all the same.
    "use-both-directions": {DEVICES: "ok", ONE_HALF: "warn"},
}


@pytest.mark.parametrize("name", names("counters/"))
def test_every_capture_gets_the_verdict_of_its_manifest(name: str) -> None:
    wanted = expect(name)
    node, found = split_of(name, TOLD.get(name))
    status = {identity: finding.status for identity, finding in found.items()}
    assert EXPECTED_STATUS[wanted["verdict"]].items() <= status.items()
    if wanted["verdict"] == "pass":
        assert set(status.values()) == {"ok"}
    if wanted["verdict"] == "inconclusive":
        assert "ok" not in {s for i, s in status.items() if i != ERRORS}
        assert judge(found.values(), ())[0] == "indeterminate"
    for cage, share in wanted.get("cables", {}).items():
        assert node.cages[int(cage.removeprefix("p"))] == pytest.approx(share, abs=0.5)
    for half, share in wanted.get("halves", {}).items():
        assert node.halves.get(half, 0.0) == pytest.approx(share, abs=0.5)


def test_even_between_the_cables_is_not_even_between_the_halves() -> None:
    """The trap: cage by cage and device by device a perfect 50/50, and all of it over one PCIe x4 link."""
    node, found = split_of("counters/TRAP-two-cables-one-half.json", "rocep1s0f0,rocep1s0f1")
    assert node.cages == {0: 50.0, 1: 50.0}
    assert {d.share_percent for d in node.expected} == {50.0}
    trap = found[ONE_HALF]
    assert "one PCIe x4 link" in trap.observed
    assert "110 Gb/s" in trap.observed
    assert "it looks even (cage 0 50.0 %, cage 1 50.0 %)" in trap.observed
    assert trap.remedy is not None
    assert "NCCL_IB_HCA" in trap.remedy.text


def test_the_trap_fails_where_the_rank_was_not_told_to_leave_a_half_out() -> None:
    _, found = split_of("counters/TRAP-two-cables-one-half.json")
    assert found[ONE_HALF].status == "fail"
    assert found[DEVICES].caused_by == ONE_HALF


def test_a_rank_that_was_given_one_twin_of_one_cable_is_told_so() -> None:
    _, found = split_of("counters/single-hca-100-0.json", "=rocep1s0f1")
    assert found[ONE_HALF].status == "warn"
    assert "leaves that half out" in found[ONE_HALF].observed


def test_a_port_without_a_cable_is_not_waited_for() -> None:
    node, found = split_of("counters/one-cable-twins-50-50.json")
    assert [d.hca for d in node.expected] == ["rocep1s0f1", "roceP2p1s0f1"]
    assert found[DEVICES].expected is not None
    assert found[DEVICES].expected.startswith("50 % each")


def test_rates_are_per_direction_by_the_nodes_own_clock() -> None:
    node, _ = split_of("counters/single-hca-100-0.json")
    device = next(d for d in node.devices if d.hca == "rocep1s0f1")
    assert node.interval_s == 10.0
    assert device.xmit_gbps == pytest.approx(8_000_000_000 * 4 * 8 / 10 / 1e9)


def document(name: str = "counters/two-cables-four-rails-25.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(name))
    return found


@pytest.mark.parametrize("damage", ["boot", "clock", "gone", "lifespan", "error counter", "packets"])
def test_readings_that_do_not_belong_together_give_no_verdict(damage: str) -> None:
    seen = document()
    for moment in ("before", "after"):
        for kinds in seen[moment].values():
            kinds["hw_counters"]["lifespan"] = 10
            kinds["counters"]["port_xmit_packets"] = 5
    after_at, boot, last = 110.0, "one", seen["after"]
    if damage == "boot":
        boot = "two"
    elif damage == "clock":
        after_at = 3.0
    elif damage == "gone":
        del last["rocep1s0f0"]
    elif damage == "lifespan":
        last["rocep1s0f0"]["hw_counters"]["lifespan"] = 20
    elif damage == "packets":
        last["rocep1s0f0"]["counters"]["port_xmit_packets"] = 4
    else:
        seen["before"]["rocep1s0f0"]["hw_counters"]["packet_seq_err"] = 7
    result = measure_split(
        ports(ALL), {"head": counted(seen["before"])}, {"head": counted(last, at=after_at, boot=boot)}
    )
    found = judge_split(result, floor_bytes=0)
    assert [(f.id, f.status) for f in found] == [(COUNTED, "unknown")]
    assert "counters reset" in found[0].observed
    assert judge_errors(result) == ()


def test_unread_counters_are_unknown_and_not_idle() -> None:
    result = measure_split(ports(ALL), {"head": NodeCounters()}, {"head": NodeCounters()})
    found = [*judge_split(result, floor_bytes=0), *judge_errors(result)]
    assert {f.status for f in found} == {"unknown"}
    assert judge(found, ())[0] == "indeterminate"


def test_soft_roce_without_byte_counters_is_unknown() -> None:
    before = {d: {"counters": {}, "hw_counters": {"sent_pkts": 0, "rcvd_pkts": 0}} for d in ALL}
    after = {d: {"counters": {}, "hw_counters": {"sent_pkts": 900, "rcvd_pkts": 100}} for d in ALL}
    result = measure_split(ports(ALL), {"head": counted(before)}, {"head": counted(after)})
    finding = judge_split(result, floor_bytes=0)[0]
    assert finding.status == "unknown"
    assert "no byte counters" in finding.observed
    assert "4000 packets" in finding.observed


def test_traffic_on_a_device_that_no_rail_uses_is_named() -> None:
    seen = document()
    result = measure_split(ports(CAGE_1), {"head": counted(seen["before"])}, {"head": counted(seen["after"], at=110.0)})
    stray = next(f for f in judge_split(result, floor_bytes=0) if f.id == STRAY)
    assert stray.status == "warn"
    assert "rocep1s0f0 25.0 %" in stray.observed


def both_nodes(lost_words: int) -> SplitResult:
    """The same traffic on both nodes, of which the worker received `lost_words` less on rail p0a."""
    seen = document()
    far = copy.deepcopy(seen["after"])
    far["rocep1s0f0"]["counters"]["port_rcv_data"] -= lost_words
    return measure_split(
        [*ports(ALL), *ports(ALL, role="worker")],
        {"head": counted(seen["before"]), "worker": counted(seen["before"])},
        {"head": counted(seen["after"], at=110.0), "worker": counted(far, at=110.0)},
    )


@pytest.mark.parametrize(("lost_words", "status"), [(0, "ok"), (10_000_000, "ok"), (30_000_000, "warn")])
def test_what_is_sent_must_be_received_within_one_percent(lost_words: int, status: str) -> None:
    finding = judge_match(load_case_site().site, both_nodes(lost_words))
    assert finding is not None
    assert finding.status == status
    if status == "warn":
        assert "p0a head to worker" in finding.observed


@given(
    st.lists(st.integers(0, 10**12), min_size=4, max_size=4), st.lists(st.integers(0, 10**12), min_size=4, max_size=4)
)
def test_shares_add_up_and_a_starved_half_never_passes(xmit: list[int], rcv: list[int]) -> None:
    zero = {d: {"counters": {"port_xmit_data": 0, "port_rcv_data": 0}, "hw_counters": {}} for d in ALL}
    last = {
        d: {"counters": {"port_xmit_data": x, "port_rcv_data": r}, "hw_counters": {}}
        for d, x, r in zip(ALL, xmit, rcv, strict=True)
    }
    result = measure_split(ports(ALL), {"head": counted(zero)}, {"head": counted(last, at=110.0)})
    node, found = result.nodes[0], judge_split(result, floor_bytes=1)
    if node.sum_bytes:
        assert sum(node.halves.values()) == pytest.approx(100)
        assert sum(node.cages.values()) == pytest.approx(100)
    verdict = judge(found, ())[0]
    if node.sum_bytes and min(node.halves.values()) < 10:
        assert verdict == "blocked"
    if not node.sum_bytes:
        assert verdict == "indeterminate"


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (None, set(ALL)),
        ("", set(ALL)),
        ("=rocep1s0f0", {"rocep1s0f0"}),
        ("=rocep1s0f0:1:0,roceP2p1s0f0:1:0", {"rocep1s0f0", "roceP2p1s0f0"}),
        ("rocep1", {"rocep1s0f0", "rocep1s0f1"}),
        ("roce", set(ALL)),
        ("^rocep1s0f0", set(ALL) - {"rocep1s0f0"}),
        ("^=rocep1s0f0", set(ALL) - {"rocep1s0f0"}),
        ("=rocep1", set()),
    ],
)
def test_nccl_ib_hca_grammar(value: str | None, taken: set[str]) -> None:
    assert selected_hcas(value, ALL) == taken


def test_a_trickle_is_not_compared_and_says_so() -> None:
    seen = document()
    trickle = copy.deepcopy(seen["before"])
    for kinds in trickle.values():
        kinds["counters"]["port_xmit_data"] += 1000
    result = measure_split(
        [*ports(ALL), *ports(ALL, role="worker")],
        {"head": counted(seen["before"]), "worker": counted(seen["before"])},
        {"head": counted(trickle, at=110.0), "worker": counted(trickle, at=110.0)},
    )
    finding = judge_match(load_case_site().site, result)
    assert finding is not None
    assert finding.status == "skip"
