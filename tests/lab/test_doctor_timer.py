"""`monitor timer install` under a real systemd: the head of the rehearsal pair is the operator's machine here.

The product, as this test runs it, is copied to the head; from there the doctor reads both nodes over SSH.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dspark_ops.doctor.catalogue import load_catalogue
from dspark_ops.paths import data_dir
from tests.lab.operator_cli import Operator

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(600)]

PLACE = "/opt/dspark-copy"
SITE = f"{PLACE}/site.yml"
METRICS = "/var/lib/prometheus/node-exporter/dspark_doctor_lab.prom"
UNITS = "/etc/systemd/system/dspark-doctor-lab"
_DATA = ("dspark_ops", "playbooks", "templates", "checks", "images", "inventories")
_UNUSED = ("mypy*", "ansible_lint*", "ruff*", "hypothesis*", "__pycache__")


def ship(operator: Operator, source: Path, names: list[str], folder: str) -> None:
    """Copy what is below `source` to the head, as root's."""
    skip = [f"--exclude={glob}" for glob in _UNUSED]
    pack = subprocess.Popen(["tar", "-C", str(source), *skip, "-cf", "-", *names], stdout=subprocess.PIPE)
    unpack = f"sudo -n sh -c 'mkdir -p {folder} && tar -C {folder} --no-same-owner -xf -'"
    done = subprocess.run(
        ["ssh", "-F", str(operator.ssh_config), "spark-head", unpack], stdin=pack.stdout, timeout=300, check=False
    )
    assert (done.returncode, pack.wait(timeout=30)) == (0, 0)


@pytest.fixture(scope="module")
def head(operator: Operator) -> Iterator[Callable[..., tuple[int, str]]]:
    """The head with the product on it; what it is given is a command of `dspark-ops`, typed there by root."""

    def shell(script: str, timeout_s: float = 300) -> tuple[int, str]:
        done = subprocess.run(
            ["ssh", "-F", str(operator.ssh_config), "spark-head", "sudo", "-n", "bash", "-s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    packages = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    ship(operator, packages, ["."], f"{PLACE}/packages")
    ship(operator, data_dir("playbooks").parent, list(_DATA), f"{PLACE}/product")
    keys = operator.ssh_config.parent
    ship(operator, keys, ["ssh_config", "id_ed25519", "known_hosts"], str(keys))
    ship(operator, operator.site.parent, [operator.site.name], PLACE)
    code, said = shell(
        f"set -e; chmod 700 {keys}; mkdir -p {Path(METRICS).parent}; python3 -m venv --without-pip {PLACE}/venv\n"
        f"lib=$(echo {PLACE}/venv/lib/python3.*/site-packages)\n"
        f"printf '%s\\n' {PLACE}/product {PLACE}/packages > $lib/copy.pth\n"
        f"printf '#!{PLACE}/venv/bin/python\\nimport sys\\nfrom ansible.cli.playbook import main\\nsys.exit(main())\\n'"
        f" > {PLACE}/venv/bin/ansible-playbook; chmod +x {PLACE}/venv/bin/ansible-playbook\n"
        f"[ {operator.site.name} = site.yml ] || mv {PLACE}/{operator.site.name} {SITE}"
    )
    assert code == 0, said

    def dspark_ops(*words: str, raw: bool = False) -> tuple[int, str]:
        if raw:
            return shell(" ".join(words))
        return shell(shlex.join([f"{PLACE}/venv/bin/python", "-m", "dspark_ops", *words]))

    yield dspark_ops
    shell(f"systemctl disable --now dspark-doctor-lab.timer; rm -rf {PLACE} {keys} {UNITS}.* {METRICS}")


def test_the_timer_runs_the_doctor_and_its_file_has_a_series_of_each_check(
    operator: Operator, head: Callable[..., tuple[int, str]]
) -> None:
    code, said = head("monitor", "timer", "install", "--site", SITE, "--every", "30", "--yes")
    assert code == 0, said
    assert head("systemctl is-active dspark-doctor-lab.timer", raw=True)[1].strip() == "active"
    code, said = head("monitor", "timer", "install", "--site", SITE, "--every", "30", "--yes", "--json")
    assert code == 0, said
    assert '"verdict": "unchanged"' in said

    code, said = head(f"for i in $(seq 90); do [ -s {METRICS} ] && exit 0; sleep 1; done; exit 1", raw=True)
    assert code == 0, head(
        "systemctl status dspark-doctor-lab.service; journalctl -u dspark-doctor-lab -n 30", raw=True
    )
    text = head(f"cat {METRICS}", raw=True)[1]
    told = {finding["id"] for finding in operator.run("doctor", "--json").document()["findings"]}
    assert {identity for identity in load_catalogue() if f'id="{identity}"' in text} == told
    # It was the timer that ran it, it ended well, and it goes on.
    shown = head("systemctl show dspark-doctor-lab.service -p Result -p ExecMainStatus -p TriggeredBy", raw=True)[1]
    assert "Result=success" in shown
    assert "TriggeredBy=dspark-doctor-lab.timer" in shown
    first = head(f"stat -c %y {METRICS}", raw=True)[1]
    code, said = head(
        f"for i in $(seq 90); do [ \"$(stat -c %y {METRICS})\" = '{first.strip()}' ] || exit 0; sleep 1; done; exit 1",
        raw=True,
    )
    assert code == 0, said


def test_a_removed_timer_leaves_nothing(head: Callable[..., tuple[int, str]]) -> None:
    code, said = head("monitor", "timer", "remove", "--site", SITE, "--yes")
    assert code == 0, said
    left = f"ls {UNITS}.timer {UNITS}.service {METRICS} 2>/dev/null; systemctl list-units --all --no-legend 'dspark-*'"
    assert "dspark-doctor-lab" not in head(left, raw=True)[1]
    code, said = head("monitor", "timer", "remove", "--site", SITE, "--yes", "--json")
    assert code == 0, said
    assert '"verdict": "unchanged"' in said
