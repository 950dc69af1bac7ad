"""GB10 captures put before the rules of the NIC, its GIDs, its counters and NCCL's own lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, Role
from dspark_ops.doctor.engine import run_checks
from dspark_ops.facts.counters import CounterRecord, KeptCounters, NodeCounters, parse_counters
from dspark_ops.facts.jumbo import parse_ping
from dspark_ops.facts.kernel_log import parse_kernel_log
from dspark_ops.facts.log_hits import LogFacts, LogHit, LogLine
from dspark_ops.facts.rdma import HcaFacts
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.report.models import Finding
from tests.unit.doctor.test_captures_judged import NETDEV, Ends, hcas_in, site_of, with_parts
from tests.unit.facts.captures import names, text

# After the ranks of the fixtures were started.
THEN = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
BOOT = "0b0071d0-0000-4000-8000-000000000009"


def found(facts: PairFacts, loaded: LoadedSite, check: str, node: str = "head") -> Finding:
    """The one finding of a check on a node, or on the pair."""
    report = run_checks(facts, loaded, only=[check])
    (finding,) = [f for f in report.findings if f.node == node]
    return finding


def rails_of(hcas: tuple[HcaFacts, ...]) -> Ends:
    """A rail a device that has an IPv4 GID, the same names at both ends."""
    return [
        dict.fromkeys(ROLES, (hca.netdev or "", f"{gid.ipv4}/24"))
        for hca in hcas
        if hca.active and (gid := next((g for g in hca.gids if g.ipv4), None)) is not None
    ]


def address_of(hca: HcaFacts) -> str:
    """The IPv4 address in its GID table, with a prefix."""
    return f"{next(gid.ipv4 for gid in hca.gids if gid.ipv4)}/24"


@pytest.mark.parametrize(
    ("name", "check", "node", "status"),
    [
        ("all-up-ok", "fabric.gid_parity", "pair", "ok"),
        ("all-up-ok", "fabric.gid_link_local", "head", "ok"),
        ("p1-up-ok", "fabric.gid_parity", "pair", "ok"),
        ("drift-one-hca", "fabric.gid_parity", "pair", "warn"),
        ("one-rail-privacy-ll-index5", "fabric.gid_parity", "pair", "warn"),
        ("one-rail-privacy-ll-index5", "fabric.gid_link_local", "head", "warn"),
        ("one-rail-privacy-ll-index5", "fabric.gid_single", "head", "ok"),
        ("all-up-ok", "nic.functions", "head", "ok"),
        ("p1-up-ok", "nic.functions", "head", "ok"),
        ("all-up-ok", "nic.link_layer", "head", "ok"),
        ("all-up-ok", "nic.rdma_rate", "head", "ok"),
    ],
)
def test_gid_tables(name: str, check: str, node: str, status: str) -> None:
    hcas = hcas_in(json.loads(text(f"sysfs/infiniband-{name}.json")))
    tree: dict[Role, Any] = dict.fromkeys(ROLES, hcas)
    finding = found(with_parts(rdma=tree), site_of(rails_of(hcas)), check, node)
    assert finding.status == status, finding.observed
    if check == "fabric.gid_link_local" and status == "warn":
        assert finding.observed.startswith("roceP2p1s0f0 ")


def test_a_pair_with_other_indexes_on_each_node() -> None:
    both = json.loads(text("sysfs/infiniband-head4-worker3.json"))
    tree: dict[Role, Any] = {role: hcas_in(both[role]) for role in ROLES}
    ends: Ends = [
        {"head": (head.netdev or "", address_of(head)), "worker": (worker.netdev or "", address_of(worker))}
        for head, worker in zip(tree["head"], tree["worker"], strict=True)
        if head.active and worker.active
    ]
    finding = found(with_parts(rdma=tree), site_of(ends), "fabric.gid_parity", "pair")
    assert finding.status == "warn"
    assert "4 on head" in finding.observed
    assert "3 on worker" in finding.observed


def test_no_rdma_tree_is_a_nic_that_is_gone() -> None:
    empty: dict[Role, Any] = {"head": ()}
    finding = found(with_parts(rdma=empty), site_of(), "nic.functions")
    assert finding.status == "fail"
    assert "no RDMA device at all" in finding.observed


def counters_in(document: dict[str, Any], moment: str) -> NodeCounters:
    files = {
        f"/sys/class/infiniband/{device}/ports/1/{kind}/{name}": str(value)
        for device, kinds in document[moment].items()
        for kind, values in kinds.items()
        for name, value in values.items()
    }
    return parse_counters(files).model_copy(update={"boot_id": BOOT})


def with_counters(name: str) -> tuple[PairFacts, LoadedSite]:
    """The head with the two readings of a capture, its rails on every device that carried something."""
    document = json.loads(text(f"counters/{name}.json"))
    before, after = counters_in(document, "before"), counters_in(document, "after")
    hcas = {hca.name: hca for hca in with_parts().head.rdma or ()}
    cage = 0 if "two-cables" in name else 1
    used = [n for n in hcas if "two-cables" in name or n.endswith(f"f{cage}")]
    state = {n: "4: ACTIVE" if n in used else "1: DOWN" for n in hcas}
    tree: dict[Role, Any] = {"head": tuple(h.model_copy(update={"state": state[h.name]}) for h in hcas.values())}
    facts = with_parts(rdma=tree, counters={"head": after})
    rank = facts.head.rank
    assert rank is not None
    env = {**rank.env, "NCCL_IB_HCA": f"={','.join(used)}"}
    head = facts.head.model_copy(update={"rank": rank.model_copy(update={"env": env})})
    record = CounterRecord(head=KeptCounters(read_at=THEN, counters=before))
    ends: Ends = [dict.fromkeys(ROLES, (NETDEV[n], f"10.{i}.0.1/24")) for i, n in enumerate(used)]
    return facts.model_copy(update={"head": head, "counter_record": record}), site_of(ends)


@pytest.mark.parametrize(
    ("name", "share", "errors"),
    [
        ("one-cable-twins-50-50", "ok", "ok"),
        ("two-cables-four-rails-25", "ok", "ok"),
        ("TRAP-two-cables-one-half", "fail", "ok"),
        ("single-hca-100-0", "fail", "ok"),
        ("skew-92-8", "fail", "ok"),
        ("split-ok-but-retransmits", "ok", "warn"),
        ("idle-too-few-bytes", "skip", "ok"),
        ("reset-between-snapshots", "skip", "ok"),
    ],
)
def test_counters_of_two_moments(name: str, share: str, errors: str) -> None:
    facts, loaded = with_counters(name)
    assert found(facts, loaded, "fabric.rail_share").status == share
    assert found(facts, loaded, "nic.error_counters").status == errors


@pytest.mark.parametrize("name", names("dmesg/"))
def test_kernel_lines(name: str) -> None:
    lines = "Linux version 6.17.0-1014-nvidia (built)\n" + text(name)
    facts = with_parts(kernel_log={"head": parse_kernel_log(lines)})
    down = found(facts, site_of(), "nic.torn_down").status
    assert down == ("warn" if name == "dmesg/nic-removed.txt" else "ok")
    assert found(facts, site_of(), "nic.pcie_bandwidth").status in ("ok", "skip")


def test_a_half_at_two_lanes_shows_in_the_kernels_own_line() -> None:
    """The healthy line of a capture with the figure of two lanes: reconstructed."""
    lines = text("dmesg/mlx5-probe-ok.txt").replace("126.028", "63.014").replace("x4 link", "x2 link")
    finding = found(with_parts(kernel_log={"head": parse_kernel_log(lines)}), site_of(), "nic.pcie_bandwidth")
    assert finding.status == "warn"


@pytest.mark.parametrize(
    ("name", "rails", "status", "told"),
    [
        ("one-cable-twins", ("rocep1s0f1", "roceP2p1s0f1"), "ok", "rocep1s0f1, roceP2p1s0f1"),
        ("one-cable-twins", ("rocep1s0f0", "roceP2p1s0f0"), "fail", "the ranks met over enp1s0f1np1"),
        ("single-hca", ("rocep1s0f0", "roceP2p1s0f0"), "fail", "NCCL does not use roceP2p1s0f0"),
        ("two-cables-four-hcas", ("rocep1s0f0", "roceP2p1s0f0", "rocep1s0f1", "roceP2p1s0f1"), "ok", "roceP2p1s0f1"),
        ("two-cables-four-hcas", ("rocep1s0f0", "roceP2p1s0f0"), "fail", "NCCL also uses roceP2p1s0f1, rocep1s0f1"),
        ("socket-fallback", ("rocep1s0f0", "roceP2p1s0f0"), "skip", "does not list its devices"),
    ],
)
def test_nccls_own_lines(name: str, rails: tuple[str, ...], status: str, told: str) -> None:
    lines = tuple(LogLine(text=line) for line in text(f"nccl-log/{name}.txt").splitlines())
    log = LogFacts(hits=(LogHit(signature="nccl_ib", count=len(lines), lines=lines),))
    ends: Ends = [dict.fromkeys(ROLES, (NETDEV[hca], f"10.{i}.0.1/24")) for i, hca in enumerate(rails)]
    finding = found(with_parts(engine_log={"head": log}), site_of(ends), "nccl.log_devices")
    assert finding.status == status, finding.observed
    assert told in finding.observed


@pytest.mark.parametrize(("name", "status"), [("ping-jumbo-ok", "ok"), ("ping-degraded-rtt", "warn")])
def test_the_round_trip_of_a_degraded_pair(name: str, status: str) -> None:
    pings = tuple(parse_ping(rail, text(f"net/{name}.txt")) for rail in ("p0a", "p0b"))
    facts = with_parts(jumbo=dict.fromkeys(ROLES, pings))
    report = run_checks(facts, site_of(), only=["fabric.round_trip"], active=True)
    assert [f.status for f in report.findings] == [status]
