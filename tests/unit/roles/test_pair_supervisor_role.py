"""Removing the supervisor, run for real on this machine: what is planned is what is done, and the node is as it was."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.paths import data_dir
from tests.unit.roles.fake_systemd import SYSTEMCTL

# Several runs of ansible-playbook on a busy machine.
pytestmark = pytest.mark.timeout(600)

UNIT = "dspark-supervisor.service"
OURS = 'restrict,command="x" ssh-ed25519 AAAA dspark-supervisor\n'


class Pair:
    """Two nodes in directories of their own; only `systemctl` is the test's."""

    def __init__(self, root: Path) -> None:
        self.root, self.systemd, self.units = root, root / "systemd", root / "units"
        for folder in (self.systemd, self.units):
            folder.mkdir()
        (root / "inventory").write_text(
            "[pair]\nhead\nworker\n[pair:vars]\nansible_connection=local\nansible_user=root\n"
            f"ansible_python_interpreter={sys.executable}\n"
        )
        state = {"known": [UNIT, "docker.service"], "enabled": [UNIT, "docker.service"], "active": [UNIT]}
        (self.systemd / "state").write_text(json.dumps(state))

    def put(self, node: str, **files: str) -> None:
        for name, text in files.items():
            path = self.root / node / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def left(self) -> set[str]:
        """What is on both nodes."""
        found = [path for node in ("head", "worker") for path in (self.root / node).rglob("*")]
        return {str(path.relative_to(self.root)) for path in found}

    def run(self, playbook: Path, *, check: bool = False, **more: Any) -> Mapping[str, int]:
        """How many tasks changed each node. A failure fails the test."""
        node = f"{self.root}/{{{{ inventory_hostname }}}}"
        variables = {
            "pair_supervisor_site": "desk",
            "__pair_supervisor_unit_file": f"{self.units}/{{{{ inventory_hostname }}}}-{UNIT}",
            "__pair_supervisor_lib": f"{node}/lib",
            "__pair_supervisor_pyz": f"{node}/lib/supervise.pyz",
            "__pair_supervisor_before": f"{node}/lib/supervise.before.json",
            "__pair_supervisor_etc": f"{node}/etc",
            "__pair_supervisor_json": f"{node}/etc/supervise.json",
            "__pair_supervisor_key": f"{node}/etc/supervise_key",
            "__pair_supervisor_known_hosts": f"{node}/etc/supervise_known_hosts",
            "__pair_supervisor_run": f"{node}/run",
            "__pair_supervisor_var": f"{node}/var",
            "__pair_supervisor_state_dir": f"{node}/var/supervise",
            "__pair_supervisor_root_ssh": f"{node}/ssh",
            "__pair_supervisor_authorized": f"{node}/ssh/authorized_keys",
        }
        ended = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", str(self.root / "inventory"), str(playbook), *(["--check"] if check else [])),
                *("-e", json.dumps(variables | more)),
            ],
            cwd=self.root,
            env=os.environ
            | {
                "ANSIBLE_HOME": str(self.root / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_ROLES_PATH": str(data_dir("playbooks") / "roles"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return {name: int(count) for name, count in re.findall(r"^(\w+) .*changed=(\d+) ", ended.stdout, re.MULTILINE)}


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: Callable[[str, str], None]) -> Pair:
    on_path("systemctl", SYSTEMCTL)
    made = Pair(tmp_path)
    monkeypatch.setenv("FAKE_SYSTEMD", str(made.systemd))
    monkeypatch.setenv("FAKE_UNITS", str(made.units))
    return made


def test_removed_as_planned_and_the_node_is_as_it_was(pair: Pair) -> None:
    (pair.units / f"head-{UNIT}").write_text("[Unit]")
    was = {"head": {"docker_at_boot": True, "root_ssh": True}, "worker": {"docker_at_boot": False, "root_ssh": False}}
    for node, found in was.items():
        pair.put(node, lib__supervise_DOT_pyz="p", lib__supervise_DOT_before_DOT_json=json.dumps(found))
    pair.put(
        "head", etc__supervise_DOT_json="{}", etc__supervise_key="k", var__supervise__state="s", ssh__config="mine"
    )
    pair.put("head", etc__supervise_notes_DOT_md="of a person")
    pair.put("worker", ssh__authorized_keys=OURS)
    (pair.root / "head/run").mkdir()
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(pair.root / "head/run")  # the whole path may be too long for a socket
    try:
        server.bind("supervise.sock")
    finally:
        os.chdir(here)
    playbook = data_dir("playbooks") / "supervise.yml"
    planned = pair.run(playbook, check=True, pair_supervisor_state="absent")
    assert (pair.root / "worker/ssh/authorized_keys").exists()
    made = pair.run(playbook, pair_supervisor_state="absent")
    server.close()
    assert made == planned
    assert pair.left() == {"head/etc", "head/etc/supervise_notes.md", "head/ssh", "head/ssh/config"}
    assert "docker.service" not in json.loads((pair.systemd / "state").read_text())["enabled"]
    assert pair.run(playbook, pair_supervisor_state="absent") == {"head": 0, "worker": 0}


def test_half_a_key_is_made_anew(pair: Pair) -> None:
    """Its public half would be missing in the worker's line for ever."""
    pair.put("head", etc__supervise_key="cut off")
    playbook = pair.root / "key.yml"
    role = {"name": "pair_supervisor", "tasks_from": "head_key"}
    told = {"copy": {"content": "{{ pair_supervisor_line }}", "dest": str(pair.root / "line")}}
    tasks = [{"include_role": role}, told]
    playbook.write_text(json.dumps([{"hosts": "head", "gather_facts": False, "tasks": tasks}]))
    pair.run(playbook)
    public = (pair.root / "head/etc/supervise_key.pub").read_text().strip()
    assert public.endswith(" dspark-supervisor")
    assert (pair.root / "line").read_text().endswith(public)
    assert pair.run(playbook) == {"head": 0}
