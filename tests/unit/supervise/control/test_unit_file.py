"""The unit of the supervisor, as Ansible renders it: what its safety rests on."""

from __future__ import annotations

import configparser

import yaml

from dspark_ops.facts import supervisor
from dspark_ops.paths import data_dir
from dspark_ops.supervise.control.places import KEY, KNOWN_HOSTS
from dspark_ops.supervise.node.places import Places
from dspark_ops.transport.readonly import PROGRAM
from tests.unit.roles.test_templates import render


def test_it_lives_by_progress_and_is_never_given_up_on() -> None:
    text = render(
        "dspark-supervisor.service.j2",
        pair_supervisor_site="desk",
        pair_supervisor_watchdog_s=60,
        __pair_supervisor_pyz=PROGRAM,
    )
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    assert service["ExecStart"] == f"/usr/bin/python3 -I {PROGRAM} run"
    assert (service["Type"], service["WatchdogSec"], service["Restart"]) == ("notify", "60", "always")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert "docker.service" in unit["Unit"]["After"]
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert f"/var/lib/{service['StateDirectory']}" == str(Places().state_dir)
    assert f"/run/{service['RuntimeDirectory']}" == str(Places().run_dir)


def test_role_daemon_and_control_host_mean_the_same_files() -> None:
    role = yaml.safe_load((data_dir("playbooks") / "roles/pair_supervisor/vars/main.yml").read_text(encoding="utf-8"))
    assert role["__pair_supervisor_json"] == supervisor.CONFIG == str(Places().config)
    assert role["__pair_supervisor_unit_file"] == supervisor.UNIT_FILE
    assert role["__pair_supervisor_pyz"] == PROGRAM
    assert (role["__pair_supervisor_key"], role["__pair_supervisor_known_hosts"]) == (KEY, KNOWN_HOSTS)
    assert role["__pair_supervisor_forced"] == f'restrict,command="/usr/bin/python3 {PROGRAM} rank"'
