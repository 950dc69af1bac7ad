"""A site whose SSH configuration leads nowhere, and a state directory of the test's own."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from dspark_ops.ansible_run import runner
from dspark_ops.config.load import LoadedSite, load_site

SITE = """
version: 1
name: desk
profile: rehearsal
ssh: {{config: {ssh_config}, connect_timeout_s: 3}}
nodes:
  head: {{host: spark-head}}
  worker: {{host: spark-worker}}
fabric:
  rails:
    - name: p0a
      head: {{netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.1/24}}
      worker: {{netdev: enp1s0f1np1, hca: rocep1s0f1, address: 10.77.0.2/24}}
image:
  reference: dspark-engine-rehearsal:abc
  id: sha256:1111111111111111111111111111111111111111111111111111111111111111
"""
# Loopback, a port nobody listens on: refused at once, and no packet leaves the machine.
SSH_CONFIG = "Host spark-head spark-worker\n  HostName 127.0.0.1\n  Port 1\n  User nobody\n"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "dspark-ops"


@pytest.fixture
def loaded(tmp_path: Path, state: Path) -> LoadedSite:
    (tmp_path / "ssh_config").write_text(SSH_CONFIG)
    path = tmp_path / "site.yml"
    path.write_text(SITE.format(ssh_config=tmp_path / "ssh_config"))
    return load_site(path, environ={})


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for ansible-playbook: a Python program whose text the test writes."""
    path = tmp_path / "ansible-playbook"
    monkeypatch.setattr(runner, "_program", lambda: path)
    return path


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
