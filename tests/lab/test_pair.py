"""The rehearsal pair is what it says: real hosts, real links, look-alikes that follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from dspark_ops.lab import pair as lab
from dspark_ops.lab.engine_host import find_docker
from dspark_ops.lab.layout import NODES, lab_paths
from tests.lab.conftest import HEAD, WORKER, RehearsalPair

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

Eventually = Callable[[Callable[[], bool]], None]
PORTS = ("enp1s0f0np0", "enp1s0f1np1", "enP2p1s0f0np0", "enP2p1s0f1np1")
#: Benchmarking range (RFC 2544): collides with no site.
RAILS = {port: f"198.18.{number}" for number, port in enumerate(PORTS)}

TINY_IMAGE = """
set -e
docker image inspect lab-tiny >/dev/null 2>&1 && exit 0
programs="/bin/bash /bin/sleep /bin/cat"
{ for p in $programs; do echo $p; readlink -f $p; ldd $p | grep -o '/[^ ]*'; done; } | sort -u | sed 's|^/||' |
  tar -C / -ch -T - | docker import - lab-tiny >/dev/null
"""


def links(pair: RehearsalPair, node: str) -> dict[str, dict[str, object]]:
    return {item["ifname"]: item for item in json.loads(pair.run(node, "ip -j addr"))}


def gid_types(pair: RehearsalPair, node: str, address_in_hex: str) -> list[str]:
    script = f"""
    cd /sys/class/infiniband/rocep1s0f1/ports/1
    for i in $(grep -l {address_in_hex} gids/*); do cat gid_attrs/types/${{i#gids/}}; done
    """
    return pair.run(node, script, check=False).splitlines()


@pytest.mark.parametrize("node", [HEAD, WORKER])
def test_a_node_is_a_host_with_sudo_systemd_and_its_own_names(pair: RehearsalPair, node: str) -> None:
    assert pair.run(node, "hostname") == node
    assert pair.run(node, "sudo -n id -u") == "0"
    assert pair.run(node, "ps -p 1 -o comm=") == "systemd"
    hosts = pair.run(node, "cat /etc/hosts")
    assert f"127.0.1.1\t{node}" in hosts
    assert not any(line.startswith("10.") for line in hosts.splitlines())
    assert pair.run(node, "ip -o link show enP7s7")


@pytest.mark.parametrize("node", [HEAD, WORKER])
def test_four_ports_have_carrier_and_their_names(pair: RehearsalPair, node: str) -> None:
    seen = links(pair, node)
    for port in PORTS:
        flags = seen[port]["flags"]
        assert isinstance(flags, list)
        assert "LOWER_UP" in flags, port
        assert pair.run(node, f"cat /sys/class/net/{port}/phys_port_name") == f"p{port[-1]}"
    assert pair.run(node, "ibdev2netdev").count("(Up)") == 4


def test_the_host_keys_differ_and_are_known(pair: RehearsalPair) -> None:
    known = lab_paths().known_hosts.read_text().splitlines()
    assert len({line.split()[2] for line in known}) == 2


def test_gids_follow_an_address_given_and_taken(pair: RehearsalPair, eventually: Eventually) -> None:
    as_gid = "ffff:c612:0909"
    pair.run(HEAD, "sudo ip addr add 198.18.9.9/32 dev enp1s0f1np1")
    try:
        eventually(lambda: gid_types(pair, HEAD, as_gid) == ["IB/RoCE v1", "RoCE v2"])
    finally:
        pair.run(HEAD, "sudo ip addr del 198.18.9.9/32 dev enp1s0f1np1")
    eventually(lambda: gid_types(pair, HEAD, as_gid) == [])


def test_the_gid_table_keeps_its_holes_when_the_daemon_is_killed(pair: RehearsalPair, eventually: Eventually) -> None:
    last = "ffff:c612:090b"
    index = f"cd /sys/class/infiniband/rocep1s0f1/ports/1/gids && echo $(grep -l {last} *)"
    pair.run(HEAD, "for n in 10 11; do sudo ip addr add 198.18.9.$n/32 dev enp1s0f1np1; done")
    try:
        eventually(lambda: len(gid_types(pair, HEAD, last)) == 2)
        before = pair.run(HEAD, index)
        pair.run(HEAD, "sudo ip addr del 198.18.9.10/32 dev enp1s0f1np1")
        eventually(lambda: gid_types(pair, HEAD, "ffff:c612:090a") == [])
        pair.run(HEAD, "sudo systemctl kill -s KILL dspark-lab-lookalike")
        eventually(lambda: pair.succeeds(HEAD, "systemctl is-active --quiet dspark-lab-lookalike"))
        assert pair.run(HEAD, index) == before
    finally:
        pair.run(HEAD, "for n in 10 11; do sudo ip addr del 198.18.9.$n/32 dev enp1s0f1np1; done 2>/dev/null || true")


def test_a_port_set_down_is_down_everywhere_and_its_peer_loses_carrier(
    pair: RehearsalPair, eventually: Eventually
) -> None:
    pair.run(WORKER, "sudo ip link set enp1s0f1np1 down")
    try:
        for node in (HEAD, WORKER):
            state = "cat /sys/class/infiniband/rocep1s0f1/ports/1/state"
            eventually(lambda node=node, state=state: pair.run(node, state) == "1: DOWN")  # type: ignore[misc]
        assert pair.run(HEAD, "cat /sys/class/net/enp1s0f1np1/speed") == "-1"
        assert "rocep1s0f1 port 1 ==> enp1s0f1np1 (Down)" in pair.run(HEAD, "ibdev2netdev")
        assert "active_mtu:\t\t1024 (3)" in pair.run(HEAD, "ibv_devinfo -d rocep1s0f1")
    finally:
        pair.run(WORKER, "sudo ip link set enp1s0f1np1 up")
    eventually(lambda: pair.run(HEAD, "cat /sys/class/net/enp1s0f1np1/speed") == "200000")


@pytest.fixture
def jumbo(pair: RehearsalPair) -> Iterator[None]:
    """Test addresses and MTU 9000 on every rail of both; the MTU that was there comes back."""
    before = {node: links(pair, node) for node in (HEAD, WORKER)}
    for number, node in enumerate((HEAD, WORKER), start=1):
        lines = [f"addr add {net}.{number}/30 dev {port}\nlink set {port} mtu 9000" for port, net in RAILS.items()]
        pair.run(node, "sudo ip -batch - << 'END'\n" + "\n".join(lines) + "\nEND\n")
    yield
    for number, node in enumerate((HEAD, WORKER), start=1):
        lines = [
            f"addr del {net}.{number}/30 dev {port}\nlink set {port} mtu {before[node][port]['mtu']}"
            for port, net in RAILS.items()
        ]
        pair.run(node, "sudo ip -batch - << 'END'\n" + "\n".join(lines) + "\nEND\n")


def jumbo_ping(pair: RehearsalPair, port: str, size: int = 8972) -> bool:
    return pair.succeeds(HEAD, f"ping -q -c 2 -i 0.2 -W 1 -M do -s {size} {RAILS[port]}.2")


@pytest.mark.usefixtures("jumbo")
def test_a_jumbo_ping_passes_on_every_rail_and_fails_where_one_end_is_1500(
    pair: RehearsalPair, eventually: Eventually
) -> None:
    assert {port: jumbo_ping(pair, port) for port in PORTS} == dict.fromkeys(PORTS, True)
    assert not jumbo_ping(pair, PORTS[0], 8973)
    eventually(lambda: "active_mtu:\t\t4096 (5)" in pair.run(WORKER, "ibv_devinfo -d rocep1s0f0"))
    pair.run(WORKER, f"sudo ip link set {PORTS[0]} mtu 1500")
    assert not jumbo_ping(pair, PORTS[0])
    assert jumbo_ping(pair, PORTS[0], 1472)
    assert jumbo_ping(pair, PORTS[2])
    assert "active_mtu:\t\t1024 (3)" in pair.run(WORKER, "ibv_devinfo -d rocep1s0f0")


@pytest.mark.usefixtures("jumbo")
def test_the_rdma_counters_are_words_of_the_ports_bytes(pair: RehearsalPair, eventually: Eventually) -> None:
    port = "/sys/class/infiniband/rocep1s0f0/ports/1/counters/port_xmit_data"
    before = int(pair.run(HEAD, f"cat {port}"))
    pair.run(HEAD, f"ping -q -c 20 -i 0.01 -s 8000 {RAILS[PORTS[0]]}.2")
    eventually(lambda: 20 * 8000 // 4 <= int(pair.run(HEAD, f"cat {port}")) - before < 3 * 20 * 8000 // 4)


def test_mtu_9000_is_settable_through_netplan(pair: RehearsalPair) -> None:
    file = "/etc/netplan/98-lab-test.yaml"
    before = links(pair, HEAD)["enp1s0f1np1"]["mtu"]
    plan = "network: {version: 2, ethernets: {enp1s0f1np1: {mtu: 9000, addresses: [198.18.20.1/30]}}}"
    try:
        pair.run(HEAD, f"echo '{plan}' | sudo tee {file} >/dev/null; sudo chmod 600 {file}; sudo netplan apply")
        assert pair.succeeds(
            HEAD,
            "for i in $(seq 50); do ip addr show enp1s0f1np1 | grep -q 198.18.20.1 && break; sleep 0.1; done; "
            "ip link show enp1s0f1np1 | grep -q 'mtu 9000'",
        )
    finally:
        pair.run(HEAD, f"sudo rm -f {file}; sudo netplan apply; sudo ip link set enp1s0f1np1 mtu {before}")


def test_memory_is_the_nodes_limit_and_follows_what_the_node_uses(pair: RehearsalPair) -> None:
    from dspark_ops.lab.node_memory import machine_limit_bytes

    for node in (HEAD, WORKER):
        assert int(pair.run(node, "awk '/^MemTotal/ {print $2}' /proc/meminfo")) == machine_limit_bytes() // 1024
    script = """
import time
def available():
    return next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemAvailable"))
before = available()
held = bytearray(b"x") * (256 << 20)
time.sleep(2.5)
print((before - available()) // 1024)
"""
    assert 200 < int(pair.run(HEAD, f"python3 - <<'X'\n{script}\nX")) < 400


def test_a_nodes_sysctl_stays_in_the_node(pair: RehearsalPair) -> None:
    from pathlib import Path

    machine = Path("/proc/sys/vm/swappiness").read_text()
    pair.run(HEAD, "echo 17 | sudo tee /proc/sys/vm/swappiness >/dev/null")
    assert pair.run(HEAD, "cat /proc/sys/vm/swappiness") == "17"
    assert Path("/proc/sys/vm/swappiness").read_text() == machine


def test_nested_docker_runs_and_nvidia_smi_lists_a_real_holder_of_the_device(
    pair: RehearsalPair, eventually: Eventually
) -> None:
    pair.run(HEAD, TINY_IMAGE)
    query = "nvidia-smi --query-compute-apps=pid,process_name --format=csv,noheader"
    pair.run(HEAD, "docker rm -f lab-holder >/dev/null 2>&1 || true")
    try:
        pair.run(
            HEAD,
            "docker run -d --name lab-holder --pull never --gpus all --network host lab-tiny "
            "/bin/bash -c 'exec 9</dev/nvidia0; exec -a held-by-the-test /bin/sleep 120'",
        )
        eventually(lambda: "held-by-the-test" in pair.run(HEAD, query))
        assert "held-by-the-test" in pair.run(HEAD, "nvidia-smi")
    finally:
        pair.run(HEAD, "docker rm -f lab-holder >/dev/null; docker image rm lab-tiny >/dev/null")
    eventually(lambda: "held-by-the-test" not in pair.run(HEAD, query))


def test_the_nodes_reach_the_debian_mirrors_and_lack_what_bootstrap_installs(pair: RehearsalPair) -> None:
    pair.run(HEAD, "sudo apt-get update -qq", timeout_s=180)
    assert pair.succeeds(HEAD, "apt-cache policy perftest | grep -q 'Candidate: [0-9]'")


def test_each_node_lists_its_look_alikes(pair: RehearsalPair) -> None:
    listed = json.loads(pair.run(HEAD, "cat /etc/dspark-lab.json"))
    assert listed == [item.model_dump() for item in lab.look_alikes()]


def identity() -> dict[str, object]:
    """What a changed lab would not keep: containers with their start, and every port's index."""
    host = find_docker(lab_paths().state)
    assert host is not None
    client = host.client()
    try:
        containers = [client.containers.get(node.container) for node in NODES]
        return {str(c.name): (c.id, c.attrs["State"]["StartedAt"]) for c in containers}
    finally:
        client.close()


@pytest.mark.usefixtures("pair")
def test_a_second_up_changes_nothing(pair: RehearsalPair) -> None:
    before = identity(), {node: links(pair, node)[PORTS[0]]["ifindex"] for node in (HEAD, WORKER)}
    status = lab.up(engine=False)
    after = identity(), {node: links(pair, node)[PORTS[0]]["ifindex"] for node in (HEAD, WORKER)}
    assert status.changed == ()
    assert after == before


def test_up_lays_again_the_cables_that_a_node_lost_by_its_restart(pair: RehearsalPair) -> None:
    host = find_docker(lab_paths().state)
    assert host is not None
    client = host.client()
    try:
        client.containers.get(NODES[1].container).restart()
    finally:
        client.close()
    assert lab.status().state == "partial"
    status = lab.up(engine=False)
    assert status.up
    assert f"{WORKER}/{PORTS[0]} plugged" in status.changed
    assert pair.run(WORKER, "ibdev2netdev").count("(Up)") == 4


def test_with_one_cable_the_second_cage_is_dark(pair: RehearsalPair) -> None:
    try:
        assert lab.up(engine=False, cables=1).up
        seen = pair.run(HEAD, "ibdev2netdev")
        assert "enp1s0f0np0 (Up)" in seen
        assert "enp1s0f1np1 (Down)" in seen
        assert "NO-CARRIER" in pair.run(HEAD, "ip link show enP2p1s0f1np1")
    finally:
        lab.up(engine=False, cables=2)
