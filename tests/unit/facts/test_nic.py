"""The NIC beside its RDMA tree: ethtool, PCIe errors, NetworkManager, the rank's rights, the kernel's lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts.counters import parse_counters
from dspark_ops.facts.ethtool import PortPause, parse_fec, parse_pause, parse_settings
from dspark_ops.facts.firewall import parse_iptables, read_firewall
from dspark_ops.facts.kernel_log import parse_kernel_log, read_kernel_log
from dspark_ops.facts.links import parse_links
from dspark_ops.facts.nccl_log import parse_nccl_log
from dspark_ops.facts.nic import PROBES, PcieErrors, parse_managed, parse_pcie_errors, read_nic
from dspark_ops.facts.rank_rdma import RankRdma, parse_rank_rdma
from dspark_ops.transport.base import Command, NodeReading, ProbeResult
from dspark_ops.transport.readonly import ReadOnlyViolationError, assert_read_only
from tests.unit.facts.captures import FIXTURES, text

RDMA = "/sys/class/infiniband"
AER = "Undefined 0\nDLP 0\nMalfTLP 0\nTOTAL_ERR_FATAL 2\n"
PAUSE = "Pause parameters for enp1s0f0np0:\nAutonegotiate:\toff\nRX:\t\ton\nTX:\t\toff\n"
FEC = "FEC parameters for enp1s0f0np0:\nSupported/Configured FEC encodings: Auto RS\nActive FEC encoding: RS\n"


def reading(*results: ProbeResult) -> NodeReading:
    return NodeReading(node="node-a", reachable=True, user="operator", results={r.id: r for r in results})


def test_pause_and_error_correction() -> None:
    assert parse_pause(PAUSE) == PortPause(rx=True, tx=False)
    assert parse_pause(PAUSE.replace("\n", "\r\n")) == PortPause(rx=True, tx=False)
    assert parse_pause("netlink error: Operation not supported\n") is None
    assert parse_pause(None) is None
    assert parse_fec(FEC) == "RS"
    assert parse_fec(FEC.replace("Active FEC encoding", "Active FEC encodings")) == "RS"
    assert parse_fec("netlink error: Operation not supported\n") is None


def test_a_port_without_a_cable_still_says_that_it_negotiates() -> None:
    found = parse_settings(text("net/ethtool-no-cable.txt"))
    assert found is not None
    assert found.autoneg is True
    assert parse_settings(text("net/ethtool-200g-excerpt.txt")).autoneg is None  # type: ignore[union-attr]


def test_pcie_errors_are_the_totals() -> None:
    files = {
        f"{RDMA}/rocep1s0f0/device/aer_dev_fatal": AER,
        f"{RDMA}/rocep1s0f0/device/aer_dev_nonfatal": "TOTAL_ERR_NONFATAL 0\n",
        f"{RDMA}/rocep1s0f1/device/aer_dev_fatal": "Undefined 0\n",
        f"{RDMA}/rocep1s0f1/device/current_link_width": "4\n",
    }
    assert parse_pcie_errors(files) == {
        "rocep1s0f0": PcieErrors(fatal=2, nonfatal=0),
        "rocep1s0f1": PcieErrors(fatal=None),
    }


def test_networkmanagers_states() -> None:
    said = "enP7s7:connected\nenp1s0f0np0:connecting (getting IP configuration)\nvirbr\\:0:unmanaged\nlo:\n"
    assert parse_managed(said) == {
        "enP7s7": "connected",
        "enp1s0f0np0": "connecting (getting IP configuration)",
        "virbr:0": "unmanaged",
    }
    assert parse_managed(None) is None


def test_a_reading_becomes_facts() -> None:
    found = read_nic(
        reading(
            ProbeResult(
                id="nic.there",
                files={
                    "/sys/class/net/wlP9s9/phy80211": "/sys/devices/x/ieee80211/phy0",
                    "/sys/module/mlx5_core": "/sys/module/mlx5_core",
                    "/sys/module/mlx5_ib": "/sys/module/mlx5_ib",
                    "/dev/infiniband/uverbs0": "/dev/infiniband/uverbs0",
                    "/dev/infiniband/uverbs1": "/dev/infiniband/uverbs1",
                    "/var/lib/dpkg/info/mlnx-fw-updater.list": "/var/lib/dpkg/info/mlnx-fw-updater.list",
                    "/etc/nvidia/cx7-hotplug-enabled": "/etc/nvidia/cx7-hotplug-enabled",
                },
            ),
            ProbeResult(id="nic.files", files={"/sys/module/mlx5_core/version": "25.07-0.9.7\n"}),
            ProbeResult(id="nic.settings", files={"enp1s0f1np1": text("net/ethtool-full-200g.txt"), "enp1s0f0np0": ""}),
            ProbeResult(id="nic.pause", files={"enp1s0f1np1": PAUSE}),
            ProbeResult(id="nic.fec", files={"enp1s0f1np1": FEC}),
            ProbeResult(id="nic.networkmanager", rc=8, stdout="", stderr="Error: NetworkManager is not running."),
        )
    )
    assert found is not None
    assert (found.wireless, found.modules, found.verbs_devices) == (("wlP9s9",), ("mlx5_core", "mlx5_ib"), 2)
    assert (found.updaters, found.hotplug, found.driver_version) == (("mlnx-fw-updater",), True, "25.07-0.9.7")
    assert found.managed is None
    port = found.port("enp1s0f1np1")
    assert port is not None
    assert port.settings is not None
    assert (port.settings.port, port.settings.autoneg, port.fec) == ("Direct Attach Copper", True, "RS")
    assert found.port("enp1s0f0np0") is not None
    assert found.port("enp1s0f0np0").settings is None  # type: ignore[union-attr]
    assert found.port("enP7s7") is None


def test_what_was_not_read_is_not_known() -> None:
    assert read_nic(reading()) is None
    assert read_nic(reading(ProbeResult(id="nic.there", files={}))) is None
    bare = read_nic(reading(ProbeResult(id="nic.there", files={}), ProbeResult(id="nic.files", files={})))
    assert bare is not None
    assert bare.ports is None
    assert bare.managed is None


def test_the_guard_lets_the_probes_pass_and_nothing_that_writes() -> None:
    assert_read_only(PROBES)
    for words in (("-F",), ("-S", "-F"), ("-A", "INPUT", "-j", "DROP"), ("-S", "--flush"), ("-L",)):
        with pytest.raises(ReadOnlyViolationError):
            assert_read_only([Command("x", ("iptables", *words))])


def rank_document(**host: Any) -> str:
    return json.dumps([{"Id": "c", "HostConfig": host}])


def test_what_the_rank_may_do_with_rdma() -> None:
    found = parse_rank_rdma(
        rank_document(
            Devices=[{"PathOnHost": "/dev/infiniband/", "PathInContainer": "/dev/infiniband"}],
            CapAdd=["CAP_IPC_LOCK"],
            Ulimits=[{"Name": "stack", "Soft": 67108864}, {"Name": "memlock", "Soft": -1, "Hard": -1}],
            Privileged=False,
        )
    )
    assert found == RankRdma(devices=("/dev/infiniband",), capabilities=("IPC_LOCK",), memlock=-1)
    assert found.sees_rdma
    assert found.locks_memory
    bare = parse_rank_rdma(rank_document(Devices=None, CapAdd=None, Ulimits=None))
    assert bare == RankRdma()
    assert not bare.sees_rdma
    assert not bare.locks_memory


def test_a_rehearsals_rank_has_neither() -> None:
    results = json.loads((FIXTURES / "rehearsal/head.json").read_text(encoding="utf-8"))["results"]
    found = parse_rank_rdma(results["rank.inspect"]["stdout"])
    assert found is not None
    assert not found.sees_rdma
    assert not found.locks_memory


@pytest.mark.parametrize("rubbish", [None, "", "[]", "{}", "[1]", '[{"HostConfig": []}]', "[" * 5000])
def test_no_container_is_no_configuration(rubbish: str | None) -> None:
    assert parse_rank_rdma(rubbish) is None


def kernel(rc: int | None, out: str = "", err: str = "", error: str | None = None) -> NodeReading:
    return reading(ProbeResult(id="kernel.nic", rc=rc, stdout=out, stderr=err, error=error))


def test_the_kernels_log_is_whole_only_with_the_first_line_of_the_boot() -> None:
    lines = text("dmesg/mlx5-probe-ok.txt")
    assert parse_kernel_log(lines).whole is False  # type: ignore[union-attr]
    assert parse_kernel_log("Linux version 6.17.0-1014-nvidia (build)\n" + lines).whole  # type: ignore[union-attr]
    stamped = "[    0.000000] Linux version 6.17.0-1014-nvidia\n" + text("dmesg/nic-removed.txt")
    found = parse_kernel_log(stamped)
    assert found is not None
    assert (found.whole, found.nic_gone) == (True, ("0000:01:00.0",))


def test_a_kernel_log_that_was_cut_is_not_whole() -> None:
    begin = "Linux version 6.17.0-1014-nvidia (build)\n"
    lines = begin + text("dmesg/mlx5-probe-ok.txt")
    for cut, whole in ((True, False), (False, True)):
        told = reading(ProbeResult(id="kernel.nic", rc=0, stdout=lines, cut=cut))
        assert read_kernel_log(told).whole is whole  # type: ignore[union-attr]
    # An older recording tells nothing but the size.
    long = begin + "x" * ((1 << 20) - len(begin))
    assert read_kernel_log(kernel(0, long)).whole is False  # type: ignore[union-attr]
    assert read_kernel_log(kernel(0, long[:-1])).whole is True  # type: ignore[union-attr]


def test_a_kernel_log_without_a_line_is_not_one_that_could_not_be_read() -> None:
    nothing = read_kernel_log(kernel(1))
    assert nothing is not None
    assert not nothing.whole
    assert read_kernel_log(kernel(1, err="Failed to get journal access: Permission denied")) is None
    assert read_kernel_log(kernel(2)) is None
    assert read_kernel_log(kernel(None, error="no answer within 2 s: journalctl")) is None
    assert read_kernel_log(kernel(0, text("dmesg/mlx5-probe-ok.txt"))).pcie_gbps == {  # type: ignore[union-attr]
        "0000:01:00.0": 126.028
    }


def test_carrier_changes_and_parents() -> None:
    files = {"/sys/class/net/enp1s0f0np0/carrier_changes": "3\n", "/sys/class/net/lo/carrier_changes": "x"}
    assert parse_counters(files).carrier_changes == {"enp1s0f0np0": 3}
    links = parse_links(
        json.dumps([{"ifname": "enp1s0f0np0.7", "link": "enp1s0f0np0", "linkinfo": {"info_kind": "vlan"}}])
    )
    assert links is not None
    assert (links[0].kind, links[0].parent) == ("vlan", "enp1s0f0np0")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("node-a:101:101 [0] NCCL INFO NCCL version 2.30.7+cuda13.0", "2.30.7"),
        ("(Worker_TP0 pid=26) INFO 11-23 20:00:10 [pynccl.py:111] vLLM is using nccl==2.28.9", "2.28.9"),
        ("NCCL INFO Using network IB", None),
    ],
)
def test_nccls_version(line: str, version: str | None) -> None:
    found = parse_nccl_log(line)
    assert found is not None
    assert found.version == version


def test_a_filter_that_is_not_installed_is_not_one_that_was_refused() -> None:
    absent = read_firewall(
        reading(ProbeResult(id="firewall.rules", rc=1, stdout="", stderr="sudo: iptables: command not found"))
    )
    assert absent is not None
    assert not absent.installed
    gone = read_firewall(reading(ProbeResult(id="firewall.rules", error="no such program: iptables")))
    assert gone == absent
    refused = ProbeResult(id="firewall.rules", rc=4, stdout="", stderr="iptables: Permission denied (you must be root)")
    assert read_firewall(reading(refused)) is None


WORDS = st.sampled_from(
    [
        "-A",
        "-P",
        "-N",
        "INPUT",
        "DROP",
        "ACCEPT",
        "-j",
        "-i",
        "enp+",
        "-s",
        "10.0.0.0/8",
        "!",
        "-m",
        "--dport",
        "1:2",
        '"',
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=6).map("\n".join), st.text(max_size=200))
def test_no_listing_breaks_the_parsers(listing: str, noise: str) -> None:
    for said in (listing, noise, listing + noise):
        parse_iptables(said)
        parse_managed(said)
        parse_pause(said)
        parse_fec(said)
        parse_kernel_log(said)
        parse_rank_rdma(said)
        parse_pcie_errors({f"{RDMA}/x/device/aer_dev_fatal": said})
