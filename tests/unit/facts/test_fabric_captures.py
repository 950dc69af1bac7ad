"""Every capture of the fabric's tools says what its manifest expects; none is without a test."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from ipaddress import IPv4Address

import pytest

from dspark_ops.fabric.packet_filter import Packet, passage
from dspark_ops.facts.ethtool import parse_driver, parse_module, parse_settings, parse_statistics, worst_lane
from dspark_ops.facts.firewall import parse_iptables
from dspark_ops.facts.gids import ROCE_V2
from dspark_ops.facts.jumbo import parse_ping
from dspark_ops.facts.kernel_log import parse_kernel_log
from dspark_ops.facts.links import LinkFacts
from dspark_ops.facts.links_text import parse_ip_brief, parse_ip_text
from dspark_ops.facts.nccl_log import parse_nccl_log
from dspark_ops.facts.rdma_tools import (
    ipv4_indexes,
    parse_gid_listing,
    parse_ibdev2netdev,
    parse_rdma_link,
    parse_rdma_statistic,
    parse_show_gids,
)
from dspark_ops.facts.verbs import parse_ibstat, parse_ibv_devinfo
from tests.unit.facts.captures import GB10, expect, text

FOLDERS = ("net", "netplan", "rdma", "sysfs", "nccl-log", "dmesg")
# Judged in test_gb10_captures and in the tests of the counters.
ELSEWHERE = (
    "net/ip-j-addr-*.json",
    "net/ping-jumbo-*.txt",
    "net/ss-tlnp.txt",
    "netplan/*.yaml",
    "sysfs/*.json",
    "rdma/hw-counters-*.txt",
)
RAILS = ("enp1s0f0np0", "enp1s0f1np1", "enP2p1s0f0np0", "enP2p1s0f1np1")
CASES: dict[str, Callable[[str], None]] = {}


def case(pattern: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    """The test of every capture whose path fits."""

    def register(function: Callable[[str], None]) -> Callable[[str], None]:
        CASES[pattern] = function
        return function

    return register


def captures() -> list[str]:
    return sorted(str(p.relative_to(GB10)) for folder in FOLDERS for p in (GB10 / folder).glob("*"))


def case_of(name: str) -> Callable[[str], None] | None:
    return next((function for pattern, function in CASES.items() if fnmatchcase(name, pattern)), None)


@case("rdma/ibdev2netdev-*.txt")
def ibdev2netdev(name: str) -> None:
    links, wanted = parse_ibdev2netdev(text(name)), expect(name)
    assert links is not None
    assert {(k.device, k.netdev, k.port) for k in links} == {
        ("rocep1s0f0", "enp1s0f0np0", 1),
        ("rocep1s0f1", "enp1s0f1np1", 1),
        ("roceP2p1s0f0", "enP2p1s0f0np0", 1),
        ("roceP2p1s0f1", "enP2p1s0f1np1", 1),
    }
    up = {k.device for k in links if k.up}
    assert up == set(wanted["up"])
    if "cages" in wanted:
        assert sorted({(k.netdev or "")[-2:] for k in links if k.up}) == wanted["cages"]
    halves = [device.replace("roceP2p", "rocep") for device in up]
    assert (len(halves) % 2 == 1) == wanted.get("twin_mismatch", False)


@case("rdma/rdma-link-*.txt")
def rdma_link(name: str) -> None:
    links = parse_rdma_link(text(name))
    assert links is not None
    assert len(links) == 4
    assert {k.device for k in links if k.up} == set(expect(name)["up"])
    assert {k.netdev for k in links} == set(RAILS)
    assert {k.physical_state for k in links if k.up} == {"LINK_UP"}


@case("rdma/rdma-statistic-*.txt")
def rdma_statistic(name: str) -> None:
    counters = parse_rdma_statistic(text(name))
    assert counters is not None
    (device,) = counters.values()
    assert (device["out_of_buffer"], device["resp_cqe_error"], device["rx_icrc_encapsulated"]) == (135, 1009, 0)


@case("rdma/ibv_devinfo-*.txt")
def ibv_devinfo(name: str) -> None:
    wanted = expect(name)
    devices = parse_ibv_devinfo(text(name))
    assert devices is not None
    active = {d.name: d.active_mtu_bytes for d in devices if d.active}
    assert active == wanted.get("active", {})
    if "down" in wanted:
        assert [d.name for d in devices if d.active is False] == wanted["down"]
        assert {d.active_mtu_bytes for d in devices if not d.active} == {1024}, "a DOWN port says nothing"
        assert len({d.sys_image_guid for d in devices}) == 1, "one board"
    if "fw" in wanted:
        assert {(d.firmware, d.board_id) for d in devices} == {(wanted["fw"], wanted["psid"])}


@case("rdma/ibstat-*.txt")
def ibstat(name: str) -> None:
    devices = parse_ibstat(text(name))
    assert devices is not None
    assert {d.name: d.rate_gbps for d in devices if d.active} == expect(name)["rates"]
    assert len(devices) == 4
    assert len({d.sys_image_guid for d in devices}) == 1


@case("rdma/show_gids-*.txt")
def show_gids(name: str) -> None:
    wanted = expect(name)
    gids = parse_show_gids(text(name))
    assert gids is not None
    assert {device: list(indexes) for device, indexes in ipv4_indexes(gids).items()} == wanted["v4v2"]
    assert sum(map(len, gids.values())) == wanted.get("n", 12)
    networks = [str(g.ipv4).rsplit(".", 1)[0] for e in gids.values() for g in e if g.ipv4 and g.type == ROCE_V2]
    assert (len(set(networks)) < len(networks)) == wanted["same_subnet"]
    assert {g.ndev for g in gids["rocep1s0f0"]} == {"enp1s0f0np0"}


@case("rdma/gid-table-*.txt")
def gid_table(name: str) -> None:
    gids = parse_gid_listing(text(name))
    assert gids is not None
    assert list(ipv4_indexes({"hca": gids})["hca"]) == expect(name)["v4v2"]
    assert [g.index for g in gids] == [0, 1, 2, 4], "the hole at 3 is no entry"


@case("net/ethtool-i.txt")
def ethtool_driver(name: str) -> None:
    driver, wanted = parse_driver(text(name)), expect(name)
    assert driver is not None
    assert (driver.firmware, driver.psid, driver.bus) == (wanted["fw"], wanted["psid"], wanted["bus"])
    assert driver.driver == "mlx5_core"


@case("net/ethtool-m-*.txt")
def ethtool_module(name: str) -> None:
    module = parse_module(text(name))
    assert module is not None
    assert (module.identifier, module.transceiver) == ("0x11 (QSFP28)", "200GBASE-CR4")


@case("net/ethtool-S-*.txt")
def ethtool_statistics(name: str) -> None:
    statistics = parse_statistics(text(name))
    assert statistics is not None
    assert worst_lane(statistics) == expect(name)["worst_lane"]
    assert worst_lane({"rx_err_lane_0_phy": 0, "rx_err_lane_1_phy": 0}) is None


@case("net/ethtool-*.txt")
def ethtool(name: str) -> None:
    settings, wanted = parse_settings(text(name)), expect(name)
    assert settings is not None
    assert settings.link is wanted.get("link", True)
    assert settings.speed_mbps == wanted.get("speed")
    assert settings.reason == wanted.get("reason")
    if "port" in wanted:
        assert (settings.port, settings.lanes, settings.fec) == (wanted["port"], wanted["lanes"], ("RS",))
        assert settings.autoneg is True


@case("net/iptables-S.txt")
def packet_filter(name: str) -> None:
    filters = parse_iptables(text(name))
    assert filters is not None
    assert [(chain.name, chain.policy) for chain in filters.chains[:3]] == [
        ("INPUT", "ACCEPT"),
        ("FORWARD", "DROP"),
        ("OUTPUT", "ACCEPT"),
    ]
    packet = Packet("enp1s0f0np0", IPv4Address("192.168.100.11"), IPv4Address("192.168.100.10"), 25000)
    found = passage(filters, packet)
    assert found is not None
    assert found.verdict == expect(name)["rails"]


def links_of(name: str) -> dict[str, LinkFacts]:
    content = text(name)
    links = parse_ip_brief(content) if "-br-" in name else parse_ip_text(content)
    assert links is not None
    return {link.name: link for link in links}


@case("net/ip-br-addr-*.txt")
def ip_brief_addresses(name: str) -> None:
    links = links_of(name)
    for netdev, address in expect(name)["rails"].items():
        assert [str(a) for a in links[netdev].ipv4] == ([address] if address else [])
        assert links[netdev].carrier is True
    lan = links["enP7s7"].ipv4[0].network
    assert not [k for k, link in links.items() if k != "enP7s7" and any(a.network.overlaps(lan) for a in link.ipv4)]


@case("net/ip-br-link-*.txt")
def ip_brief_links(name: str) -> None:
    links = links_of(name)
    assert [k for k in RAILS if links[k].carrier] == expect(name)["carrier"]
    macs = {k: int((links[k].mac or "").replace(":", "")[-4:], 16) for k in ("enP7s7", *RAILS)}
    assert [macs[k] - macs["enP7s7"] for k in RAILS] == [1, 2, 5, 6], "one board, in the order of its MACs"


@case("net/ip-s-link-*.txt")
def ip_links(name: str) -> None:
    links = links_of(name)
    assert [k for k in RAILS if links[k].carrier] == expect(name)["carrier"]
    assert {k: link.mtu for k, link in links.items()} == {
        "enP7s7": 9000,
        "wlP9s9": 1500,
        **dict.fromkeys(RAILS, 1500),
    }, "jumbo on the wrong interface"


@case("net/ip-addr-show-*.txt")
def ip_addresses(name: str) -> None:
    (link,) = links_of(name).values()
    assert (link.name, link.mtu, link.mac) == ("enp1s0f1np1", expect(name)["mtu"], "02:00:00:00:b3:b7")
    assert [(str(a.address), a.scope, a.dynamic) for a in link.addresses] == [
        ("192.168.100.10/24", "global", False),
        ("fe80::1:b3b7/64", "link", False),
    ]


@case("net/ping-degraded-*.txt")
def ping_rtt(name: str) -> None:
    ping, wanted = parse_ping("p0a", text(name)), expect(name)
    assert ping.rtt_avg_ms == wanted["avg_ms"]
    assert ping.rtt_min_ms is not None
    assert 0 < ping.rtt_min_ms <= wanted["avg_ms"]
    assert (ping.sent, ping.received) == (20, 20)


@case("nccl-log/*.txt")
def nccl_log(name: str) -> None:
    log, wanted = parse_nccl_log(text(name)), expect(name)
    assert log is not None
    assert list(log.hcas) == wanted.get("hcas", [])
    if "net" in wanted:
        assert log.network == wanted["net"]
    if "oob" in wanted:
        assert (log.oob, log.gdr, log.gid_index) == (wanted["oob"], bool(wanted["gdr"]), 3)
    assert [list(nic.members) for nic in log.virtual] == wanted.get("merged", [])
    causes = [failure.cause for failure in log.failures]
    if "cause" in wanted:
        assert causes == [wanted["cause"]]
        assert log.failures[0].gid_index == wanted.get("index")
    else:
        assert causes == (["no-rdma-device"] if "socket" in name else [])
    assert log.subnet_routing == (((2, 0),) if "subnet-aware" in name else ())


@case("dmesg/*.txt")
def kernel_log(name: str) -> None:
    log, wanted = parse_kernel_log(text(name)), expect(name)
    assert log is not None
    assert log.hotplug is (True if wanted.get("hotplug") else None)
    assert list(log.xids) == ([wanted["xid"]] if "xid" in wanted else [])
    assert bool(log.nic_gone) == wanted.get("nic_lost", False)
    assert log.slot_power_w == (27 if "27w" in name else None)
    assert log.no_memory == (1 if wanted.get("severity") == "warn" else 0)
    if "pcie_gbps" in wanted:
        assert log.pcie_gbps == {"0000:01:00.0": wanted["pcie_gbps"]}
    assert "000f:01:00.0" not in log.pcie_gbps, "the GPU's line of 0.000 Gb/s is normal"


@pytest.mark.parametrize("name", [n for n in captures() if case_of(n)])
def test_a_capture_says_what_is_expected(name: str) -> None:
    check = case_of(name)
    assert check is not None
    check(name)


def test_no_capture_of_the_fabric_is_without_a_case() -> None:
    alone = [n for n in captures() if not case_of(n) and not any(fnmatchcase(n, pattern) for pattern in ELSEWHERE)]
    assert alone == []
    assert len([n for n in captures() if case_of(n)]) > 40
    unused = [pattern for pattern in CASES if not any(case_of(n) is CASES[pattern] for n in captures())]
    assert unused == []


def test_an_ipv4_entry_of_roce_v1_is_no_index() -> None:
    rows = [r for r in text("rdma/show_gids-p0-up-two-subnets.txt").splitlines() if "v2" not in r.split()]
    gids = parse_show_gids("\n".join(rows))
    assert gids is not None
    assert {g.type for entries in gids.values() for g in entries} == {"IB/RoCE v1"}
    assert ipv4_indexes(gids) == {}


def test_no_devices_is_known_and_no_output_is_not() -> None:
    assert parse_ibv_devinfo("", text("rdma/ibv_devinfo-no-devices.txt")) == ()
    assert parse_ibv_devinfo("", "Failed to get IB devices list: Function not implemented") is None
    assert parse_ibv_devinfo(None) is None


def test_a_log_without_nccls_lines_says_nothing() -> None:
    log = parse_nccl_log("INFO: Application startup complete.\n")
    assert log is not None
    assert (log.network, log.devices, log.failures, log.gdr) == (None, (), (), None)
    assert parse_nccl_log(None) is None


def test_the_last_init_of_a_restarted_rank_counts() -> None:
    first, second = text("nccl-log/two-cables-four-hcas.txt"), text("nccl-log/single-hca.txt")
    log = parse_nccl_log(first + second)
    assert log is not None
    assert log.hcas == ("rocep1s0f0",)
