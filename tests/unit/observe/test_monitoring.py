"""What the role of monitoring is told, whose secrets are taken, and what the stack says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.config.models import Site
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.observe.monitoring import (
    check_secrets,
    jobs,
    monitoring_host_variables,
    monitoring_variables,
)
from dspark_ops.observe.stack_status import StackState, parse_stack
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.doctor.pair_fixture import CHECKS


def site(*overrides: str) -> Site:
    return load_site(CHECKS / "site.yml", overrides=overrides, environ={}).site


def test_by_default_nobody_is_told_and_nothing_is_open() -> None:
    wanted = site().monitoring
    assert (wanted.webhook_file, wanted.dead_man_file, wanted.email) == (None, None, None)
    rail = site().fabric.rails[0]
    for job in jobs(site(), supervisor=True):
        for target in job.targets:
            address = target.address.rpartition(":")[0]
            assert address == ("127.0.0.1" if target.role == "head" else str(rail.worker.address.ip)), job


def test_both_nodes_have_both_exporters() -> None:
    roles = {job.name: [target.role for target in job.targets] for job in jobs(site(), supervisor=True)}
    assert roles["node"] == roles["dspark"] == ["head", "worker"]
    assert roles["vllm"] == roles["dspark-supervisor"] == ["head"]


def test_a_supervisor_that_is_not_there_is_not_asked() -> None:
    assert "dspark-supervisor" not in {job.name for job in jobs(site(), supervisor=False)}
    told = monitoring_variables(site(), supervisor=False)["monitoring_jobs"]
    assert "dspark-supervisor" not in json.dumps(told)


def test_an_engine_on_all_addresses_is_asked_on_the_loopback() -> None:
    (vllm,) = [
        job
        for job in jobs(site("serve.api_host=0.0.0.0", "serve.api_port=8123"), supervisor=True)
        if job.name == "vllm"
    ]
    assert [target.address for target in vllm.targets] == ["127.0.0.1:8123"]


def test_the_server_is_on_the_head_alone() -> None:
    told = monitoring_host_variables(site("monitoring.node_exporter_port=9200"))
    assert [told[role]["monitoring_server"] for role in ("head", "worker")] == [True, False]
    assert told["head"]["monitoring_node_exporter_address"] == "127.0.0.1:9200"
    assert str(told["worker"]["monitoring_node_exporter_address"]).endswith(":9200")


def test_the_role_is_told_of_secrets_only_where_they_are(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("https://hooks.example.net/planted\n")
    told = site(f"monitoring.webhook_file={hook}")
    check_secrets(told)
    assert monitoring_variables(told, supervisor=False)["monitoring_webhook_file"] == str(hook)
    assert "planted" not in json.dumps(monitoring_variables(told, supervisor=False), default=str)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("hooks.example.net/planted", "one http"),
        ("https://a b", "one http"),
    ],
)
def test_a_file_without_a_url_is_told_without_its_content(tmp_path: Path, content: str | None, said: str) -> None:
    hook = tmp_path / "hook"
    if content is not None:
        hook.write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        check_secrets(site(f"monitoring.dead_man_file={hook}"))
    assert "monitoring.dead_man_file" in caught.value.message
    assert "planted" not in caught.value.message + (caught.value.hint or "")


def test_half_a_login_is_refused(tmp_path: Path) -> None:
    mail = '{smarthost: "mail.example.net:587", sender: "a@example.net", to: "b@example.net", user: someone}'
    with pytest.raises(ConfigError, match="one of them is missing"):
        check_secrets(site(f"monitoring.email={mail}"))


@pytest.mark.parametrize(
    "override",
    [
        "monitoring.prometheus_port=9093",
        "monitoring.node_exporter_port=9090",
        "monitoring.scrape_every_s=1",
        "monitoring.runbook_base=docs.example.net",
        "monitoring.unknown=1",
    ],
)
def test_what_cannot_be_meant_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"monitoring"):
        site(override)


def target(job: str = "vllm", health: str = "up", role: str = "head") -> dict[str, Any]:
    labels = {"job": job, "instance": "127.0.0.1:1", "role": role}
    return {"labels": labels, "health": health, "lastError": "" if health == "up" else "connection refused"}


def alert(name: str, severity: str = "critical", state: str = "firing") -> dict[str, Any]:
    notes = {"summary": f"{name} it is.", "runbook_url": f"docs/runbooks/{name}.md"}
    return {"labels": {"alertname": name, "severity": severity}, "annotations": notes, "state": state}


def stack(targets: list[Any], alerts: list[Any], *, alertmanager: int | None = 200) -> StackState:
    def answer(probe: str, data: dict[str, Any]) -> ProbeResult:
        return ProbeResult(id=probe, rc=200, stdout=json.dumps({"status": "success", "data": data}))

    results = {
        "monitoring.targets": answer("monitoring.targets", {"activeTargets": targets}),
        "monitoring.alerts": answer("monitoring.alerts", {"alerts": alerts}),
        "monitoring.alertmanager": ProbeResult(id="monitoring.alertmanager", rc=alertmanager),
    }
    return parse_stack(NodeReading(node="head", reachable=True, results=results))


def test_a_sound_stack() -> None:
    state = stack(
        [target()], [alert("Watchdog", "none"), alert("MaintenanceHold", "info"), alert("KvQueue", state="pending")]
    )
    assert state.exit_code is ExitCode.OK
    assert "Watchdog" not in state.text()
    assert state.document("lab")["exit_code"] == 0


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (stack([target()], []), "no rule is evaluated"),
        (stack([target()], [alert("Watchdog", "none"), alert("RailDown")]), "docs/runbooks/RailDown.md"),
        (stack([target(health="down")], [alert("Watchdog", "none")]), "connection refused"),
        (stack([target(health="unknown")], [alert("RailDown")]), "docs/runbooks/RailDown.md"),
        (stack([target()], [alert("Watchdog", "none")], alertmanager=None), "nobody is told"),
        (stack([], [alert("Watchdog", "none")]), "no target is known"),
    ],
)
def test_a_stack_that_is_not_sound(state: StackState, said: str) -> None:
    assert state.exit_code is ExitCode.VERDICT_BAD
    assert said in state.text()


def test_a_prometheus_that_has_just_started_gives_no_verdict() -> None:
    state = stack([target(), target("node", health="unknown")], [])
    assert state.exit_code is ExitCode.NO_VERDICT
    assert "ask again" in state.text()
    assert "no rule is evaluated" not in state.text()


@pytest.mark.parametrize(
    "reading",
    [
        NodeReading(node="head", reachable=False, error="no route"),
        NodeReading(node="head", reachable=True),
        NodeReading(
            node="head",
            reachable=True,
            results={
                name: ProbeResult(id=name, rc=200, stdout=text)
                for name, text in (("monitoring.targets", "<html>"), ("monitoring.alerts", '{"data": {}}'))
            },
        ),
        NodeReading(
            node="head",
            reachable=True,
            results={
                name: ProbeResult(id=name, rc=200, stdout='{"data": {"activeTargets": [1], "alerts": []}}')
                for name in ("monitoring.targets", "monitoring.alerts")
            },
        ),
    ],
)
def test_no_prometheus_is_no_verdict(reading: NodeReading) -> None:
    with pytest.raises(NoVerdictError, match="head: "):
        parse_stack(reading)
