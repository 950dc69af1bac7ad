"""`dspark-ops init` against the rehearsal pair: over real SSH, and against hosts that cannot or must not be used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.paths import state_dir

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("pair"), pytest.mark.timeout(120)]

IMAGE = ("--image-reference", "engine:1", "--image-id", "sha256:" + "a" * 64)
CLI = (sys.executable, "-m", "dspark_ops")
Init = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ssh_config() -> str:
    return (state_dir() / "lab" / "ssh_config").read_text()


@pytest.fixture
def init(tmp_path: Path) -> Init:
    """Run init in an empty directory with an SSH configuration of this text; nothing may be written unless it is 0."""

    def run(config: str, *words: str, hosts: tuple[str, str] = ("spark-head", "spark-worker")) -> object:
        (tmp_path / "ssh_config").write_text(config)
        done = subprocess.run(
            [*CLI, "init", *hosts, "-F", "ssh_config", *IMAGE, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert not (tmp_path / "inventories").exists()
        return done

    return run  # type: ignore[return-value]


def host_block(config: str, name: str, option: str, value: str) -> str:
    """The configuration with one option of one host changed."""
    pattern = re.compile(rf"(Host {name}\n(?:  .*\n)*?  {option} ).*")
    changed, count = pattern.subn(rf"\g<1>{value}", config)
    assert count == 1
    return changed


def test_init_writes_a_site_that_loads_with_two_rails_a_cable(init: Init, ssh_config: str, tmp_path: Path) -> None:
    lab = json.loads(subprocess.run([*CLI, "lab", "status", "--json"], capture_output=True, check=True).stdout)
    done = init(ssh_config, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    path = tmp_path / document["path"]
    assert path == tmp_path / "inventories" / "lab" / "site.yml"
    loaded = load_site(path, environ={})
    assert loaded.profile.name == "rehearsal"
    assert len(loaded.site.fabric.rails) == 2 * lab["cables"]
    assert loaded.site.ssh.config == tmp_path / "ssh_config"
    for rail in loaded.site.fabric.rails:
        assert rail.head.netdev == rail.worker.netdev
        assert rail.head.hca == rail.worker.hca is not None
        assert rail.head.address.network == rail.worker.address.network
    text = path.read_text()
    assert "rehearsal node" in text
    assert "MemTotal" in text
    assert all(node["sudo"] for node in document["nodes"])


def test_a_second_init_does_not_overwrite(init: Init, ssh_config: str, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("mine\n")
    done = init(ssh_config, "-o", "site.yml")
    assert done.returncode == 4
    assert "site.yml exists already" in done.stderr
    assert (tmp_path / "site.yml").read_text() == "mine\n"
    assert init(ssh_config, "-o", "site.yml", "--force").returncode == 0
    assert load_site(tmp_path / "site.yml", environ={}).site.name == "lab"


def test_an_unreachable_host_is_named(init: Init, ssh_config: str) -> None:
    done = init(host_block(ssh_config, "spark-worker", "Port", "9"))
    assert done.returncode == 3
    assert "worker: spark-worker" in done.stderr
    assert "port 9: cannot connect: Connection refused" in done.stderr
    assert "head:" not in done.stderr


def test_a_name_that_does_not_resolve(init: Init, ssh_config: str) -> None:
    done = init(ssh_config, hosts=("no-such-host.invalid", "spark-worker"))
    assert done.returncode == 3
    assert "head: no-such-host.invalid port 22: the name cannot be resolved" in done.stderr


def test_a_changed_host_key_is_refused_with_the_way_out(init: Init, ssh_config: str, tmp_path: Path) -> None:
    """Both nodes keep real keys; the file that records them has the two swapped."""
    known = (state_dir() / "lab" / "known_hosts").read_text()
    swapped = known.replace("spark-head", "\0").replace("spark-worker", "spark-head").replace("\0", "spark-worker")
    addresses = dict(re.findall(r"Host (\S+)\n  HostName (\S+)", ssh_config))
    head, worker = addresses["spark-head"], addresses["spark-worker"]
    swapped = swapped.replace(head, "\0").replace(worker, head).replace("\0", worker)
    (tmp_path / "known_hosts").write_text(swapped)
    done = init(re.sub(r"(UserKnownHostsFile ).*", rf"\g<1>{tmp_path / 'known_hosts'}", ssh_config), "--json")
    assert done.returncode == 3
    assert done.stderr.count("the host key has changed: expected ssh-ed25519 SHA256:") == 2
    assert "ssh-keygen -R" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 3


def test_an_unknown_host_key_is_not_accepted(init: Init, ssh_config: str, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("")
    done = init(re.sub(r"(UserKnownHostsFile ).*", rf"\g<1>{tmp_path / 'known_hosts'}", ssh_config))
    assert done.returncode == 3
    assert "its host key is not known" in done.stderr


def test_a_refused_login_names_the_user(init: Init, ssh_config: str) -> None:
    done = init(host_block(ssh_config, "spark-head", "User", "somebody"))
    assert done.returncode == 3
    assert "head: spark-head" in done.stderr
    assert "the login of somebody was refused" in done.stderr
    assert "ssh-copy-id" in done.stderr


def test_two_names_of_one_machine(init: Init, ssh_config: str) -> None:
    block = ssh_config[ssh_config.index("Host spark-head") :].split("\n\n")[0]
    twin = ssh_config + "\n" + block.replace("Host spark-head", "Host other-name") + "\n"
    done = init(twin, hosts=("spark-head", "other-name"))
    assert done.returncode == 4, done.stderr
    assert "spark-head and other-name are the same machine" in done.stderr
