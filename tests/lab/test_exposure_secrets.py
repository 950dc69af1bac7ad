"""Twenty planted keys on the pair: none is in a log, a process list, an inspect output, a diff or a bundle."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspark_ops.ansible_run import runner
from dspark_ops.ansible_run.command import PlaybookRun, build_environment
from dspark_ops.ansible_run.inventory import render_inventory
from dspark_ops.config.load import load_site
from dspark_ops.exposure.credentials import Credential, role_variables
from dspark_ops.paths import data_dir
from tests.lab.operator_cli import HOSTS, Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(600)]
_PLAY = [
    {
        "name": "Credentials",
        "hosts": "pair",
        "become": True,
        "tasks": [
            {"name": "Hand the keys over", "ansible.builtin.import_role": {"name": "credentials"}},
            {
                "name": "Write a unit that takes them",
                "ansible.builtin.copy": {
                    "dest": "/etc/systemd/system/dspark-test-keys.service",
                    "mode": "0644",
                    "content": "[Service]\nType=oneshot\nRemainAfterExit=yes\n{{ credentials_lines | join('\n') }}\n"
                    "ExecStart=/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/* | sha256sum'\n",
                },
            },
            {
                "name": "Start it",
                "ansible.builtin.systemd_service": {
                    "name": "dspark-test-keys.service",
                    "daemon_reload": True,
                    "state": "started",
                },
            },
        ],
    }
]


@pytest.fixture
def planted(operator: Operator, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Name to key: ten are credentials, five stand in an environment file of a service, five in a site file."""
    kinds = ("credential", "environment", "site")
    keys = {
        f"{kind}{index}": f"planted-{secrets.token_hex(12)}"
        for kind, count in zip(kinds, (10, 5, 5), strict=True)
        for index in range(count)
    }
    (tmp_path / "keys").mkdir(mode=0o700)
    for name, key in keys.items():
        path = tmp_path / "keys" / name
        path.write_text(key + "\n")
        path.chmod(0o600)
    yield keys
    for role in HOSTS:
        operator.on(role, "systemctl", "stop", "dspark-test-keys", "dspark-test-env", check=False)
        files = "/etc/systemd/system/dspark-test-keys.service /run/dspark-test.env /etc/dspark/credentials"
        operator.on(role, "rm", "-rf", *files.split())
        operator.on(role, "systemctl", "daemon-reload")


def play(operator: Operator, names: list[str], folder: Path) -> str:
    """Run the role on both nodes with --diff and much output; all that it said."""
    site = load_site(operator.site).site
    run = folder / "run"
    run.mkdir(exist_ok=True)
    files = {
        "play.json": _PLAY,
        "inventory.json": render_inventory(site, {}, control_dir=run / "cp"),
        "variables.json": role_variables(Credential(name, folder / "keys" / name) for name in names),
    }
    for name, document in files.items():
        (run / name).write_text(json.dumps(document, default=str))
    program = Path(sys.executable).parent / "ansible-playbook"
    package = Path(runner.__file__).parent
    told = PlaybookRun(
        program=program,
        playbook=data_dir("playbooks") / "exposure.yml",
        inventory=run / "inventory.json",
        variables=run / "variables.json",
        events=run / "events.jsonl",
        home=run,
        config=package / "ansible.cfg",
        callback_plugins=package / "callback_plugins",
    )
    done = subprocess.run(
        [
            str(program),
            "--diff",
            "-vvv",
            "--inventory",
            str(run / "inventory.json"),
            "--extra-vars",
            f"@{run / 'variables.json'}",
            str(run / "play.json"),
        ],
        env=build_environment(told, os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout + done.stderr + (run / "events.jsonl").read_text() + (run / "variables.json").read_text()


def everywhere(operator: Operator, role: str) -> str:
    """What a user or a bug report of the node would show."""
    shown = [
        ("journalctl", "--no-pager", "-q", "-n", "20000", "-o", "json"),
        ("ps", "axww", "-o", "args"),
        ("systemctl", "show", "dspark-test-keys", "dspark-test-env"),
        ("systemctl", "cat", "dspark-test-keys"),
        ("sh", "-c", "'docker ps -aq | xargs -r docker inspect'"),
        ("sh", "-c", "'for c in $(docker ps -aq); do docker logs $c 2>&1 | tail -c 200000; done'"),
        ("sh", "-c", '\'cat /proc/[0-9]*/cmdline | tr "\\0" " "\''),
    ]
    ssh = ("ssh", "-F", str(operator.ssh_config), HOSTS[role], "sudo", "-n")
    # Bytes: an argument list or a log may hold any.
    said = [subprocess.run([*ssh, *argv], capture_output=True, timeout=120, check=False).stdout for argv in shown]
    return b"\n".join(said).decode("utf-8", "replace")


def test_twenty_planted_keys_are_seen_nowhere(operator: Operator, planted: dict[str, str], tmp_path: Path) -> None:
    names = [name for name in planted if name.startswith("credential")]
    said = play(operator, names, tmp_path)
    again = play(operator, names, tmp_path)
    assert "changed=0" in again, again[-1500:]

    # The service got them: it printed what their digest is, and nothing else.
    import hashlib

    content = "".join(planted[name] for name in sorted(names))
    digest = hashlib.sha256(content.encode()).hexdigest()
    for role in HOSTS:
        assert digest in operator.on(role, "journalctl", "-q", "-u", "dspark-test-keys", "-o", "cat")

    env = "".join(f"{name.upper()}_API_KEY={planted[name]}\n" for name in planted if name.startswith("environment"))
    for role, host in HOSTS.items():
        subprocess.run(
            ["ssh", "-F", str(operator.ssh_config), host, "sudo -n install -m 0600 /dev/stdin /run/dspark-test.env"],
            input=env,
            text=True,
            check=True,
            timeout=30,
        )
        run = "systemd-run --quiet --collect --unit=dspark-test-env -p EnvironmentFile=/run/dspark-test.env sleep 300"
        operator.on(role, *run.split())

    site = tmp_path / "site.yml"
    refused = []
    for index in range(5):
        # A key in the site's own argument list is refused before anything is contacted, and not repeated.
        key = planted[f"site{index}"]
        wanted = (f'["--api-key={key}"]', f'["--api-key", "{key}"]')[index % 2]
        site.write_text(operator.site.read_text())
        refused.append(operator.run("validate", "--set", f"serve.extra_args={wanted}", site=site))
    assert {done.rc for done in refused} == {2}, refused[0]

    bundle = tmp_path / "bundle.tar.gz"
    made = operator.run("evidence", "--output", str(bundle))
    assert made.rc in (0, 1, 3), made
    with tarfile.open(bundle) as archive:
        packed = [archive.extractfile(item) for item in archive.getmembers() if item.isfile()]
        texts = "\n".join(file.read().decode("utf-8", "replace") for file in packed if file is not None)

    shown = {
        "ansible": said + again,
        "refusals": "\n".join(done.out + done.err for done in refused),
        "evidence": made.out + made.err,
        "bundle": texts,
        **{role: everywhere(operator, role) for role in HOSTS},
    }
    seen = [(name, where) for name, key in planted.items() for where, text in shown.items() if key in text]
    assert seen == []
    assert all(len(text) > 100 for where, text in shown.items() if where != "refusals")
