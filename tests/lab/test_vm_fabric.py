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
from tests.lab.operator_cli import Operator

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
    again = vm_operator.run("fabric apply", "--yes", "--json", *slowly)
    assert (again.rc, again.document()["changes"]) == (0, []), again
    mark("apply again, no change")
    assert_as_applied(vm_operator)
    mark("show and verify")

    loaded = vm_operator.run("fabric test", "--yes", "--json")
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
        while not vm_pair.succeeds(node, script):
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


def _rails(operator: Operator) -> tuple[Any, ...]:
    from dspark_ops.config.load import load_site

    return load_site(Path(operator.site)).site.fabric.rails
