"""What ansible-playbook is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dspark_ops.ansible_run.command import PlaybookRun, build_argv, build_environment

RUN = PlaybookRun(
    program=Path("/venv/bin/ansible-playbook"),
    playbook=Path("/data/playbooks/deploy.yml"),
    inventory=Path("/run/inventory.json"),
    variables=Path("/run/variables.json"),
    events=Path("/run/events.jsonl"),
    home=Path("/state/ansible"),
    config=Path("/pkg/ansible.cfg"),
    callback_plugins=Path("/pkg/callback_plugins"),
)


def test_values_travel_in_files_and_flags_only_when_asked_for() -> None:
    assert build_argv(RUN) == (
        "/venv/bin/ansible-playbook",
        "--inventory",
        "/run/inventory.json",
        "--extra-vars",
        "@/run/variables.json",
        "/data/playbooks/deploy.yml",
    )
    full = build_argv(replace(RUN, tags=("image", "settle"), check=True, diff=True))
    assert full[5:] == ("--tags", "image,settle", "--check", "--diff", "/data/playbooks/deploy.yml")


def test_the_operators_ansible_settings_do_not_reach_the_run() -> None:
    mine = {"ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_CONFIG": "/cwd/ansible.cfg", "PATH": "/bin", "LC_ALL": "C"}
    env = build_environment(RUN, mine)
    assert "ANSIBLE_HOST_KEY_CHECKING" not in env
    assert env["ANSIBLE_CONFIG"] == "/pkg/ansible.cfg"
    assert env["PATH"] == "/bin"
    assert env["LC_ALL"] == "C.UTF-8"
    assert env["DSPARK_EVENTS"] == "/run/events.jsonl"
    assert env["ANSIBLE_ROLES_PATH"] == "/data/playbooks/roles"


def test_the_configuration_checks_host_keys_and_never_waits_for_a_password() -> None:
    import configparser

    from dspark_ops.ansible_run import runner

    parsed = configparser.ConfigParser()
    parsed.read(Path(runner.__file__).with_name("ansible.cfg"))
    assert parsed["defaults"]["host_key_checking"] == "true"
    assert parsed["ssh_connection"]["pipelining"] == "true"
    assert "-n" in parsed["privilege_escalation"]["become_flags"].split()
