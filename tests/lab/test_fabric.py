"""The fabric of the container pair: proven, harmed in every way the field knows, named with a remedy, taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dspark_ops.config.load import load_site
from dspark_ops.config.models import ROLES
from tests.lab.doctor_faults import QUIET as DOCTOR_FAULTS
from tests.lab.fabric_faults import A0, A1, B0, B1, FAULTS, Fault, shell
from tests.lab.operator_cli import HOSTS, Done, Operator, wait_for_line
from tests.lab.test_bootstrap import NETPLAN
from tests.lab.test_pair import TINY_IMAGE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def idle(operator: Operator) -> Operator:
    """The bootstrapped pair without a rank."""
    done = operator.run("stop", "--yes", "--remove")
    assert done.rc == 0, done
    return operator


@pytest.fixture
def bare(idle: Operator) -> Iterator[Operator]:
    """Unconfigured ports; the rails are applied again afterwards."""
    ports = [f"ip addr flush dev {port} scope global; ip link set {port} mtu 1500 up" for port in (A0, B0, A1, B1)]
    for role in HOSTS:
        shell(idle, role, f"rm -rf {NETPLAN} /var/lib/dspark/journal; netplan apply; {'; '.join(ports)}")
    yield idle
    done = idle.run("fabric apply", "--yes")
    assert done.rc == 0, done


def finding(done: Done, check: str, node: str, status: str) -> dict[str, Any]:
    """The finding of a check on a node, which must have that status and name its remedy."""
    found: dict[str, Any] = next(
        (f for f in done.document()["findings"] if f["id"] == check and f["node"] in (node, "pair")), {}
    )
    assert found.get("status") == status, f"{check} on {node} is {found}, wanted {status}; {done}"
    assert found["remedy"]["text"], found
    return found


def test_the_fabric_is_green_and_a_second_apply_changes_nothing(idle: Operator) -> None:
    verified = idle.run("fabric verify", "--json")
    assert (verified.rc, verified.document()["verdict"]) == (0, "ready"), verified
    again = idle.run("fabric apply", "--yes", "--json")
    assert (again.rc, again.document()["verdict"], again.document()["changes"]) == (0, "unchanged", []), again
    shown = idle.run("fabric show", "--json").document()
    assert [(r["head"], r["worker"], r["planned"]) for r in shown["rails"]] == [(p, p, True) for p in (A0, B0, A1, B1)]
    assert {tuple(i) for port in shown["ports"] for i in port["gid_indexes"].values()} == {(3,)}
    assert {port["owner"] for port in shown["ports"]} == {"60-dspark-fabric.yaml (dspark-ops)"}


#: The same rules name these in the doctor's own report (test_doctor_faults), on every change.
BY_THE_DOCTOR = {fault.name for fault in DOCTOR_FAULTS if fault.core}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, id=f.name, marks=pytest.mark.soak if f.name in BY_THE_DOCTOR else ()) for f in FAULTS],
)
def test_a_fault_is_named_with_its_remedy(idle: Operator, fault: Fault) -> None:
    overrides = [word for override in fault.site for word in ("--set", override)]
    with fault.done_to(idle):
        time.sleep(1.2)  # the look-alike tree follows within a second
        done = idle.run("fabric verify", "--json", *overrides)
        assert done.rc == 1, done
        told = json.dumps(finding(done, fault.check, fault.role, fault.status))
        for text in fault.says:
            assert text in told, told


@pytest.mark.soak
def test_crossed_cables_are_drawn_and_named(idle: Operator) -> None:
    """The rails keep their addresses and have no link-local ones: what faces what is heard through ARP alone."""
    from dspark_ops.lab import pair as lab

    lab.up(engine=False, crossed=True)
    try:
        time.sleep(3)  # networkd configures the ports that were plugged anew
        done = idle.run("fabric verify", "--json")
        assert done.rc == 1, done
        assert "cabled to cage 1" in finding(done, "fabric.cable_matches", "pair", "fail")["observed"]
        shown = idle.run("fabric show")
        assert shown.rc == 0, shown
        assert "CROSSED" in shown.out
    finally:
        lab.up(engine=False)
    time.sleep(3)
    assert idle.run("fabric verify").rc == 0


def test_a_gid_that_drifted_is_named_and_a_pin_then_refuses_the_deploy(idle: Operator) -> None:
    assert idle.run("fabric verify").rc == 0  # remembers where the entries are
    moved = f"""
    ip addr del 10.77.0.1/24 dev {A0}; sleep 0.7; ip addr add 198.18.9.9/32 dev {A0}; sleep 0.7
    ip addr add 10.77.0.1/24 dev {A0}; sleep 0.7; ip addr del 198.18.9.9/32 dev {A0}; sleep 0.7
    """
    back = f"ip addr del 10.77.0.1/24 dev {A0}; sleep 0.7; ip addr add 10.77.0.1/24 dev {A0}; sleep 0.7"
    shell(idle, "head", moved)
    try:
        done = idle.run("fabric verify", "--json")
        told = finding(done, "fabric.gid_drift", "pair", "warn")["observed"]
        assert "rocep1s0f0" in told
        assert "at 3" in told
        assert "at 5" in told
        pinned = idle.run("fabric verify", "--json", "--set", "fabric.gid_index=3")
        assert pinned.rc == 1
        assert "rocep1s0f0" in finding(pinned, "fabric.gid_index_valid", "pair", "fail")["observed"]
        refused = idle.run("deploy", "--yes", "--set", "fabric.gid_index=3")
        assert refused.rc == 4, refused
        assert "rocep1s0f0" in refused.err
        assert not any(idle.ranks().values())
    finally:
        shell(idle, "head", back)
    assert idle.run("fabric verify").rc == 0


def test_an_empty_gid_variable_in_a_running_rank_is_named(idle: Operator) -> None:
    name = load_site(idle.site).site.name
    labels = " ".join(f"--label io.dspark-ops.{k}={v}" for k, v in {"site": name, "role": "head"}.items())
    shell(idle, "head", TINY_IMAGE)
    run = f"docker run -d --name dspark-rank {labels} -e NCCL_IB_GID_INDEX= --pull never lab-tiny /bin/sleep 120"
    shell(idle, "head", run)
    try:
        done = idle.run("fabric verify", "--json")
        assert "empty" in finding(done, "nccl.gid_index_unset", "head", "fail")["observed"]
    finally:
        shell(idle, "head", "docker rm -f dspark-rank > /dev/null; docker image rm lab-tiny > /dev/null")


SEND = """
import socket
for device, peer in {rails}:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    for _ in range(12000):
        out.sendto(bytes(8000), (peer, 9))
"""


def watched(operator: Operator, rails: list[tuple[str, str]], seconds: int = 5) -> dict[str, Any]:
    """`fabric watch` while the head sends about 100 MB over each of the given rails."""
    process = operator.begin("fabric watch", "--seconds", str(seconds), "--json", "--verbose")
    assert wait_for_line(process, "waiting", 60)
    for end in rails:
        operator.on("head", "python3", "-c", "'" + SEND.format(rails=[end]).replace("'", '"') + "'")
    process.wait(timeout=60)
    return {"rc": process.returncode, **last_report("fabric watch")}


def last_report(verb: str) -> dict[str, Any]:
    """What the tool kept of its last run of a verb."""
    from dspark_ops.paths import state_dir

    kept = sorted((state_dir() / "reports").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    documents = (json.loads(path.read_text(encoding="utf-8")) for path in kept)
    found: dict[str, Any] = next(document for document in documents if document["verb"] == verb)
    return found


def test_a_split_over_all_rails_is_good_and_the_one_half_trap_is_named(idle: Operator) -> None:
    every = [(A0, "10.77.0.2"), (B0, "10.77.1.2"), (A1, "10.77.2.2"), (B1, "10.77.3.2")]
    good = watched(idle, every, seconds=6)
    assert good["rc"] == 0, good
    trap = watched(idle, [every[0], every[2]])
    told = {f["id"]: f for f in trap["findings"] if f["node"] == "head"}
    assert trap["rc"] == 1, trap
    assert told["fabric.split_one_half"]["status"] == "fail"
    # Between the cables it looks perfect; that is the trap.
    assert "cage 0" in told["fabric.split_one_half"]["observed"]
    assert told["fabric.split_one_half"]["remedy"]["text"]


@pytest.mark.soak
def test_counters_that_were_reset_between_two_readings_are_no_verdict(idle: Operator) -> None:
    from dspark_ops.lab import pair as lab

    process = idle.begin("fabric watch", "--seconds", "6", "--json")
    assert wait_for_line(process, "waiting", 60)
    lab.up(engine=False, crossed=True)
    lab.up(engine=False)
    process.wait(timeout=60)
    report = last_report("fabric watch")
    assert (process.returncode, report["verdict"]) == (3, "indeterminate"), report
    assert any("reset" in f["observed"] for f in report["findings"] if f["status"] == "unknown"), report
    time.sleep(3)
    assert idle.run("fabric verify").rc == 0


def test_load_without_a_kernel_stack_is_no_verdict(idle: Operator) -> None:
    """The look-alike tree says ACTIVE; ib_write_bw finds no device. That is never a pass."""
    done = idle.run("fabric test", "--yes", "--seconds", "1")
    assert done.rc == 3, done


def test_restore_takes_back_the_last_change_and_refuses_an_edited_file(bare: Operator) -> None:
    applied = bare.run("fabric apply", "--yes", "--json")
    assert applied.rc == 0, applied
    assert bare.run("fabric verify").rc == 0
    shell(bare, "worker", f'cp -p {NETPLAN} /root/kept.yaml; echo "# mine" >> {NETPLAN}')
    refused = bare.run("fabric restore", "--yes")
    assert refused.rc == 4, refused
    assert NETPLAN in refused.err
    assert all("60-dspark-fabric.yaml" in bare.on(role, "ls", "/etc/netplan") for role in HOSTS)
    shell(bare, "worker", f"mv /root/kept.yaml {NETPLAN}")
    restored = bare.run("fabric restore", "--yes", "--json")
    assert (restored.rc, restored.document()["verdict"]) == (0, "changed"), restored
    for role in HOSTS:
        assert bare.on(role, "ls", "/etc/netplan").split() == []
        assert " mtu 1500 " in bare.on(role, "ip", "-o", "link", "show", A0)
        assert "10.77." not in bare.on(role, "ip", "-o", "-4", "addr", "show", "dev", A0)


def test_a_sound_fabric_of_somebody_else_is_adopted_and_said_to_be_his(bare: Operator) -> None:
    site = load_site(bare.site).site
    for role in ROLES:
        ports = "\n".join(
            f"    {rail.of(role).netdev}: {{addresses: [{rail.of(role).address}], mtu: 9000}}"
            for rail in site.fabric.rails
        )
        text = f"network:\n  version: 2\n  ethernets:\n{ports}\n"
        shell(bare, role, f'umask 077; cat > /etc/netplan/40-cx7.yaml << "END"\n{text}END\nnetplan apply')
    try:
        time.sleep(2)
        done = bare.run("fabric apply", "--yes", "--json")
        assert (done.rc, done.document()["changes"]) == (0, []), done
        verified = bare.run("fabric verify", "--json", "--verbose")
        assert verified.rc == 0, verified
        owners = [f["observed"] for f in verified.document()["findings"] if f["id"] == "fabric.persistence_owner"]
        assert all("40-cx7.yaml" in observed for observed in owners), owners
    finally:
        for role in ROLES:
            shell(bare, role, "rm -f /etc/netplan/40-cx7.yaml; netplan apply")
            shell(bare, role, "; ".join(f"ip addr flush dev {p} scope global" for p in (A0, B0, A1, B1)))


@pytest.mark.soak
def test_without_netplan_networkd_holds_the_rails(bare: Operator) -> None:
    for role in HOSTS:
        shell(bare, role, "mv /usr/sbin/netplan /usr/sbin/netplan.away")
    try:
        done = bare.run("fabric apply", "--yes", "--json")
        assert done.rc == 0, done
        listed = bare.on("head", "ls", "/etc/systemd/network")
        assert f"09-dspark-fabric-{A0}.network" in listed
        verified = bare.run("fabric verify", "--json")
        assert verified.rc == 0, verified
        again = bare.run("fabric apply", "--yes", "--json")
        assert (again.rc, again.document()["changes"]) == (0, []), again
        assert bare.run("fabric restore", "--yes").rc == 0
        assert "09-dspark" not in bare.on("head", "ls", "/etc/systemd/network")
    finally:
        for role in HOSTS:
            shell(bare, role, "mv /usr/sbin/netplan.away /usr/sbin/netplan; rm -f /etc/systemd/network/09-dspark-*")
