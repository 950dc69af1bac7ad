"""The fabric on real soft-RoCE: applied, GIDs read and chosen, loaded with ib_write_bw, still there after a boot."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import HEAD, WORKER, RehearsalPair
from tests.lab.operator_cli import Operator, wait_for_line

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def vm_operator(vm_pair: RehearsalPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A site file that `init` wrote for the two VMs with one cable, which is two rails."""
    from dspark_ops.lab.vm import pair as lab

    lab.up(cables=1)
    site = tmp_path_factory.mktemp("vm") / "site.yml"
    words = ["init", HEAD, WORKER, "--ssh-config", str(vm_pair.ssh_config), "--name", "vm", "--output", str(site)]
    image = ["--image-reference", "dspark-engine:none", "--image-id", "sha256:" + "1" * 64, "--profile", "rehearsal"]
    made = subprocess.run(
        [sys.executable, "-m", "dspark_ops", *words, *image],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    yield Operator(site, vm_pair.ssh_config)
    lab.reset()
    lab.up(cables=2)


def ports(operator: Operator) -> list[dict[str, Any]]:
    shown = operator.run("fabric show", "--json")
    assert shown.rc == 0, shown
    rails = {rail[role] for rail in shown.document()["rails"] for role in ("head", "worker")}
    found: list[dict[str, Any]] = [port for port in shown.document()["ports"] if port["netdev"] in rails]
    return found


def assert_as_applied(operator: Operator) -> None:
    """Every rail with its address, MTU 9000, and a RoCE v2 GID that the kernel itself made."""
    seen = ports(operator)
    assert len(seen) == 4
    for port in seen:
        assert port["mtu"] == 9000, port
        assert len(port["addresses"]) == 1, port
        (indexes,) = port["gid_indexes"].values()
        # Soft-RoCE has v2 entries only: the IPv4 one is at 1, not at mlx5's 3.
        assert indexes == [1], port
    verified = operator.run("fabric verify", "--json")
    assert verified.rc == 0, verified


def test_applied_proven_loaded_and_still_there_after_both_rebooted(
    vm_pair: RehearsalPair, vm_operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    took: dict[str, float] = {}
    began = time.monotonic()

    def mark(what: str) -> None:
        nonlocal began
        took[what], began = time.monotonic() - began, time.monotonic()

    # Emulated, `netplan apply` alone takes 9 to 26 s.
    slowly = ("--revert-after", "120")
    applied = vm_operator.run("fabric apply", "--yes", "--json", *slowly)
    assert applied.rc == 0, applied
    assert {change["node"] for change in applied.document()["changes"]} == {"head", "worker"}
    mark("apply")
    # That a second one changes nothing is proven on the containers (test_fabric), and below in the soak.
    assert_as_applied(vm_operator)
    mark("show and verify")

    loaded = vm_operator.run("fabric test", "--yes", "--json", "--seconds", "1")
    assert loaded.rc == 0, loaded
    rates = [m for m in loaded.document()["measurements"] if m["unit"] == "Gb/s" and m["value"]]
    assert {m["subject"] for m in rates} >= {f"rail {rail.name}" for rail in _rails(vm_operator)}, rates
    assert "soft-RoCE" in loaded.out
    mark("test")

    def reboot(node: str) -> None:
        before = vm_pair.run(node, "cat /proc/sys/kernel/random/boot_id")
        vm_pair.succeeds(node, "sudo systemctl reboot")
        deadline = time.monotonic() + 240
        script = f"[ $(cat /proc/sys/kernel/random/boot_id) != {before} ] && dspark-lab-ready"
        while not vm_pair.succeeds(node, script, timeout_s=10):
            assert time.monotonic() < deadline, f"{node} did not come back"
            time.sleep(1)
        vm_pair.run(node, "sudo docker info > /dev/null")  # an Engine that starts when it is asked

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(reboot, (HEAD, WORKER)))
    mark("reboot of both")
    assert_as_applied(vm_operator)
    mark("show and verify after the reboot")
    with capsys.disabled():
        print("\n  " + ", ".join(f"{what} {seconds:.0f} s" for what, seconds in took.items()))  # noqa: T201


@pytest.mark.soak
def test_a_second_apply_changes_nothing(vm_operator: Operator) -> None:
    for _ in range(2):
        done = vm_operator.run("fabric apply", "--yes", "--json", "--revert-after", "120")
        assert done.rc == 0, done
    assert done.document()["changes"] == []


def _rails(operator: Operator) -> tuple[Any, ...]:
    from dspark_ops.config.load import load_site

    return load_site(Path(operator.site)).site.fabric.rails


@pytest.mark.soak
def test_a_power_cut_in_the_middle_of_a_change_boots_into_the_old_network(
    vm_pair: RehearsalPair, vm_operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker loses power with the new rails live, the head loses its control host: both are as before."""
    assert vm_operator.run("fabric apply", "--yes", "--revert-after", "120").rc == 0
    look = """
    sudo sha256sum /etc/netplan/*
    { ip -o -4 addr | awk '{print $2, $4}'; ip -4 route | sort; } | grep -v docker0
    """
    before = {node: vm_pair.run(node, look) for node in (HEAD, WORKER)}
    other = tmp_path / "site.yml"
    other.write_text(vm_operator.site.read_text().replace("10.77.", "10.88."))
    boot = vm_pair.run(WORKER, "cat /proc/sys/kernel/random/boot_id")
    change = Operator(other, vm_operator.ssh_config).begin("fabric apply", "--yes", "--revert-after", "60")
    assert wait_for_line(change, "prove ...", 300)
    began = time.monotonic()
    change.kill()
    assert "10.88." in vm_pair.run(WORKER, "ip -o -4 addr")
    vm_pair.run(WORKER, "sudo setsid sh -c '(sleep 0.5; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 < /dev/null &'")
    told = []
    for node in (WORKER, HEAD):
        while (
            not vm_pair.succeeds(node, "dspark-lab-ready", timeout_s=10)
            or vm_pair.run(node, look, check=False) != before[node]
        ):
            assert time.monotonic() - began < 240, (
                f"{node}: {before[node]} became {vm_pair.run(node, look, check=False)}"
            )
            time.sleep(1)
        told.append(f"{node} as before after {time.monotonic() - began:.0f} s")
    assert vm_pair.run(WORKER, "cat /proc/sys/kernel/random/boot_id") != boot
    read = 'import json, sys; entry = json.load(sys.stdin); print(entry["state"], entry["reverted"]["why"])'
    why = f"sudo cat /var/lib/dspark/journal/fabric.json | python3 -c '{read}'"
    assert vm_pair.run(WORKER, why) == "reverted boot"
    # The state is back before the manager, emulated, has ended and the journal is settled.
    while vm_pair.run(HEAD, why, check=False) != "reverted timer":
        assert time.monotonic() - began < 300, vm_pair.run(HEAD, why, check=False)
        time.sleep(1)
    with capsys.disabled():
        print("\n  " + ", ".join(told))  # noqa: T201
