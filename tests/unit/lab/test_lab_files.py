"""What the lab writes for others: ssh files, names, the list of look-alikes."""

from __future__ import annotations

from pathlib import Path

from dspark_ops.lab import engine_traces
from dspark_ops.lab.layout import HEAD, NODES, PORTS, WORKER, LabPaths
from dspark_ops.lab.nodes import missing_capabilities
from dspark_ops.lab.pair import look_alikes
from dspark_ops.lab.record import LabRecord, read_record, write_record
from dspark_ops.lab.ssh_access import ensure_keypair, write_ssh_files


def paths(tmp_path: Path) -> LabPaths:
    (tmp_path / "lab").mkdir()
    return LabPaths(state=tmp_path / "lab", cache=tmp_path / "cache")


def test_ssh_config_checks_host_keys_and_has_absolute_paths(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    write_ssh_files(lab, "10.77.77", {node.name: "ssh-ed25519 AAAA comment" for node in NODES})
    config = lab.ssh_config.read_text()
    assert config.count("StrictHostKeyChecking yes") == 2
    assert f"IdentityFile {lab.key}" in config
    assert lab.key.is_absolute()
    assert lab.known_hosts.read_text().splitlines()[1] == "spark-worker,10.77.77.12 ssh-ed25519 AAAA"


def test_unchanged_ssh_files_are_not_touched(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    keys = {node.name: "ssh-ed25519 AAAA" for node in NODES}
    write_ssh_files(lab, "10.77.77", keys)
    before = lab.ssh_config.stat().st_mtime_ns, lab.ssh_config.stat().st_ino
    write_ssh_files(lab, "10.77.77", keys)
    assert (lab.ssh_config.stat().st_mtime_ns, lab.ssh_config.stat().st_ino) == before


def test_a_key_is_made_once_and_a_half_made_one_is_replaced(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("half")
    public = ensure_keypair(key, "lab")
    assert public.startswith("ssh-ed25519 ")
    assert key.stat().st_mode & 0o077 == 0
    assert ensure_keypair(key, "lab") == public


def test_macs_are_the_nodes_own_and_spaced_as_on_a_spark() -> None:
    macs = [port.mac(node) for node in NODES for port in PORTS]
    assert len(set(macs)) == len(macs)
    assert [port.mac(HEAD)[-2:] for port in PORTS] == ["16", "17", "1a", "1b"]
    assert PORTS[0].mac(WORKER) == "02:00:47:02:1a:16"


def test_a_record_survives_and_a_broken_one_is_none(tmp_path: Path) -> None:
    lab = paths(tmp_path)
    assert read_record(lab) is None
    write_record(lab, LabRecord(cables=1, phases_s={"ssh": 1.5}))
    assert read_record(lab) == LabRecord(cables=1, phases_s={"ssh": 1.5})
    lab.record.write_text("{")
    assert read_record(lab) is None


def test_each_look_alike_says_what_why_and_what_it_follows() -> None:
    listed = look_alikes()
    assert len(listed) >= 8
    assert all(item.what and item.why and item.follows for item in listed)
    assert any("nvidia-smi" in item.what for item in listed)


def test_capabilities_the_machine_lacks_are_not_asked_for() -> None:
    held = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    assert ("SYS_RESOURCE" in missing_capabilities()) == (not held >> 24 & 1)


def test_traces_say_what_was_absent_before_the_engine() -> None:
    before = engine_traces.record()
    assert set(before) == {"absent", "cgroups", "sysctl", "links", "netfilter"}
    assert "lo" in before["links"]
