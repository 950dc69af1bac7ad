"""How findings become a verdict: causes, what is unknown, what a rehearsal imitates, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dspark_ops.doctor.engine import run_checks
from dspark_ops.doctor.outcome import NodeView, Outcome
from dspark_ops.doctor.registry import NODE_RULES, load_rules
from dspark_ops.report.models import Finding, Report
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts, unreachable

EMPTY = {"set": [[["head", "rank"], None], [["worker", "rank"], None]]}


def report_of(case: dict[str, Any] | None = None, *site: str, **options: Any) -> Report:
    return run_checks(pair_facts(case), load_case_site(*site), **options)


def finding(report: Report, check: str, node: str = "head") -> Finding:
    (found,) = [f for f in report.findings if f.id == check and f.node == node]
    return found


def test_a_healthy_pair_is_ready_with_exit_code_0() -> None:
    report = report_of(active=True)
    assert (report.verdict, report.exit_code) == ("ready", 0)
    assert {f.status for f in report.findings} == {"ok", "skip"}
    assert report.next_step is None


def test_the_same_facts_give_the_same_findings() -> None:
    assert report_of().findings == report_of().findings


def test_one_end_at_1500_is_named_with_both_figures_and_the_remedy() -> None:
    report = report_of({"set": [[["worker", "links", "enP2p1s0f0np0", "mtu"], 1500]]})
    bad = finding(report, "fabric.mtu", "worker")
    assert (report.verdict, report.exit_code) == ("blocked", 1)
    assert bad.status == "fail"
    assert bad.observed == ("enP2p1s0f0np0 (rail p0b) has MTU 1500, not 9000; the head's end enP2p1s0f0np0 has 9000")
    assert bad.remedy is not None
    assert bad.remedy.command is not None
    assert bad.remedy.command[:2] == ("dspark-ops", "bootstrap")
    assert finding(report, "fabric.mtu", "head").status == "ok"
    assert report.next_step is not None
    assert report.next_step.startswith("dspark-ops bootstrap --site ")


def test_an_unreachable_node_is_no_verdict_and_its_checks_are_unknown_because_of_it() -> None:
    lost = {"set": [[["worker"], unreachable("worker")]]}
    report = report_of(lost)
    assert (report.verdict, report.exit_code) == ("indeterminate", 3)
    assert finding(report, "reach.ssh", "worker").status == "fail"
    later = [f for f in report.findings if f.node in ("worker", "pair") and f.id != "reach.ssh"]
    assert {f.status for f in later} == {"unknown"}
    assert {f.caused_by for f in later} == {"reach.ssh"}
    assert finding(report, "host.sudo", "head").status == "ok"
    assert "node-b" in report.message


def test_an_unreachable_node_is_no_verdict_even_when_reach_is_not_asked() -> None:
    report = report_of({"set": [[["worker"], unreachable("worker")]]}, only=["host.disk_free"])
    assert report.exit_code == 3
    assert finding(report, "host.disk_free", "worker").caused_by == "reach.ssh"


def test_a_required_unknown_is_no_verdict_an_advised_one_is_not() -> None:
    assert report_of({"set": [[["head", "disks"], None]]}, only=["host.*"]).exit_code == 3
    assert report_of({"set": [[["head", "clock_error_s"], None]]}, only=["host.*"]).exit_code == 0


def test_a_failure_outranks_an_unknown() -> None:
    case = {"set": [[["head", "disks"], None], [["worker", "links", "enp1s0f0np0", "mtu"], 1500]]}
    assert report_of(case).exit_code == 1


def test_nothing_deployed_skips_the_service_and_fails_nothing() -> None:
    report = report_of(EMPTY, only=["service.*", "nccl.*", "image.digest_parity"], skip=["nccl.conf_files"])
    assert {f.status for f in report.findings} == {"skip"}
    assert (report.verdict, report.exit_code) == ("indeterminate", 3), "zero checks ran"
    assert all("deployed" in f.observed for f in report.findings if f.id.startswith("service."))


def test_strict_makes_a_warning_as_bad_as_a_failure() -> None:
    case = {"set": [[["worker", "system", "kernel"], "6.17.0-1021-nvidia"]]}
    assert report_of(case).exit_code == 0
    assert report_of(case, strict=True).exit_code == 1


def test_what_follows_from_a_failure_names_its_root() -> None:
    stopped = {"answers": False, "error": "Cannot connect to the Docker daemon"}
    case = {
        "set": [
            [["worker", "docker"], stopped],
            [["worker", "rank"], None],
            [["worker", "rank_known"], False],
            [["worker", "images"], None],
        ]
    }
    report = report_of(case)
    assert finding(report, "host.docker_engine", "worker").caused_by is None
    for check in ("image.present", "nccl.hca_set", "service.env_host_ip"):
        found = finding(report, check, "worker")
        assert (found.status, found.caused_by) == ("unknown", "host.docker_engine")
    assert finding(report, "service.ranks_paired", "pair").caused_by == "host.docker_engine"
    assert finding(report, "image.present", "head").status == "ok"


def test_a_cause_is_followed_to_its_root() -> None:
    case = {
        "set": [
            [["head", "links", "enp1s0f0np0", "carrier"], False],
            [["head", "links", "enp1s0f0np0", "addresses"], []],
            [["head", "rdma", "rocep1s0f0", "state"], "1: DOWN"],
        ],
        "remove": [["head", "rdma", "rocep1s0f0", "gids", 3]],
    }
    report = report_of(case)
    for check in ("fabric.address_planned", "fabric.hca_active", "fabric.rocev2_gid"):
        assert finding(report, check).caused_by == "fabric.ports_up"


@pytest.fixture
def broken_rule() -> Iterator[None]:
    load_rules()
    real = NODE_RULES["host.disk_free"]

    def broken(view: NodeView) -> Outcome:
        raise ZeroDivisionError("planted")

    NODE_RULES["host.disk_free"] = broken
    yield
    NODE_RULES["host.disk_free"] = real


@pytest.mark.usefixtures("broken_rule")
def test_a_rule_that_breaks_is_unknown_and_loses_no_other_check() -> None:
    report = report_of()
    assert finding(report, "host.disk_free").status == "unknown"
    assert "planted" in finding(report, "host.disk_free").observed
    assert finding(report, "fabric.mtu").status == "ok"
    assert report.exit_code == 3


def test_results_that_rest_on_a_look_alike_say_so() -> None:
    marker = [
        {"what": "/sys/class/infiniband and the PCI functions", "why": "w", "follows": "f"},
        {"what": "nvidia-smi", "why": "w", "follows": "f"},
        {"what": "/sys/class/net/<port>/speed, phys_port_name", "why": "w", "follows": "f"},
    ]
    report = report_of({"set": [[["head", "system", "look_alikes"], marker]]})
    shown = {f.id for f in report.findings if f.look_alike and f.node == "head"}
    assert {"fabric.rocev2_gid", "gpu.present", "fabric.link_speed", "tenant.gpu_process"} <= shown
    assert not shown & {"fabric.mtu", "fabric.address_planned", "host.docker_engine", "host.memory_floor"}
    assert not [f for f in report.findings if f.look_alike and f.node == "worker"]
    assert finding(report, "fabric.cabling", "pair").look_alike


def test_a_login_in_a_remedy_goes_by_the_sites_ssh_configuration() -> None:
    case = {"set": [[["head", "docker"], {"answers": False, "error": "stopped"}]]}
    plain = finding(report_of(case), "host.docker_engine").remedy
    assert plain is not None
    assert plain.command == ("ssh", "node-a", "sudo", "systemctl", "start", "docker")
    own = finding(report_of(case, "ssh.config=/tmp/ssh_config"), "host.docker_engine").remedy
    assert own is not None
    assert own.command is not None
    assert own.command[:4] == ("ssh", "-F", "/tmp/ssh_config", "node-a")


def test_the_document_is_json_of_the_published_schema() -> None:
    import jsonschema

    from dspark_ops.report.schema import report_schema

    document = json.loads(report_of().to_json())
    jsonschema.validate(document, report_schema())
    assert document["schema"] == "dspark-ops/report/v1"
    assert Report.model_validate(document) == Report.model_validate_json(json.dumps(document))
