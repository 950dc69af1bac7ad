"""The real Prometheus and Alertmanager with our configuration, on loopback, reading recorded scrapes.

Every rule loads and is evaluated without an error, every target answers, the heartbeat reaches its receiver, and a hold
keeps quiet what it should and nothing else.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.observe.monitoring import jobs, monitoring_variables
from tests.free_ports import free_port
from tests.monitoring.rule_files import RULES, need_programs
from tests.monitoring.scrapes import SCRAPES
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.roles.test_templates import render

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 240


@dataclass
class Stand:
    """Recorded scrapes behind one port, and what was posted to it."""

    port: int
    posted: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Stack:
    """Both programs, up."""

    prometheus: str
    alertmanager: str
    stand: Stand


def ask(url: str, body: object | None = None) -> Any:
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Content-Type": "application/json"})  # noqa: S310 (loopback)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        text = answer.read()
    return json.loads(text) if text[:1] in b"{[" and text else text.decode()


def eventually(what: str, look: Callable[[], Any]) -> Any:
    """What it gives once that is something; a program that is not up yet gives nothing."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := look():
                return found
        except (OSError, urllib.error.URLError):
            pass
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    texts = {path.stem: path.read_bytes() for path in SCRAPES}
    texts["vllm"], texts["dspark-supervisor"] = texts["half-draft"], b"dspark_supervisor_held 0\n"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = texts.get(self.path.strip("/").partition("/")[0])
            self.send_response(200 if raw is not None else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(raw or b"")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            made.posted.append({"path": self.path} | json.loads(raw))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silence."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Stand(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def stack(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started from what the role renders; only the addresses of the targets are the test's."""
    need_programs()
    root = tmp_path_factory.mktemp("stack")
    etc = root / "etc"
    (etc / "rules").mkdir(parents=True)
    ports = free_port(), free_port()
    told = monitoring_variables(load_case_site().site, supervisor=True) | {
        "monitoring_etc": str(etc),
        "monitoring_scrape_every_s": 1,
        "monitoring_prometheus_port": ports[0],
        "monitoring_alertmanager_port": ports[1],
        "__monitoring_webhook": f"http://127.0.0.1:{stand.port}/people",
        "__monitoring_dead_man": f"http://127.0.0.1:{stand.port}/dead-man",
        "__monitoring_password": "",
    }
    for path in RULES.glob("*.yml"):
        (etc / "rules" / path.name).write_bytes(path.read_bytes())
    (etc / "rules/site.yml").write_text(render("monitoring/site_rules.yml.j2", **told))
    page = {"vllm": "vllm", "dspark": "head", "dspark-supervisor": "dspark-supervisor", "node": "node"}
    text = render("monitoring/prometheus.yml.j2", **told)
    for job in jobs(load_case_site().site, supervisor=True):
        if job.name in page:
            text = text.replace(
                f"- job_name: {job.name}\n", f"- job_name: {job.name}\n    metrics_path: /{page[job.name]}/metrics\n"
            )
            for target in job.targets:
                text = text.replace(f'["{target.address}"]', f'["127.0.0.1:{stand.port}"]')
        else:
            port = ports[0] if job.name == "prometheus" else ports[1]
            text = text.replace(f'["{job.targets[0].address}"]', f'["127.0.0.1:{port}"]')
    (etc / "prometheus.yml").write_text(text)
    text = render("monitoring/alertmanager.yml.j2", **told)
    # A group that waits 0 s may have its first turn before its first alert is in it: the next one half a minute later.
    assert text.count("group_interval: 30s\n") == 1
    text = text.replace("group_interval: 30s\n", "group_interval: 1s\n")
    (etc / "alertmanager.yml").write_text(text)
    with (root / "log").open("wb") as log:
        programs = [
            subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            for words in (
                [
                    "prometheus",
                    f"--config.file={etc / 'prometheus.yml'}",
                    f"--storage.tsdb.path={root / 'data'}",
                    f"--web.listen-address=127.0.0.1:{ports[0]}",
                    # It sends first before it knows Alertmanager, and by default again only after a minute.
                    "--rules.alert.resend-delay=1s",
                ],
                [
                    "prometheus-alertmanager",
                    f"--config.file={etc / 'alertmanager.yml'}",
                    f"--storage.path={root / 'alerts'}",
                    "--cluster.listen-address=",
                    f"--web.listen-address=127.0.0.1:{ports[1]}",
                ],
            )
        ]
        try:
            yield Stack(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", stand)
        finally:
            for program in programs:
                program.terminate()
                program.wait(30)


def test_every_target_answers(stack: Stack) -> None:
    def all_up() -> Any:
        found = ask(f"{stack.prometheus}/api/v1/targets?state=active")["data"]["activeTargets"]
        return found if found and all(target["health"] == "up" for target in found) else None

    found = eventually("every target up", all_up)
    assert len({(t["labels"]["job"], t["labels"]["role"]) for t in found}) == 8


def test_every_rule_is_evaluated_without_an_error(stack: Stack) -> None:
    def evaluated() -> Any:
        groups = ask(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None

    rules = eventually("every rule evaluated", evaluated)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert len(rules) >= 32


def test_what_says_when_a_series_was_made_is_not_kept(stack: Stack) -> None:
    eventually("series of the engine", lambda: names_like(stack, "vllm:num_requests_running"))
    assert names_like(stack, "vllm:generation_tokens_created") == []


def names_like(stack: Stack, name: str) -> list[Any]:
    found: list[Any] = ask(f"{stack.prometheus}/api/v1/query?query={name}")["data"]["result"]
    return found


def test_the_heartbeat_reaches_its_receiver_and_no_other(stack: Stack) -> None:
    def beats() -> list[dict[str, Any]]:
        return [post for post in stack.stand.posted if post["path"] == "/dead-man"]

    eventually("a heartbeat", beats)
    assert {alert["labels"]["alertname"] for post in beats() for alert in post["alerts"]} == {"Watchdog"}
    people = [post for post in stack.stand.posted if post["path"] == "/people"]
    assert "Watchdog" not in {alert["labels"]["alertname"] for post in people for alert in post["alerts"]}


def test_a_hold_keeps_the_engine_quiet_and_nothing_else(stack: Stack) -> None:
    def sent(name: str, severity: str, **labels: str) -> dict[str, Any]:
        return {"labels": {"alertname": name, "severity": severity, "role": "head", **labels}}

    alerts = [
        sent("MaintenanceHold", "info"),
        sent("EngineWedged", "critical", job="vllm"),
        sent("CanaryFailing", "critical", job="dspark"),
        sent("TargetMissing", "critical", job="vllm"),
        sent("TargetMissing", "critical", job="node"),
        sent("SourceDown", "warning", job="engine", source="engine"),
        sent("SourceDown", "warning", job="gpu", source="gpu"),
        sent("RailDown", "critical", job="dspark"),
        sent("XidFatal", "critical", job="dspark"),
    ]
    eventually("Alertmanager", lambda: ask(f"{stack.alertmanager}/-/ready") is not None)
    ask(f"{stack.alertmanager}/api/v2/alerts", alerts)

    def states() -> Any:
        found = {
            (alert["labels"]["alertname"], alert["labels"].get("job")): alert["status"]["state"]
            for alert in ask(f"{stack.alertmanager}/api/v2/alerts")
        }
        return found if found.get(("EngineWedged", "vllm")) == "suppressed" else None

    found = eventually("the hold's effect", states)
    assert found["CanaryFailing", "dspark"] == "suppressed"
    assert found["TargetMissing", "vllm"] == found["SourceDown", "engine"] == "suppressed"
    others = (("TargetMissing", "node"), ("SourceDown", "gpu"), ("RailDown", "dspark"), ("XidFatal", "dspark"))
    assert {found[alert] for alert in others} == {"active"}


def test_the_units_are_what_systemd_reads(tmp_path: Path) -> None:
    if subprocess.run(["which", "systemd-analyze"], capture_output=True, check=False).returncode != 0:
        pytest.skip("systemd-analyze is not installed")
    told = monitoring_variables(load_case_site().site, supervisor=True) | {
        "monitoring_etc": "/etc/dspark/monitoring",
        "monitoring_prometheus_memory_max": "512M",
        "monitoring_node_exporter_address": "127.0.0.1:9100",
        "monitoring_textfile_dir": "/var/lib/prometheus/node-exporter",
    }
    units = []
    for name in ("prometheus", "alertmanager", "node-exporter"):
        units.append(tmp_path / f"dspark-{name}.service")
        units[-1].write_text(render(f"monitoring/dspark-{name}.service.j2", **told))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if "dspark-" in line] == [], done.stderr
