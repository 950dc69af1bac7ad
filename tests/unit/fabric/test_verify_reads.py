"""`fabric verify` judges nothing that it does not read: on a healthy pair no fact is missing."""

from __future__ import annotations

from dspark_ops.doctor.engine import run_checks
from dspark_ops.fabric.verify import CHECKS, OF_THE_DOCTOR
from dspark_ops.facts.snapshot import NodeFacts
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

#: What the probes of `fabric verify` are parsed into.
READ = {"rank", "rank_known", "nccl_files", "jumbo", "links", "netplan", "persistence", "echoes", "neighbours", "lldp"}
READ |= {"rdma", "routes", "paths", "sysctl", "system"}
READ |= {"role", "host", "reachable", "error", "hint", "sudo", "round_trip_s", "clock_s", "clock_error_s"}


def as_verify_reads(node: NodeFacts) -> NodeFacts:
    return node.model_copy(update={name: None for name in NodeFacts.model_fields if name not in READ})


def test_a_healthy_pair_lacks_no_fact() -> None:
    whole = pair_facts()
    facts = whole.model_copy(update={n.role: as_verify_reads(n) for n in whole.nodes})
    report = run_checks(facts, load_case_site(), only=CHECKS, skip=OF_THE_DOCTOR, active=True)
    assert [f.id for f in report.findings if f.status not in ("ok", "skip")] == []
    assert report.exit_code == 0
