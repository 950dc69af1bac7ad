"""Names and places of the VM pair, its record, and what it reads off a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.lab.layout import HEAD, NODES, PORTS
from dspark_ops.lab.record import longest, read_model, write_model
from dspark_ops.lab.ssh_access import Endpoint, write_endpoints
from dspark_ops.lab.vm.disks import DiskRecord, host_keys, make_disks, mark_saved, read_disks
from dspark_ops.lab.vm.inspect import look_alikes, parse_ports
from dspark_ops.lab.vm.layout import RAILS, VmPaths, name_files, rails_named
from dspark_ops.lab.vm.models import VmRecord

RXE = Path(__file__).parents[3] / "fixtures/rxe"


def paths(tmp_path: Path) -> VmPaths:
    (tmp_path / "lab-vm").mkdir()
    return VmPaths(state=tmp_path / "lab-vm", cache=tmp_path / "cache")


def test_a_cable_is_both_twins_of_its_cage_and_a_port_is_itself() -> None:
    assert [rail.name for rail in rails_named("1")] == ["enp1s0f0np0", "enP2p1s0f0np0"]
    assert [rail.name for rail in rails_named("2")] == ["enp1s0f1np1", "enP2p1s0f1np1"]
    assert [rail.rdma for rail in rails_named("enP2p1s0f1np1")] == ["roceP2p1s0f1"]


@pytest.mark.parametrize("name", ["3", "", "rocep1s0f0", "enP7s7"])
def test_other_names_are_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(ConfigError, match="no rail or cable") as caught:
        rails_named(name)
    assert "enp1s0f0np0" in (caught.value.hint or "")


def test_each_port_is_named_on_both_nodes_by_its_macs() -> None:
    files = name_files()
    assert len(files) == 6
    for port in PORTS:
        text = files[f"etc/systemd/network/10-dspark-lab-{port.name}.link"]
        assert f"Name={port.name}\n" in text
        assert all(port.mac(node) in text for node in NODES)


def test_the_vms_have_a_lock_and_a_key_of_their_own(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    assert lab.lock.name == "lab-vm.lock"
    assert lab.key.is_relative_to(lab.cache)
    assert lab.ssh_config.parent == lab.state


def test_known_hosts_and_ssh_config_carry_the_forwarded_ports(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    write_endpoints(lab, {"spark-head": Endpoint("127.0.0.1", 22471)}, {"spark-head": "ssh-ed25519 AAAA x"})
    assert lab.known_hosts.read_text() == "spark-head,[127.0.0.1]:22471 ssh-ed25519 AAAA\n"
    assert "  Port 22471\n" in lab.ssh_config.read_text()


def test_a_record_survives_and_the_longest_phase_is_kept(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    record = VmRecord(
        cables=1, pulled=("enp1s0f1np1",), ssh_ports={"spark-head": 1}, phases_s=longest({"a": 2}, {"a": 1})
    )
    write_model(lab.record, record)
    assert read_model(lab.record, VmRecord) == record
    assert record.phases_s == {"a": 2}
    lab.record.write_text('{"cables": 2, "of_another_version": 1}')
    assert read_model(lab.record, VmRecord) is None


def fake_disks(lab: VmPaths, record: DiskRecord) -> None:
    lab.disks.mkdir(parents=True)
    for node in NODES:
        lab.disk(node).touch()
    write_model(lab.disk_record, record)


def test_disks_count_only_when_whole_and_a_snapshot_only_when_marked(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    record = DiskRecord(base="b", emulator="QEMU 7.2", acceleration="tcg")
    assert read_disks(lab) is None
    fake_disks(lab, record)
    assert read_disks(lab) == record
    mark_saved(lab, record)
    saved = read_disks(lab)
    assert saved is not None
    assert saved.saved
    lab.disk(HEAD).unlink()
    assert read_disks(lab) is None


def test_fresh_disks_bring_new_keys_that_are_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dspark_ops.lab.vm import disks
    from dspark_ops.lab.vm.base_image import BaseImage

    made = []
    monkeypatch.setattr(disks, "_create", lambda *of: made.append(of[-1]))
    lab = paths(tmp_path)
    record = DiskRecord(base="b", emulator="QEMU 7.2", acceleration="tcg")
    make_disks(lab, BaseImage("b", tmp_path), record)
    first = host_keys(lab)
    make_disks(lab, BaseImage("b", tmp_path), record)
    assert made == [*NODES, *NODES]
    assert set(first) == {node.name for node in NODES}
    assert not set(first.values()) & set(host_keys(lab).values())
    assert lab.disks.stat().st_mode & 0o077 == 0


def test_ports_are_read_from_what_a_real_node_said() -> None:
    said = "".join((RXE / "mtu9000/head" / name).read_text() for name in ("ip-j-addr.json", "rdma-j-link.json"))
    ports = parse_ports(said, pulled=("enp1s0f1np1",))
    assert [port.name for port in ports] == [rail.name for rail in RAILS]
    assert all(port.rdma_state == "ACTIVE" and port.carrier and port.mtu == 9000 for port in ports)
    assert ports[0].addresses == ("192.168.177.11/24",)
    assert [port.plugged for port in ports] == [True, False, True, True]


@pytest.mark.parametrize("said", ["", "[]", "not json\nat all", json.dumps([]) + "\n" + json.dumps([])])
def test_what_a_node_does_not_say_is_unknown_and_not_down(said: str) -> None:
    for port in parse_ports(said, pulled=()):
        assert (port.carrier, port.mtu, port.rdma_state, port.addresses) == (None, None, None, ())


def test_the_list_says_plainly_what_is_missing() -> None:
    listed = {item.what: item for item in look_alikes()}
    assert "the GPU" in listed
    assert all(item.why and item.follows for item in listed.values())
