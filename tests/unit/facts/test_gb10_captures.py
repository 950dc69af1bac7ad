"""Every GB10 capture that belongs to a parser says what its manifest expects."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface
from itertools import combinations

import pytest

from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.gpu import parse_compute_apps, parse_identity
from dspark_ops.facts.jumbo import parse_ping
from dspark_ops.facts.links import LinkFacts, parse_links
from dspark_ops.facts.listeners import parse_listeners
from dspark_ops.facts.memory import parse_meminfo
from dspark_ops.facts.netplan import parse_netplan
from dspark_ops.facts.rdma import HcaFacts, parse_rdma
from dspark_ops.facts.system import parse_dgx_release, parse_key_values, parse_uname
from tests.unit.facts.captures import GB10, expect, manifest, names, sysfs_probe_files, text


def test_every_capture_names_its_source_and_how_true_it_is() -> None:
    held = {str(p.relative_to(GB10)) for p in GB10.rglob("*") if p.is_file()} - {"manifest.json"}
    assert held == set(manifest())
    for entry in manifest().values():
        assert entry["source"]
        assert entry["kind"] in {"real", "real-excerpt", "reassembled", "reconstructed", "real-other-hw"}


@pytest.mark.parametrize("name", names("host/dgx-release"))
def test_dgx_release(name: str) -> None:
    release = parse_dgx_release(text(name))
    wanted = expect(name)
    assert release is not None
    assert release.ota == wanted["version"]
    assert release.platform == wanted.get("platform", release.platform)
    assert list(release.ota_history) == wanted.get("history", [wanted["version"]])


@pytest.mark.parametrize("name", names("host/dgx-release"))
def test_dgx_release_never_carries_the_serial_number(name: str) -> None:
    planted = text(name) + 'DGX_SERIAL_NUMBER="S3CRET-1234"\n'
    release = parse_dgx_release(planted)
    assert release is not None
    assert "S3CRET" not in release.model_dump_json()


@pytest.mark.parametrize("name", names("host/meminfo"))
def test_meminfo(name: str) -> None:
    memory = parse_meminfo(text(name))
    wanted = expect(name)
    assert memory is not None
    if "total_gib" in wanted:
        assert memory.total_gib == pytest.approx(wanted["total_gib"], abs=0.01)
    if "avail_gib" in wanted:
        assert memory.available_gib == pytest.approx(wanted["avail_gib"], abs=0.01)
    if "unaccounted_gib_min" in wanted:
        assert memory.unaccounted_kib is not None
        assert memory.unaccounted_kib / 1024**2 > wanted["unaccounted_gib_min"]
    else:
        assert memory.unaccounted_kib is None, "three fields cannot be accounted"
    if wanted.get("cma_broken"):
        assert memory.cma_total_kib == 0
        assert memory.cma_free_kib == 220924


def test_uname_and_os_release() -> None:
    assert parse_uname(text("host/uname.txt")) == (expect("host/uname.txt")["kernel"], "aarch64")
    release = dict(parse_key_values(text("host/os-release.txt")))
    assert (release["ID"], release["VERSION_ID"]) == ("ubuntu", "24.04")
    assert release["PRETTY_NAME"] == "Ubuntu 24.04.4 LTS"


def links_of(name: str) -> dict[str, dict[str, LinkFacts]]:
    """The devices by node and name; a capture of one node is the head's."""
    document = json.loads(text(name))
    nodes = document if isinstance(document, dict) else {"head": document}
    parsed = {node: parse_links(json.dumps(part)) for node, part in nodes.items()}
    assert all(parsed.values())
    return {node: {link.name: link for link in links or ()} for node, links in parsed.items()}


@pytest.mark.parametrize("name", names("net/ip-j-addr"))
def test_ip_addr_sees_mtu_carrier_and_addresses(name: str) -> None:
    for links in links_of(name).values():
        for link in links.values():
            assert link.mtu in (1500, 9000)
            assert link.carrier == (link.operstate == "UP")
            assert link.admin_up is True
            assert bool(link.ipv4) <= link.carrier


def test_ip_addr_one_sided_mtu() -> None:
    nodes = links_of("net/ip-j-addr-one-sided-mtu.json")
    low = [
        f"{node}:{link.name}"
        for node, links in nodes.items()
        for link in links.values()
        if link.name != "enP7s7" and link.carrier and link.mtu == 1500
    ]
    assert low == expect("net/ip-j-addr-one-sided-mtu.json")["mtu_bad"]


def test_ip_addr_same_subnet_and_overlap_and_duplicate() -> None:
    same = [
        [a.name, b.name]
        for a, b in combinations(links_of("net/ip-j-addr-same-subnet-bad.json")["head"].values(), 2)
        if any(x.network.overlaps(y.network) for x in a.ipv4 for y in b.ipv4)
    ]
    assert same == expect("net/ip-j-addr-same-subnet-bad.json")["same_subnet"]
    overlap = links_of("net/ip-j-addr-overlap-mgmt-bad.json")["head"]
    assert overlap["enp1s0f1np1"].ipv4[0].network == overlap["enP7s7"].ipv4[0].network
    twice = links_of("net/ip-j-addr-duplicate-address-bad.json")["head"]
    assert max(len(link.ipv4) for link in twice.values()) == 2


def hcas_of(tree: dict[str, dict[str, object]]) -> dict[str, HcaFacts]:
    parsed = parse_rdma(*sysfs_probe_files(tree))
    assert parsed is not None
    return {hca.name: hca for hca in parsed}


def index_of(hca: HcaFacts) -> int | None:
    """The RoCE v2 index of the only IPv4 address of an HCA."""
    addresses = {g.ipv4 for g in hca.gids if g.ipv4 is not None}
    if not addresses:
        return None
    (address,) = addresses
    assert hca.netdev
    found = roce_v2_indexes(hca.gids, hca.netdev, address)
    return found[0] if found else None


@pytest.mark.parametrize("name", [n for n in names("sysfs/") if "head4" not in n])
def test_sysfs_gives_the_map_and_the_gid_index(name: str) -> None:
    hcas = hcas_of(json.loads(text(name)))
    if name == "sysfs/infiniband-absent.json":
        assert hcas == {}
        return
    board = {h.name: (h.netdev, h.pci, h.cage, h.half) for h in hcas.values()}
    assert board == {
        "rocep1s0f0": ("enp1s0f0np0", "0000:01:00.0", 0, "A"),
        "rocep1s0f1": ("enp1s0f1np1", "0000:01:00.1", 1, "A"),
        "roceP2p1s0f0": ("enP2p1s0f0np0", "0002:01:00.0", 0, "B"),
        "roceP2p1s0f1": ("enP2p1s0f1np1", "0002:01:00.1", 1, "B"),
    }
    for device, index in expect(name)["index"].items():
        assert index_of(hcas[device]) == index


def test_sysfs_index_differs_between_the_nodes() -> None:
    both = json.loads(text("sysfs/infiniband-head4-worker3.json"))
    found = {node: {index_of(h) for h in hcas_of(tree).values() if h.active} for node, tree in both.items()}
    wanted = expect("sysfs/infiniband-head4-worker3.json")
    assert found == {"head": {wanted["head"]}, "worker": {wanted["worker"]}}


def test_a_roce_v2_entry_of_another_address_is_no_index() -> None:
    tree = json.loads(text("sysfs/infiniband-one-rail-privacy-ll-index5.json"))
    hca = hcas_of(tree)["roceP2p1s0f0"]
    assert [g.type for g in hca.gids if g.index == 3] == ["RoCE v2"], "the trap: index 3 is RoCE v2, but fe80"
    assert hca.netdev
    assert roce_v2_indexes(hca.gids, hca.netdev, IPv4Address("10.0.0.99")) == ()


NETPLAN_MAKERS = {
    "BAD-nvidia-three-sparks-same-subnet.yaml": "nvidia",
    "foreign-98-spark-vllm-docker.yaml": "spark-vllm-docker",
    "mtu9000-one-cable.yaml": "foreign",
    "mtu9000-two-cables.yaml": "foreign",
    "nvidia-benchguide-spark1.yaml": "nvidia",
    "nvidia-link-local.yaml": "nvidia",
    "nvidia-option1-node1.yaml": "nvidia",
}


@pytest.mark.parametrize("name", names("netplan/"))
def test_netplan(name: str) -> None:
    file = parse_netplan(f"/etc/netplan/{name.rsplit('/', 1)[-1]}", text(name))
    assert file.devices
    assert {d.name for d in file.devices} <= {"enp1s0f0np0", "enp1s0f1np1", "enP2p1s0f0np0", "enP2p1s0f1np1"}
    wanted = expect(name)
    if "mtu" in wanted:
        assert {d.mtu for d in file.devices} == {wanted["mtu"]}
    for a, b in wanted.get("same_subnet", ()):
        first, second = file.device(a), file.device(b)
        assert first is not None
        assert second is not None
        assert IPv4Interface(first.addresses[0]).network == IPv4Interface(second.addresses[0]).network
    if wanted.get("link_local"):
        assert all(not d.addresses and d.link_local == ("ipv4",) for d in file.devices)
    assert file.owner == NETPLAN_MAKERS[name.rsplit("/", 1)[-1]]


@pytest.mark.parametrize("name", names("nvidia-smi/csv/compute-apps"))
def test_compute_apps(name: str) -> None:
    processes = parse_compute_apps(text(name))
    wanted = expect(name)
    assert processes is not None
    assert len(processes) == wanted["tenants"]
    if "total_mib" in wanted:
        assert sum(p.used_mib or 0 for p in processes) == wanted["total_mib"]


def test_compute_apps_memory_that_is_not_shown_is_unknown_not_zero() -> None:
    processes = parse_compute_apps(text("nvidia-smi/csv/compute-apps-two-tenants.csv"))
    assert processes is not None
    assert [(p.pid, p.used_mib) for p in processes] == [(198811, 104448), (201334, None)]


def test_gpu_identity() -> None:
    gpu = parse_identity(text("nvidia-smi/csv/name-driver-cc.csv"))
    assert gpu is not None
    assert (gpu.name, gpu.driver, gpu.compute_cap) == ("NVIDIA GB10", "580.173.02", "12.1")
    older = parse_identity(text("nvidia-smi/csv/name-driver.csv"))
    assert older is not None
    assert older.compute_cap is None


def test_listeners() -> None:
    listeners = parse_listeners(text("net/ss-tlnp.txt"))
    assert listeners is not None
    assert sorted({item.port for item in listeners}) == sorted(set(expect("net/ss-tlnp.txt")["ports"]))
    assert {item.address for item in listeners if item.port == 53} == {"127.0.0.54", "127.0.0.53"}
    assert {item.on_all for item in listeners if item.port == 22} == {True}
    assert {item.pid for item in listeners} == {None}


@pytest.mark.parametrize("name", names("net/ping-jumbo"))
def test_jumbo_ping(name: str) -> None:
    ping = parse_ping("p0a", text(name))
    wanted = expect(name)
    assert ping.sent == 3
    assert ping.received == (0 if wanted["loss"] == 100 else 3)
    assert ping.local_mtu == wanted.get("local_mtu")
