"""The VM pair is what it says: own kernels, real soft-RoCE, cables to pull, reboots, a way back in seconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from dspark_ops.lab.layout import WORKER as LAB_WORKER
from dspark_ops.lab.vm import machine
from dspark_ops.lab.vm import pair as lab
from dspark_ops.lab.vm.layout import RAILS, rails_named, vm_paths
from tests.lab.conftest import HEAD, WORKER, RehearsalPair

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

Timed = Callable[[str], "contextmanager[None]"]
#: Benchmarking range (RFC 2544): collides with no site.
SUBNETS = {rail.name: f"198.18.{number}" for number, rail in enumerate(RAILS)}
LAST = {HEAD: 11, WORKER: 12}


@pytest.fixture
def undone() -> Iterator[None]:
    """What the test does to the VMs is undone after it."""
    yield
    lab.reset()


@pytest.fixture
def timed(capsys: pytest.CaptureFixture[str]) -> Timed:
    """Print how long a block took, past pytest's capture."""

    @contextmanager
    def block(what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        with capsys.disabled():
            sys.stdout.write(f"\n  {what}: {time.monotonic() - began:.1f} s\n")

    return block


def on_both(action: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(action, (HEAD, WORKER)))


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not become true within {timeout_s:.0f} s"
        time.sleep(0.3)


def addressed(pair: RehearsalPair, mtu: int) -> None:
    """Give every rail an address and the MTU, on both nodes, until the next reset."""

    def give(node: str) -> None:
        lines = [f"addr add {net}.{LAST[node]}/24 dev {port}" for port, net in SUBNETS.items()]
        lines += [f"link set {port} mtu {mtu}" for port in SUBNETS]
        pair.run(node, "sudo ip -batch - << 'END'\n" + "\n".join(lines) + "\nEND\n")

    on_both(give)


@dataclass(frozen=True)
class Device:
    """One soft-RoCE device as the kernel shows it, with entry 1 of its GID table."""

    state: str
    carrier: str
    mtu: str
    gid: str
    kind: str


def devices(pair: RehearsalPair, node: str) -> dict[str, Device]:
    """The rails' devices, by the port that each is on."""
    script = """
    for device in /sys/class/infiniband/*; do
      port=$(cat $device/parent)
      read -r number state < $device/ports/1/state
      read -r gid < $device/ports/1/gids/1
      kind=$(cat $device/ports/1/gid_attrs/types/1 2> /dev/null)
      echo "$port,$state,$(cat /sys/class/net/$port/carrier),$(cat /sys/class/net/$port/mtu),$gid,$kind"
    done
    """
    rows = (line.split(",") for line in pair.run(node, script).splitlines())
    return {port: Device(*rest) for port, *rest in rows}


def down(pair: RehearsalPair, node: str) -> list[str]:
    return sorted(port for port, seen in devices(pair, node).items() if (seen.state, seen.carrier) == ("DOWN", "0"))


@pytest.mark.parametrize("node", [HEAD, WORKER])
def test_a_vm_has_its_kernel_its_name_and_four_active_devices(vm_pair: RehearsalPair, node: str) -> None:
    assert vm_pair.run(node, "hostname; sudo -n id -u; systemd-detect-virt -q && echo vm").split() == [node, "0", "vm"]
    assert vm_pair.run(node, "uname -r") != os.uname().release
    states = vm_pair.run(node, "rdma link")
    for rail in RAILS:
        assert f"link {rail.rdma}/1 state ACTIVE physical_state LINK_UP netdev {rail.name}" in states
    assert vm_pair.run(node, "ibv_devinfo | grep -c PORT_ACTIVE") == "4"


@pytest.mark.soak  # the same by the product's own commands: test_vm_fabric
@pytest.mark.usefixtures("undone")
def test_addresses_are_rocev2_gids_and_jumbo_frames_and_verbs_pass(vm_pair: RehearsalPair, timed: Timed) -> None:
    assert {seen.kind for seen in devices(vm_pair, HEAD).values()} == {""}
    addressed(vm_pair, 9000)
    until(lambda: all(seen.kind == "RoCE v2" for seen in devices(vm_pair, HEAD).values()))
    for number, (port, seen) in enumerate((rail.name, devices(vm_pair, HEAD)[rail.name]) for rail in RAILS):
        assert (port, seen.mtu, seen.gid) == (port, "9000", f"0000:0000:0000:0000:0000:ffff:c612:{number:02x}0b")
    pings = [f"ping -q -M do -s 8972 -c 1 -W 5 {subnet}.12" for subnet in SUBNETS.values()]
    vm_pair.run(HEAD, "\n".join(["set -e", *pings, "[ $(ibv_devinfo | grep -c 'active_mtu:.*4096') = 4 ]"]))
    for rail in rails_named("1"):
        words = f"ib_write_bw -d {rail.rdma} -x 1 -s 65536 -n 100 -F -t 8 -u 20"
        with timed(f"ib_write_bw over {rail.name}"), ThreadPoolExecutor(1) as pool:
            server = pool.submit(vm_pair.run, WORKER, words)
            until(lambda: vm_pair.succeeds(WORKER, "ss -Hltn sport = :18515 | grep -q ."))
            said = vm_pair.run(HEAD, f"{words} {SUBNETS[rail.name]}.12")
            server.result(timeout=60)
        assert "Link type       : Ethernet" in said
        assert " 65536      100 " in said


def test_a_pulled_cable_takes_both_twins_down_at_both_ends_until_it_is_plugged(vm_pair: RehearsalPair) -> None:
    twins = ["enP2p1s0f0np0", "enp1s0f0np0"]
    assert lab.set_cable("1", plugged=False).changed == tuple(f"{port} pulled" for port in twins)
    for node in (HEAD, WORKER):
        until(lambda node=node: down(vm_pair, node) == twins)  # type: ignore[misc]
    assert [port.plugged for port in lab.reset().nodes[0].ports] == [False, True, False, True]
    until(lambda: down(vm_pair, HEAD) == twins)
    assert lab.up().changed == tuple(f"{port} plugged" for port in twins)
    for node in (HEAD, WORKER):
        until(lambda node=node: down(vm_pair, node) == [])  # type: ignore[misc]


def test_a_reset_undoes_files_links_and_a_wrong_clock(vm_pair: RehearsalPair, timed: Timed) -> None:
    mess = """
    set -e
    sudo ip link set enp1s0f0np0 mtu 9000
    sudo rm /etc/netplan/10-dspark-lab.yaml
    sudo touch /var/lib/dspark-lab/mess
    sudo date -u -s @1700000000
    """
    on_both(lambda node: vm_pair.run(node, mess))
    with timed("reset"):
        lab.reset()
    for node in (HEAD, WORKER):
        assert vm_pair.run(node, "cat /sys/class/net/enp1s0f0np0/mtu; ls /var/lib/dspark-lab /etc/netplan") == (
            "1500\n/etc/netplan:\n10-dspark-lab.yaml\n20-dspark-lab-management.yaml\n\n"
            "/var/lib/dspark-lab:\nidentity-taken"
        )
        assert abs(int(vm_pair.run(node, "date +%s")) - time.time()) < 10


@pytest.mark.soak  # as above, and of both at once
@pytest.mark.usefixtures("undone")
def test_a_reboot_keeps_the_netplan_file_and_makes_the_devices_again(vm_pair: RehearsalPair, timed: Timed) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = {node: vm_pair.run(node, boot) for node in (HEAD, WORKER)}
    netplan = """
    set -e
    printf '%s\\n' 'network:' '  version: 2' '  ethernets:' \
      '    enp1s0f0np0: {addresses: [198.18.0.12/24], mtu: 9000}' | sudo tee /etc/netplan/60-rails.yaml > /dev/null
    sudo chmod 600 /etc/netplan/60-rails.yaml
    sudo systemctl reboot
    """
    vm_pair.succeeds(WORKER, netplan)
    with timed("reboot of the worker"):
        until(lambda: vm_pair.succeeds(WORKER, f"[ $({boot}) != {before[WORKER]} ] && dspark-lab-ready"), 180)
    assert vm_pair.run(HEAD, boot) == before[HEAD]
    assert vm_pair.run(WORKER, "sudo stat -c %a /etc/netplan/60-rails.yaml") == "600"
    until(lambda: devices(vm_pair, WORKER)["enp1s0f0np0"].kind == "RoCE v2")
    seen = devices(vm_pair, WORKER)
    assert (seen["enp1s0f0np0"].mtu, seen["enp1s0f0np0"].gid[-9:]) == ("9000", "c612:000c")
    assert [seen[rail.name].state for rail in RAILS] == ["ACTIVE"] * 4


def test_nothing_gets_out_of_a_vm_but_over_its_cables(vm_pair: RehearsalPair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wanted = (f"10.0.2.2/{listener.getsockname()[1]}", "192.0.2.1/80")
        tries = [f"timeout 2 bash -c '< /dev/tcp/{where}' && echo out" for where in wanted]
        assert vm_pair.run(HEAD, "\n".join([*tries, "true"])) == ""


@pytest.mark.soak
def test_a_second_up_changes_nothing_and_a_killed_vm_comes_back(vm_pair: RehearsalPair, timed: Timed) -> None:
    kept = vm_pair.run(HEAD, "cat /proc/uptime").split(".")[0]
    assert lab.up().changed == ()
    pid = machine.pid(vm_paths(), LAB_WORKER)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: machine.pid(vm_paths(), LAB_WORKER) is None)
    assert lab.status().problems == ("spark-worker: the VM is absent",)
    with timed("up of a killed VM"):
        assert lab.up().changed == ("spark-worker started",)
    assert int(vm_pair.run(HEAD, "cat /proc/uptime").split(".")[0]) >= int(kept)


def test_the_verbs_of_the_cli_reach_the_vm_pair(vm_pair: RehearsalPair) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "dspark_ops", "lab", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    status = run("status", "--vm", "--json")
    assert status.returncode == 0, status.stderr
    assert '"schema": "dspark-ops/lab-vm/v1"' in status.stdout
    assert "enp1s0f0np0 pulled" in run("cable", "enp1s0f0np0", "off", "--vm").stdout
    assert "enp1s0f0np0 plugged" in run("cable", "enp1s0f0np0", "on", "--vm").stdout
    refused = run("reset")
    assert refused.returncode == 2
    assert "--vm" in refused.stderr
