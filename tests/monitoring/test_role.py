"""The role `monitoring` run by ansible-playbook below a directory of the test; only systemctl is the test's.

The configurations that it writes are judged by the real promtool and amtool while it writes them.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspark_ops.ansible_run import runner
from dspark_ops.observe.monitoring import monitoring_host_variables, monitoring_variables
from dspark_ops.paths import data_dir
from tests.free_ports import free_port
from tests.monitoring.rule_files import RULES, need_programs
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.roles.test_doctor_timer import SYSTEMCTL

# Several runs of ansible-playbook on a busy machine.
pytestmark = pytest.mark.timeout(1800)
SECRET = "https://hooks.example.net/planted-secret-4711"  # noqa: S105 (planted)
# What systemctl shows beyond the fake of the doctor's timer: a unit runs since now, and got no credential.
TIMES = """
if "ActiveEnterTimestamp" in " ".join(sys.argv):
    print("ActiveEnterTimestamp=@%d" % (time.time() + 1))
elif "ExecMainStatus" in " ".join(sys.argv):
    print("ExecMainStatus=243")
"""
UNITS = ("dspark-alertmanager.service", "dspark-node-exporter.service", "dspark-prometheus.service")


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    need_programs()


class Machine:
    """A node as the role sees it: its directories are the test's."""

    def __init__(self, root: Path, role: str = "head") -> None:
        self.root, self.role = root, role
        self.etc, self.units, self.state = root / "etc/monitoring", root / "units", root / "systemd"
        for folder in (self.units, self.state, root / "playbooks", root / "bin", root / "tmp", root / "data"):
            folder.mkdir(parents=True)
        (root / "templates").symlink_to(data_dir("templates"))
        (self.state / "state").write_text('{"known": [], "enabled": [], "active": []}')
        (root / "hook").write_text(SECRET + "\n")
        program = root / "bin/systemctl"
        program.write_text(f"#!{sys.executable} -IS\nimport json, os, sys, time\n{TIMES}{SYSTEMCTL}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "tasks": [{"import_role": {"name": "monitoring"}}],
        }
        (root / "playbooks/one.yml").write_text(yaml.safe_dump([play]))
        site = load_case_site().site
        self.ports = {name: free_port() for name in ("prometheus", "alertmanager", "node")}
        self.variables: dict[str, Any] = {
            **monitoring_variables(site, supervisor=True),
            **monitoring_host_variables(site)[role],  # type: ignore[index]
            "monitoring_etc": str(self.etc),
            "monitoring_unit_dir": str(self.units),
            "monitoring_record": str(root / "record"),
            "monitoring_data_dir": str(root / "data"),
            "monitoring_wait_s": 0,
            "monitoring_prometheus_port": self.ports["prometheus"],
            "monitoring_alertmanager_port": self.ports["alertmanager"],
            "monitoring_node_exporter_address": f"127.0.0.1:{self.ports['node']}",
            "monitoring_webhook_file": str(root / "hook"),
            "monitoring_dead_man_file": str(root / "hook"),
            "monitoring_kv_pool_tokens": 1_000_000,
            "monitoring_runbook_base": "https://docs.example.net/dspark/",
        }

    def play(self, *words: str, **variables: Any) -> tuple[int, str, int]:
        """Run it: exit status, what it said, and how many tasks changed something."""
        given = self.root / "variables.json"
        given.write_text(json.dumps(self.variables | variables))
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("--inventory", "localhost,", "--extra-vars", f"@{given}", "--diff", *words),
                str(self.root / "playbooks/one.yml"),
            ],
            env={
                "PATH": f"{self.root / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.root / "tmp"),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_CONFIG": str(Path(runner.__file__).with_name("ansible.cfg")),
                "ANSIBLE_CALLBACK_PLUGINS": str(Path(runner.__file__).with_name("callback_plugins")),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_HOME": str(self.root / "tmp"),
                "ANSIBLE_ROLES_PATH": str(data_dir("playbooks") / "roles"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
                "DSPARK_EVENTS": str(self.root / "events"),
                "FAKE_SYSTEMD": str(self.state),
                "FAKE_UNITS": str(self.units),
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        recap = [line for line in said.splitlines() if line.startswith("localhost") and "changed=" in line]
        changed = int(recap[-1].split("changed=")[1].split()[0]) if recap else -1
        return done.returncode, said, changed

    def systemd(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads((self.state / "state").read_text())
        return found

    def restarted(self) -> set[str]:
        """The units that systemctl was told to restart."""
        calls = (self.state / "calls").read_text().splitlines()
        return {line.split()[-1] for line in calls if line.startswith("restart ")}

    def files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.root)): path.read_text()
            for folder in (self.etc, self.units)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def head(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_head_from_nothing_and_back(head: Machine) -> None:
    # Each run costs seconds of a core: the one that foretells also has packages missing, and so on.
    dpkg = head.root / "bin/dpkg-query"
    dpkg.write_text("#!/bin/sh\necho 'prometheus installed'\necho 'dpkg-query: no packages found' >&2\nexit 1\n")
    dpkg.chmod(0o755)
    code, said, foretold = head.play("--check")
    assert code == 0, said
    assert foretold > 5
    assert "prometheus-alertmanager would be installed" in said
    assert '"prometheus would be installed' not in said
    assert head.files() == {}
    assert os.listdir(head.units) == []  # noqa: PTH208 (names)
    dpkg.unlink()

    code, said, changed = head.play()
    assert code == 0, said
    assert changed > 5
    assert sorted(path.name for path in head.units.iterdir()) == list(UNITS)
    assert head.systemd()["active"] == head.systemd()["enabled"]
    assert sorted(head.systemd()["active"]) == list(UNITS)
    # The secret is where it belongs, root's alone, and in nothing that was said.
    alertmanager = head.etc / "alertmanager.yml"
    assert stat.S_IMODE(alertmanager.stat().st_mode) == 0o600
    receivers = {entry["name"]: entry for entry in yaml.safe_load(alertmanager.read_text())["receivers"]}
    assert receivers["people"]["webhook_configs"][0]["url"] == SECRET
    assert receivers["dead-man"]["webhook_configs"][0]["url"] == SECRET
    assert "planted-secret" not in said
    assert [name for name, text in head.files().items() if "planted-secret" in text] == [
        "etc/monitoring/alertmanager.yml"
    ]
    # The rules are those of the tree, with the address of the docs before each runbook, and the site's own.
    for path in RULES.glob("*.yml"):
        written = (head.etc / "rules" / path.name).read_text()
        assert written.replace("https://docs.example.net/dspark/docs/", "docs/") == path.read_text()
        assert "runbook_url: https://docs.example.net/dspark/docs/runbooks/" in written
    assert "vector(1000000)" in (head.etc / "rules/site.yml").read_text()
    jobs = {job["job_name"] for job in yaml.safe_load((head.etc / "prometheus.yml").read_text())["scrape_configs"]}
    assert jobs == {"vllm", "dspark", "dspark-supervisor", "node", "prometheus", "alertmanager"}

    # A rule of an earlier version goes, and Prometheus is restarted for it. A run that was killed before its restarts
    # left an Alertmanager that is older than its file. Nothing else is touched: two tasks change something.
    files = head.files()
    (head.etc / "rules/older.yml").write_text("groups: []\n")
    later = time.time() + 3600
    os.utime(alertmanager, (later, later))
    (head.state / "calls").write_text("")
    code, said, changed = head.play()
    assert (code, changed) == (0, 2), said
    assert head.files() == files
    assert head.restarted() == {"dspark-prometheus.service", "dspark-alertmanager.service"}

    # What is as it should be is left alone; a program that does not answer is told with what systemd says of it.
    now = time.time() - 3600
    os.utime(alertmanager, (now, now))
    (head.state / "calls").write_text("")
    code, said, changed = head.play(monitoring_wait_s=2)
    assert (code, changed, head.restarted()) == (2, 0, set()), said
    assert head.files() == files
    told = [line for line in said.splitlines() if "[monitoring.silent]" in line]
    assert f"127.0.0.1:{head.ports['alertmanager']}, " in told[0]
    assert "ExecMainStatus=243" in told[0]
    assert "could not hand the unit its credential" in told[0]

    (head.root / "data/dspark-prometheus").mkdir()
    code, said, changed = head.play(monitoring_state="absent")
    assert code == 0, said
    assert head.files() == {}
    assert head.systemd()["active"] == head.systemd()["enabled"] == []
    assert list((head.root / "data").iterdir()) == []
    code, said, changed = head.play(monitoring_state="absent")
    assert (code, changed) == (0, 0), said


def test_a_port_that_somebody_else_has_is_refused_first(head: Machine) -> None:
    with socket.create_server(("127.0.0.1", head.ports["alertmanager"])):
        code, said, _ = head.play()
    assert code == 2
    assert "[host.monitoring_port]" in said
    assert "monitoring.alertmanager_port" in said
    assert head.files() == {}


def test_the_worker_has_a_node_exporter_and_nothing_else(tmp_path: Path) -> None:
    worker = Machine(tmp_path, "worker")
    code, said, _ = worker.play()
    assert code == 0, said
    assert sorted(worker.files()) == ["units/dspark-node-exporter.service"]
    assert worker.systemd()["active"] == ["dspark-node-exporter.service"]
