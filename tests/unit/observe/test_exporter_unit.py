"""The unit of the exporter as systemd reads it: no root, no Docker, and keys as credentials."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dspark_ops.paths import data_dir
from tests.unit.roles.test_templates import render

ROLE = data_dir("playbooks") / "roles/node_exporter_dspark"


def unit(key: str = "") -> str:
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    return render("dspark-exporter.service.j2", **variables, node_exporter_dspark_engine_key=key)


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_it_is_a_user_of_its_own_with_one_capability() -> None:
    told = settings(unit())
    assert told["DynamicUser"] == ["yes"]
    assert "User" not in told
    assert told["CapabilityBoundingSet"] == told["AmbientCapabilities"] == ["CAP_SYSLOG"]
    assert told["NoNewPrivileges"] == ["yes"]


def test_it_reads_its_file_and_cannot_reach_the_engine_below() -> None:
    told = settings(unit())
    command = "/usr/bin/python3 -I /usr/local/lib/dspark/exporter.pyz --config /etc/dspark/exporter.json"
    assert told["ExecStart"] == [command]
    assert "-/run/docker.sock" in told["InaccessiblePaths"][0].split()
    assert "LoadCredential" not in told


def test_a_key_of_the_engine_is_a_credential_and_not_an_argument() -> None:
    told = settings(unit("/etc/dspark/engine.key"))
    assert told["LoadCredential"] == ["engine-key:/etc/dspark/engine.key"]
    assert "engine.key" not in told["ExecStart"][0]
    assert "Environment" not in told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """Complaints of other units and of the program, which is not installed here, are not this test's."""
    path = tmp_path / "dspark-exporter.service"
    path.write_text(unit("/etc/dspark/engine.key").replace("/usr/local/lib/dspark/exporter.pyz", "/dev/null"))
    ended = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    complaints = [line for line in ended.stderr.splitlines() if path.name in line]
    assert complaints == []
