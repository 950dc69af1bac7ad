"""Twenty planted keys on the pair: none is in a log, a process list, an inspect output, a diff or a bundle."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from dspark_ops.ansible_run import runner
from dspark_ops.ansible_run.command import PlaybookRun, build_environment
from dspark_ops.ansible_run.inventory import render_inventory
from dspark_ops.config.load import load_site
from dspark_ops.exposure.credentials import Credential, role_variables
from dspark_ops.paths import data_dir, state_dir
from dspark_ops.supervise import zipapp
from dspark_ops.supervise.node.evidence import unpack
from tests.lab.operator_cli import HOSTS, Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(1800)]
#: Begins every key that is planted, and the decoy that shows that the watching of processes sees what passes by.
MARK = "planted-"
# Writes down every argument list in which the mark is seen, as often as it can look, until it is stopped.
_WATCHER = f"""
import os, time
mark, seen = b"{MARK[:-1]}" + b"-", set()
with open("/run/dspark-test-seen", "wb", buffering=0) as out:
    while True:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                words = open("/proc/" + pid + "/cmdline", "rb").read()
            except OSError:
                continue
            if mark in words and words not in seen:
                seen.add(words)
                out.write(words + b"\\n")
        time.sleep(0.05)
"""
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
        f"{kind}{index}": f"{MARK}{secrets.token_hex(12)}"
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
        operator.on(
            role, "systemctl", "stop", "dspark-test-keys", "dspark-test-env", "dspark-test-watcher", check=False
        )
        files = "/etc/systemd/system/dspark-test-keys.service /run/dspark-test.env /etc/dspark/credentials"
        operator.on(role, "rm", "-rf", *files.split(), "/run/dspark-test-seen", "/run/dspark-test-watcher.py")
        operator.on(role, "systemctl", "daemon-reload")


def put(operator: Operator, role: str, path: str, text: str) -> None:
    """Write a file of root alone; its content is on no command line."""
    subprocess.run(
        ["ssh", "-F", str(operator.ssh_config), HOSTS[role], f"sudo -n install -m 0600 /dev/stdin {path}"],
        input=text,
        text=True,
        check=True,
        timeout=60,
    )


@contextmanager
def watched_processes(operator: Operator) -> Iterator[dict[str, str]]:
    """The argument lists of both nodes and of this host, looked at all the time; what was seen is there afterwards."""
    seen: dict[str, str] = {}
    here: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    words = path.read_bytes()
                    if MARK.encode() in words:
                        here.add(words)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    for role in HOSTS:
        put(operator, role, "/run/dspark-test-watcher.py", _WATCHER)
        run = "systemd-run --quiet --collect --unit=dspark-test-watcher python3 /run/dspark-test-watcher.py"
        operator.on(role, *run.split())
    try:
        yield seen
    finally:
        for role in HOSTS:
            # It sees a key that passes by: else that none was seen would say nothing.
            operator.on(role, "sh", "-c", f"'sleep 3; : {MARK}decoy-{role}'")
            seen[f"processes of {role}"] = operator.on(role, "cat", "/run/dspark-test-seen").replace("\0", " ")
        ended.set()
        watcher.join()
        seen["processes here"] = b"\n".join(here).decode("utf-8", "replace").replace("\0", " ")


def kept_by_the_supervisor(operator: Operator, role: str) -> str:
    """What its program gathers of a node before a restart, and what an installed one has on disk."""
    program = f"/run/dspark-test-{zipapp.digest(zipapp.build())[-12:]}.pyz"
    ssh = ("ssh", "-F", str(operator.ssh_config), HOSTS[role], "sudo", "-n")
    subprocess.run([*ssh, "install", "-m", "0700", "/dev/stdin", program], input=zipapp.build(), check=True, timeout=60)
    try:
        done = subprocess.run(
            [*ssh, "python3", "-I", program, "rank"],
            input=json.dumps({"v": 1, "verb": "evidence", "limit_s": 30.0}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        operator.on(role, "rm", "-f", program)
    said = json.loads(done.stdout)
    assert said["ok"], said
    texts = [f"{name}\n{unpack(text).decode('utf-8', 'replace')}" for name, text in said["result"].items()]
    kept = "find /var/lib/dspark /etc/dspark/supervise.json -type f -exec cat {} + 2>/dev/null; true"
    return "\n".join([*texts, operator.on(role, "sh", "-c", f"'{kept}'")])


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


def refused_sites(operator: Operator, planted: dict[str, str], folder: Path) -> str:
    """A key in the engine's argument list of a site file is refused before anything is contacted, and not repeated."""
    said = []
    for index in range(5):
        key = planted[f"site{index}"]
        site = yaml.safe_load(operator.site.read_text())
        wanted = ([f"--api-key={key}"], ["--api-key", key])[index % 2]
        site.setdefault("serve", {})["extra_args"] = wanted
        path = folder / "site.yml"
        path.write_text(yaml.safe_dump(site))
        path.chmod(0o600)
        done = operator.run("validate", site=path)
        assert done.rc == 2, done
        said.append(done.out + done.err)
    return "\n".join(said)


def packed(operator: Operator, folder: Path) -> tuple[str, str]:
    """What `evidence` says, and every text of the archive that it makes."""
    bundle = folder / "bundle.tar.gz"
    made = operator.run("evidence", "--output", str(bundle))
    assert made.rc in (0, 1, 3), made
    with tarfile.open(bundle) as archive:
        files = [archive.extractfile(item) for item in archive.getmembers() if item.isfile()]
        return made.out + made.err, "\n".join(
            file.read().decode("utf-8", "replace") for file in files if file is not None
        )


def reports() -> str:
    """What this host keeps of every run: reports, and the events and logs of Ansible."""
    kept = [path for path in state_dir().rglob("*") if path.is_file() and "/lab/" not in str(path)]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in kept if path.stat().st_size < 8 << 20)


def where_seen(planted: dict[str, str], shown: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, where) for name, key in planted.items() for where, text in shown.items() if key in text]


def test_twenty_planted_keys_are_seen_nowhere(operator: Operator, planted: dict[str, str], tmp_path: Path) -> None:
    names = [name for name in planted if name.startswith("credential")]
    with watched_processes(operator) as processes:
        said = play(operator, names, tmp_path)
        again = play(operator, names, tmp_path)
        env = "".join(f"{name.upper()}_API_KEY={planted[name]}\n" for name in planted if name.startswith("environment"))
        for role in HOSTS:
            put(operator, role, "/run/dspark-test.env", env)
            run = (
                "systemd-run --quiet --collect --unit=dspark-test-env -p EnvironmentFile=/run/dspark-test.env sleep 900"
            )
            operator.on(role, *run.split())
        refusals = refused_sites(operator, planted, tmp_path)
        told, bundle = packed(operator, tmp_path)
        supervisor = {f"supervisor of {role}": kept_by_the_supervisor(operator, role) for role in HOSTS}
    assert "changed=0" in again, again[-1500:]
    assert "cfg.argument_secret" in refusals

    # The service got them: it printed what their digest is, and nothing else.
    digest = hashlib.sha256("".join(planted[name] for name in sorted(names)).encode()).hexdigest()
    for role in HOSTS:
        assert digest in operator.on(role, "journalctl", "-q", "-u", "dspark-test-keys", "-o", "cat")
        assert f"{MARK}decoy-{role}" in processes[f"processes of {role}"], "the watcher sees what passes by"
    assert f"{MARK}decoy-" in processes["processes here"], "as the operator's own ssh"

    shown = {
        "ansible": said + again,
        "refusals": refusals,
        "evidence": told,
        "bundle": bundle,
        "reports": reports(),
        **processes,
        **supervisor,
        **{role: everywhere(operator, role) for role in HOSTS},
    }
    assert where_seen(planted, shown) == []
    assert all(len(text) > 50 for text in shown.values()), {where: len(text) for where, text in shown.items()}


def test_a_key_that_leaks_is_seen(operator: Operator, planted: dict[str, str], tmp_path: Path) -> None:
    """One key each on a command line, in the journal and in a container: the looking above finds all of them."""
    argument, logged, inspected = (planted[f"environment{index}"] for index in range(3))
    with watched_processes(operator) as processes:
        operator.on("worker", "sh", "-c", f"'sleep 3; : {argument}'")
        operator.on("head", "logger", logged)
        made = f"docker create --name dspark-test-leak --label key={inspected} dspark-test-leak true"
        operator.on("head", "sh", "-c", f"'tar -c -C /etc hostname | docker import - dspark-test-leak && {made}'")
    try:
        shown = {
            **processes,
            "head": everywhere(operator, "head"),
            "supervisor": kept_by_the_supervisor(operator, "head"),
        }
    finally:
        operator.on("head", "docker", "rm", "-f", "dspark-test-leak", check=False)
        operator.on("head", "docker", "rmi", "-f", "dspark-test-leak", check=False)
    found = where_seen(planted, shown)
    assert ("environment0", "processes of worker") in found
    assert {("environment1", "head"), ("environment2", "head")} <= set(found)
