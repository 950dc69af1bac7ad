"""The role of the gateway, run for real to its end on this machine; `systemctl` and the router's wheels are the test's.

It runs in a mount namespace with an /etc of its own, so users, units and secrets are made and the machine keeps none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dspark_ops.gateway.clients import Client, key_hash
from dspark_ops.gateway.install import CLIENT_MAPS, install_variables
from dspark_ops.gateway.render import render_all
from dspark_ops.gateway.settings import Places
from dspark_ops.paths import data_dir
from tests.unit.gateway.conftest import cloud_site, settings_with
from tests.unit.roles.fake_systemd import SYSTEMCTL, FakeSystemd

# Eight runs of ansible-playbook and two environments on a busy machine.
pytestmark = pytest.mark.timeout(1800)

UNITS = ["dspark-edge.service", "dspark-gateway.service"]
_FETCH = """
import sys
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert sorted(asked) == ["--architecture", "--into", "--lock", "--python"], asked
print(asked["--into"] + "/wheels.tar")
"""
# The machine's own /etc is seen again by whoever is outside.
_INSIDE = 'mount --bind "$0" /etc && umask 077 && exec "$@"'


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/alive" else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def wheels(folder: Path) -> str:
    """A wheel in an archive, as the control host fetches them; the lock for it."""
    folder.mkdir()
    wheel = folder / "router-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("router.py", "WORD = 'there'\n")
        out.writestr("router-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: router\nVersion: 1.0\n")
        out.writestr("router-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr("router-1.0.dist-info/RECORD", "router.py,,\nrouter-1.0.dist-info/METADATA,,\n")
    with tarfile.open(folder / "wheels.tar", "w") as out:
        out.add(wheel, wheel.name)
    return f"router==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


class Machine:
    """A head with an /etc and a library directory of its own. port: where the router and the edge answer."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.lib, self.etc, self.systemd = root, root / "lib", root / "etc", FakeSystemd(root / "systemd")
        shutil.copytree("/etc", self.etc, symlinks=True, ignore=shutil.ignore_patterns("*.lock"))
        self.units, self.gateway = self.etc / "systemd/system", self.etc / "dspark/gateway"
        self.units.mkdir(parents=True, exist_ok=True)
        (root / "inventory").write_text(
            f"[head]\nh\n[head:vars]\nansible_connection=local\nansible_user=root\n"
            f"ansible_python_interpreter={sys.executable}\n"
        )
        self.key, self.lock = root / "cloud.key", root / "requirements.lock"
        self.key.write_text("ck-secret\n")
        self.lock.write_text(wheels(root / "wheels"))
        (root / "fetch.py").write_text(_FETCH)
        (root / "haproxy").touch()
        self.program = root / "gateway.pyz"
        self.program.write_text("program 1\n")
        settings = settings_with(cloud_site(key_file=self.key))
        self.variables = install_variables(settings, Places()) | {
            "gateway_library_dir": str(self.lib),
            "gateway_router_port": port,
            "gateway_edge_port": port,
            "gateway_program": str(self.program),
            "gateway_lock": str(self.lock),
            "gateway_wheels_command": [sys.executable, str(root / "fetch.py")],
            "gateway_wheels_dir": str(root / "wheels"),
            "__gateway_haproxy_program": str(root / "haproxy"),
            "__gateway_python": sys.executable,
        }

    def run(self, *, tag: str = "gateway", check: bool = False, **more: object) -> int:
        """How many tasks changed something. A failure fails the test."""
        playbook = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.root / "inventory")]
        playbook += [str(data_dir("playbooks") / "gateway.yml"), "--tags", tag, *(["--check"] if check else [])]
        playbook += ["-e", json.dumps(self.variables | more)]
        environment = os.environ | {
            "ANSIBLE_HOME": str(self.root / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
        }
        ended = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _INSIDE, str(self.etc), *playbook],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "ck-secret" not in ended.stdout + ended.stderr
        found = re.search(r"^h .*changed=(\d+) ", ended.stdout, re.MULTILINE)
        assert found is not None, ended.stdout
        return int(found[1])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: Callable[[str, str], None]) -> Iterator[Machine]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    on_path(
        "systemctl", SYSTEMCTL.replace('elif verb in ("list-unit-files"', 'elif verb in ("reload", "list-unit-files"')
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Alive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = Machine(tmp_path, server.server_address[1])
    monkeypatch.setenv("FAKE_SYSTEMD", str(made.systemd.home))
    monkeypatch.setenv("FAKE_UNITS", str(made.units))
    yield made
    server.shutdown()
    server.server_close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_installed_unchanged_given_a_client_brought_up_to_date_and_removed(machine: Machine) -> None:
    before = (machine.etc / "passwd").read_text()
    assert machine.run(check=True) >= 10
    assert (machine.etc / "passwd").read_text() == before
    assert not machine.gateway.exists()
    assert not machine.lib.exists()

    # A umask of root's own, as hardened heads have it, keeps nothing from the router's user.
    machine.run()
    assert sorted(machine.systemd.state["active"]) == sorted(machine.systemd.state["enabled"]) == UNITS
    assert {name for name in UNITS if (machine.units / name).is_file()} == set(UNITS)
    passwd = (machine.etc / "passwd").read_text()
    assert "dspark-edge:" in passwd
    assert "dspark-gateway:" in passwd
    credentials = machine.gateway / "credentials"
    assert mode(credentials) == 0o700
    assert {path.name: mode(path) for path in credentials.iterdir()} == dict.fromkeys(
        ("router_key", "edge-secret.cfg", "cloud_key", "tls.pem", "tls.pem.key", "tls.names"), 0o600
    )
    assert (credentials / "cloud_key").read_text() == "ck-secret\n"
    assert (credentials / "router_key").read_text().strip() in (credentials / "edge-secret.cfg").read_text()
    venv = (machine.lib / "gateway").resolve()
    closed = [path for path in (venv, *venv.rglob("*")) if not path.is_symlink() and not mode(path) & 0o004]
    assert closed == []
    assert not (venv / "wheels").exists()
    asked = [str(machine.lib / "gateway/bin/python"), "-I", "-c", "import router; print(router.WORD)"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "there\n"

    machine.systemd.take_calls()
    assert machine.run() == 0
    calls = machine.systemd.take_calls()
    assert "restart" not in calls
    assert "reload " not in calls

    # A client more: the edge alone, and it is not restarted.
    settings = settings_with(cloud_site())
    more = Client(name="carol", key_sha256=key_hash("dsk-carol"))
    rendered = render_all(settings.__class__(**(settings.__dict__ | {"clients": (*settings.clients, more)})), Places())
    maps = {name: rendered[name] for name in CLIENT_MAPS}
    assert machine.run(tag="clients", gateway_clients=maps) >= 1
    assert "carol" in (machine.gateway / "clients.map").read_text()
    assert [line for line in machine.systemd.take_calls().splitlines() if "show" not in line] == [
        "reload dspark-edge.service"
    ]
    assert machine.run(tag="clients", gateway_clients=maps) == 0

    # A new lock, and a certificate that somebody took away.
    machine.lock.write_text("# anew\n" + machine.lock.read_text())
    (credentials / "tls.pem").unlink()
    machine.run(gateway_clients=maps)
    assert (credentials / "tls.pem").is_file()
    assert (machine.lib / "gateway").resolve() != venv
    assert not venv.exists(), "an environment that nobody uses"
    calls = machine.systemd.take_calls()
    assert "restart dspark-gateway.service" in calls
    assert "restart dspark-edge.service" in calls

    machine.run(gateway_state="absent")
    assert machine.systemd.state["active"] == machine.systemd.state["enabled"] == []
    assert not any((machine.units / name).exists() for name in UNITS)
    assert not machine.gateway.exists()
    assert list(machine.lib.iterdir()) == []
    assert machine.run(gateway_state="absent") == 0
