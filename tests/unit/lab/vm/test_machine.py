"""The emulator's command line, and whose process a process is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.lab.layout import HEAD, NODES, WORKER, Node
from dspark_ops.lab.vm import machine
from dspark_ops.lab.vm.base_image import BaseImage
from dspark_ops.lab.vm.layout import RAILS, VmPaths, lab_mac, management_mac
from dspark_ops.lab.vm.machine import Machine


def paths(tmp_path: Path) -> VmPaths:
    (tmp_path / "state").mkdir(exist_ok=True)
    return VmPaths(state=tmp_path / "state", cache=tmp_path / "cache")


def described(node: Node, *, root: Path = Path("/lab"), from_snapshot: bool = False) -> Machine:
    lab = VmPaths(state=root / "state", cache=root / "cache")
    return Machine(node, lab, BaseImage("k", root / "cache/base-k"), "tcg", 2200 + node.number, from_snapshot)


def options(argv: list[str], name: str) -> list[str]:
    return [value for flag, value in pairwise(argv) if flag == name]


def fields(option: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in option.split(","))


@pytest.mark.parametrize("node", NODES)
def test_ssh_is_on_the_loopback_alone_and_nothing_gets_out(node: Node) -> None:
    (user,) = (o for o in options(machine.command_line(described(node)), "-netdev") if o.startswith("user,"))
    assert fields(user)["hostfwd"] == f"tcp:127.0.0.1:{2200 + node.number}-:22"
    assert fields(user)["restrict"] == "on"


def test_each_cable_joins_the_two_ends_of_one_rail() -> None:
    ends = {}
    for node in NODES:
        for option in options(machine.command_line(described(node)), "-netdev"):
            if option.startswith("dgram,"):
                said = fields(option)
                ends[node.name, said["id"]] = (said["local.path"], said["remote.path"])
    links = {link for _, link in ends}
    assert links == {"management", *(rail.device for rail in RAILS)}
    for link in links:
        assert ends[HEAD.name, link] == ends[WORKER.name, link][::-1]
    assert len({local for local, _ in ends.values()}) == 2 * len(links)


def test_every_card_has_its_own_mac_and_the_rails_declare_their_speed() -> None:
    seen = []
    for node in NODES:
        cards = [fields(o) for o in options(machine.command_line(described(node)), "-device") if "netdev=" in o]
        seen += [card["mac"] for card in cards]
        rails = {card["netdev"]: card for card in cards if card["netdev"].startswith("rail")}
        assert all(card["speed"] == "200000" for card in rails.values())
        assert rails[RAILS[0].device]["mac"] == RAILS[0].port.mac(node)
        assert {lab_mac(node), management_mac(node)} < {card["mac"] for card in cards}
    assert len(set(seen)) == 12


def test_it_starts_stopped_and_from_the_snapshot_only_when_asked() -> None:
    cold, warm = (machine.command_line(described(HEAD, from_snapshot=f)) for f in (False, True))
    assert "-S" in cold
    assert "-S" in warm
    assert "-loadvm" not in cold
    assert options(warm, "-loadvm") == ["clean"]


def test_emulation_and_virtualisation_take_their_own_processor() -> None:
    emulated = machine.command_line(described(HEAD))
    virtual = machine.command_line(replace(described(HEAD), acceleration="kvm"))
    assert options(emulated, "-cpu") == ["Nehalem"]
    assert options(emulated, "-accel")[0].startswith("tcg")
    assert (options(virtual, "-accel"), options(virtual, "-cpu")) == (["kvm"], ["host"])


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    argv = machine.command_line(described(HEAD, root=Path("/a,b")))
    (drive,) = options(argv, "-drive")
    assert "file=/a,,b/cache/pair/spark-head.qcow2,if=none" in drive


def test_a_state_directory_too_deep_for_sockets_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match="too deep"):
        machine.command_line(described(HEAD, root=Path("/" + "d" * 100)))


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [("fpu vmx sse", True, "kvm"), ("fpu svm", True, "kvm"), ("fpu sse", True, "tcg"), ("fpu vmx", False, "tcg")],
)
def test_kvm_wants_the_device_and_the_processors_flag(tmp_path: Path, flags: str, device: bool, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    if device:
        (tmp_path / "kvm").touch()
    assert machine.acceleration(tmp_path / "kvm", tmp_path / "cpuinfo") == expected


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no emulator, its id in the head's pid file."""
    lab = paths(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    machine.pid_file(lab, HEAD).write_text(f"{process.pid}\n")
    yield process
    process.kill()
    process.wait()


def test_a_recycled_process_id_is_not_ours_and_is_never_ended(
    tmp_path: Path, impostor: subprocess.Popen[bytes]
) -> None:
    lab = paths(tmp_path)
    assert machine.pid(lab, HEAD) is None
    assert machine.stop(lab, HEAD) is False
    assert impostor.poll() is None


@pytest.mark.parametrize("pid_file_of_ours", [False, True])
def test_only_an_emulator_with_our_pid_file_is_ours_to_end(tmp_path: Path, pid_file_of_ours: bool) -> None:
    """Same program, another pid file among its arguments: what two users on one machine look like."""
    lab = paths(tmp_path)
    named = machine.pid_file(lab, HEAD) if pid_file_of_ours else tmp_path / "other.pid"
    process = subprocess.Popen(
        [machine.PROGRAM, "-c", "import time; time.sleep(60)", "-pidfile", str(named)], executable=sys.executable
    )
    try:
        machine.pid_file(lab, HEAD).write_text(f"{process.pid}\n")
        deadline = time.monotonic() + 30
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(machine.PROGRAM.encode()):
            assert time.monotonic() < deadline, "the process did not become what it was started as"
        assert (machine.pid(lab, HEAD) == process.pid) is pid_file_of_ours
        assert machine.stop(lab, HEAD) is pid_file_of_ours
        if pid_file_of_ours:
            assert process.wait(timeout=10) == -signal.SIGTERM
        else:
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_taken_ssh_port_is_left_to_its_owner() -> None:
    usual = machine.preferred_ssh_port(WORKER)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", usual))
            other.listen(1)
        except OSError:
            pass  # the pair of this machine has it
        assert machine.free_ssh_port(WORKER) != usual
