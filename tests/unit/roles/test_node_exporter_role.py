"""The role of the exporter, run for real on this machine; only `systemctl` and the places are the test's."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.observe.exporter.config import parse_config
from dspark_ops.paths import data_dir
from tests.unit.observe.exporter import trees
from tests.unit.roles.fake_systemd import SYSTEMCTL, FakeSystemd

# Several runs of ansible-playbook on a busy machine.
pytestmark = pytest.mark.timeout(600)

# What systemctl shows beyond the fake of the doctor's timer: the unit runs since now.
SINCE = """
import time
if "ActiveEnterTimestamp" in " ".join(sys.argv):
    print("ActiveEnterTimestamp=@%d" % (time.time() + 1))
"""
PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: node_exporter_dspark
"""


class Machine:
    """A node with the role's places below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.units, self.lib, self.etc = (root / name for name in ("units", "lib", "etc"))
        self.systemd = FakeSystemd(root / "systemd")
        self.units.mkdir()
        (root / "play.yml").write_text(PLAY)
        self.program = root / "program.pyz"
        self.program.write_text("program 1\n")

    def run(self, state: str = "present", *, check: bool = False) -> tuple[int, str]:
        """How many tasks changed something, and all that was said. A failure fails the test."""
        variables = {
            "ansible_python_interpreter": sys.executable,
            "node_exporter_dspark_state": state,
            "node_exporter_dspark_program": str(self.program),
            "node_exporter_dspark_config": trees.configuration(),
            "node_exporter_dspark_wait_s": 0,
            "__node_exporter_dspark_templates": str(data_dir("templates")),
            "__node_exporter_dspark_unit_file": str(self.units / "dspark-exporter.service"),
            "__node_exporter_dspark_lib": str(self.lib),
            "__node_exporter_dspark_pyz": str(self.lib / "exporter.pyz"),
            "__node_exporter_dspark_etc": str(self.etc),
            "__node_exporter_dspark_json": str(self.etc / "exporter.json"),
        }
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "play.yml"]
        argv += ["-e", json.dumps(variables), *(["--check"] if check else [])]
        environment = os.environ | {
            "ANSIBLE_ROLES_PATH": str(data_dir("playbooks") / "roles"),
            "ANSIBLE_LOCAL_TEMP": str(self.root / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
        }
        ended = subprocess.run(argv, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        found = re.search(r"changed=(\d+) ", ended.stdout)
        assert found is not None, ended.stdout
        return int(found[1]), ended.stdout


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: Callable[[str, str], None]) -> Machine:
    made = Machine(tmp_path)
    on_path("systemctl", SINCE + SYSTEMCTL)
    monkeypatch.setenv("FAKE_SYSTEMD", str(made.systemd.home))
    monkeypatch.setenv("FAKE_UNITS", str(made.units))
    return made


def test_installed_a_second_time_unchanged_and_removed(machine: Machine) -> None:
    foretold, _ = machine.run(check=True)
    assert foretold >= 3
    assert not machine.lib.exists()
    assert not list(machine.units.iterdir())

    made, _ = machine.run()
    assert made >= foretold
    assert machine.systemd.state["active"] == machine.systemd.state["enabled"] == ["dspark-exporter.service"]
    config = machine.etc / "exporter.json"
    assert parse_config(config.read_text()).site == "example"
    assert stat.S_IMODE(config.stat().st_mode) == 0o644
    assert (machine.lib / "exporter.pyz").read_text() == "program 1\n"

    machine.systemd.take_calls()
    again, _ = machine.run()
    assert again == 0
    assert "restart" not in machine.systemd.take_calls()

    machine.program.write_text("program 2\n")
    assert machine.run()[0] == 2
    assert "restart dspark-exporter.service" in machine.systemd.take_calls()

    # A run that was killed before its restart left a program that is older than its configuration.
    later = time.time() + 3600
    os.utime(config, (later, later))
    assert machine.run()[0] == 1
    assert "restart dspark-exporter.service" in machine.systemd.take_calls()

    (machine.etc / "somebody-elses.json").write_text("{}")
    machine.run("absent")
    assert machine.systemd.state["active"] == machine.systemd.state["enabled"] == []
    assert not list(machine.units.iterdir())
    assert not machine.lib.exists()
    assert [path.name for path in machine.etc.iterdir()] == ["somebody-elses.json"]
