"""GB10 captures put before the rules: what their manifest calls sound passes, what it calls broken is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import ROLES, FabricSite, Role
from dspark_ops.doctor.engine import run_checks
from dspark_ops.facts.links import LinkFacts, parse_links
from dspark_ops.facts.links_text import parse_ip_text
from dspark_ops.facts.netplan import parse_netplan
from dspark_ops.facts.rdma import HcaFacts, parse_rdma
from dspark_ops.facts.rdma_tools import parse_ibdev2netdev
from dspark_ops.facts.snapshot import PairFacts
from dspark_ops.facts.verbs import parse_ibv_devinfo
from dspark_ops.report.models import Finding
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts
from tests.unit.facts.captures import expect, names, sysfs_probe_files, text

HCA = {
    "enp1s0f0np0": "rocep1s0f0",
    "enp1s0f1np1": "rocep1s0f1",
    "enP2p1s0f0np0": "roceP2p1s0f0",
    "enP2p1s0f1np1": "roceP2p1s0f1",
}
NETDEV = {hca: netdev for netdev, hca in HCA.items()}
ADDRESSING = ("fabric.address_planned", "fabric.twin_subnets", "fabric.mtu")


Ends = list[dict[Role, tuple[str, str]]]


def site_of(ends: Ends | None = None, gid_index: int | None = None) -> LoadedSite:
    """The site of the fixtures with these rails, per role a port and its address: also such as `validate` refuses."""
    loaded = load_case_site()
    rails: list[dict[str, Any]] = [
        {"name": f"r{i}", **{r: {"netdev": port, "hca": HCA[port], "address": a} for r, (port, a) in rail.items()}}
        for i, rail in enumerate(ends or ())
    ]
    fabric = FabricSite.model_validate({"rails": rails}) if rails else loaded.site.fabric
    fabric = fabric.model_copy(update={"gid_index": gid_index})
    return dataclasses.replace(loaded, site=loaded.site.model_copy(update={"fabric": fabric}))


def judged(facts: PairFacts, loaded: LoadedSite, *only: str) -> list[Finding]:
    """What the rules say of it that is not good."""
    report = run_checks(facts, loaded, only=only)
    return [f for f in report.findings if f.status not in ("ok", "skip")]


def with_parts(**parts: dict[Role, Any]) -> PairFacts:
    """The healthy pair with a part of its nodes replaced."""
    base = pair_facts()
    nodes = {
        role: base.of(role).model_copy(update={name: given[role] for name, given in parts.items() if role in given})
        for role in ROLES
    }
    return PairFacts(head=nodes["head"], worker=nodes["worker"])


def links_in(name: str) -> dict[Role, tuple[LinkFacts, ...]]:
    """The devices of an `ip -j addr` capture; of one node alone, with a peer that has the next addresses."""
    document = json.loads(text(name))
    if isinstance(document, list):
        peer = json.loads(json.dumps(document))
        for item in peer:
            for entry in item["addr_info"]:
                entry["local"] = entry["local"][:-1] + str((int(entry["local"][-1]) + 5) % 10)
        document = {"head": document, "worker": peer}
    return {role: parse_links(json.dumps(document[role])) or () for role in ROLES}


@pytest.mark.parametrize("name", names("net/ip-j-addr"))
def test_addresses_and_mtu(name: str) -> None:
    links, wanted = links_in(name), expect(name)
    up = {
        role: [k for k in links[role] if k.name in HCA and k.carrier and k.ipv4] for role in ROLES
    }  # the ports in the order of the cables, which is the order of both nodes
    ends: Ends = [
        {"head": (a.name, str(a.ipv4[0])), "worker": (b.name, str(b.ipv4[0]))}
        for a, b in zip(up["head"], up["worker"], strict=True)
    ]
    bad = judged(with_parts(links=links, routes=dict.fromkeys(ROLES, ())), site_of(ends), *ADDRESSING)
    assert (not bad) is wanted["ok"], bad
    told = json.dumps([f.observed for f in bad])
    for first, second in wanted.get("same_subnet", ()):
        assert first in told
        assert second in told
    for netdev in wanted.get("overlap", ()):
        assert f"{netdev} (192.168.1.0/24) overlaps enP7s7" in told
    for place in wanted.get("mtu_bad", ()):
        role, netdev = place.split(":")
        assert [f.node for f in bad if f.id == "fabric.mtu" and netdev in f.observed] == [role]
    if "duplicate" in name:
        assert "192.168.177.11/24" in told


def hcas_in(tree: dict[str, Any]) -> tuple[HcaFacts, ...]:
    parsed = parse_rdma(*sysfs_probe_files(tree))
    assert parsed is not None
    return parsed


def pinned(tree: dict[Role, tuple[HcaFacts, ...]], index: int) -> list[Finding]:
    """The judgement on an index that is pinned for all the ACTIVE devices of both nodes."""
    ends: Ends = []
    for head, worker in zip(tree["head"], tree["worker"], strict=True):
        both: dict[Role, HcaFacts] = {"head": head, "worker": worker}
        if all(hca.active for hca in both.values()):
            ends.append({r: (h.netdev or "", f"{next(g.ipv4 for g in h.gids if g.ipv4)}/24") for r, h in both.items()})
    return judged(with_parts(rdma=tree), site_of(ends, index), "fabric.gid_index_valid")


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("name", ["drift-one-hca", "one-rail-privacy-ll-index5", "all-up-ok", "p1-up-ok"])
def test_a_pin_is_valid_only_where_every_device_has_it(name: str, index: int) -> None:
    capture = f"sysfs/infiniband-{name}.json"
    hcas, wanted = hcas_in(json.loads(text(capture))), expect(capture)["index"]
    bad = pinned({"head": hcas, "worker": hcas}, index)
    elsewhere = {hca for hca, there in wanted.items() if there != index}
    assert bool(bad) is bool(elsewhere)
    for hca, there in wanted.items():
        said = f"head {hca}: the RoCE v2 entry of"
        assert all((said in f.observed) is (hca in elsewhere) for f in bad)
        if hca in elsewhere:
            assert f"at {there}, not at {index}" in bad[0].observed


@pytest.mark.parametrize("index", [3, 4, 5])
def test_a_pin_that_suits_one_node_alone_is_named_for_the_other(index: int) -> None:
    both = json.loads(text("sysfs/infiniband-head4-worker3.json"))
    (bad,) = pinned({role: hcas_in(both[role]) for role in ROLES}, index)
    assert ("head rocep1s0f1" in bad.observed) is (index != 4)
    assert ("worker rocep1s0f1" in bad.observed) is (index != 3)


@pytest.mark.parametrize(
    ("head", "worker", "status"),
    [
        ("p1-up-mtu9000", "p1-up-mtu9000", None),
        ("all-up-one-rail-1500", "p1-up-mtu9000", "fail"),
        ("all-up-one-rail-1500", "all-up-one-rail-1500", "warn"),
    ],
)
def test_active_mtu(head: str, worker: str, status: str | None) -> None:
    tree = json.loads(text("sysfs/infiniband-p1-up-ok.json"))
    devices: dict[Role, Any] = {}
    for role, name in zip(ROLES, (head, worker), strict=True):
        verbs = parse_ibv_devinfo(text(f"rdma/ibv_devinfo-{name}.txt"))
        devices[role] = parse_rdma(*sysfs_probe_files(tree), verbs)
    rails: Ends = [
        {"head": (port, f"10.{i}.0.1/24"), "worker": (port, f"10.{i}.0.2/24")}
        for i, port in enumerate(("enp1s0f1np1", "enP2p1s0f1np1"))
    ]
    bad = judged(with_parts(rdma=devices), site_of(rails), "fabric.active_mtu")
    assert [f.status for f in bad] == ([status] if status else [])
    assert not bad or "rocep1s0f1 1024" in bad[0].observed


def test_one_twin_that_came_up_alone_is_named() -> None:
    name = "rdma/ibdev2netdev-one-twin-up.txt"
    base = {hca.name: hca for hca in pair_facts().head.rdma or ()}
    links = {link.name: link for link in pair_facts().head.links or ()}
    hcas, ports = [], [link for netdev, link in links.items() if netdev not in HCA]
    for shown in parse_ibdev2netdev(text(name)) or ():
        state = "4: ACTIVE" if shown.up else "1: DOWN"
        hcas.append(base[shown.device].model_copy(update={"state": state}))
        ports.append(links[NETDEV[shown.device]].model_copy(update={"carrier": shown.up}))
    facts = with_parts(rdma={"head": tuple(hcas)}, links={"head": tuple(ports)})
    (bad,) = [f for f in judged(facts, site_of(), "fabric.rails_complete") if f.node == "head"]
    assert expect(name)["twin_mismatch"]
    assert "roceP2p1s0f1 (enP2p1s0f1np1, cage 1, PCIe half B): no rail, no IPv4 address, no carrier" in bad.observed


def test_jumbo_on_the_wrong_port_is_named() -> None:
    links = parse_ip_text(text("net/ip-s-link-no-cable-excerpt.txt"))
    (bad,) = judged(with_parts(links={"head": links}), site_of(), "fabric.mgmt_mtu")
    assert bad.observed.startswith(
        "MTU enP7s7 9000 on the port of the default route, while rails have enp1s0f0np0 1500"
    )


@pytest.mark.parametrize("name", names("netplan/"))
def test_a_netplan_file_is_adopted_only_when_it_gives_exactly_the_wanted(name: str) -> None:
    file = parse_netplan("/etc/netplan/40-cx7.yaml", text(name), 0o600)
    named = [d for d in file.devices or () if d.name in HCA][:4]
    ends: Ends = [
        dict.fromkeys(ROLES, (d.name, d.addresses[0] if d.addresses else f"10.9.{i}.1/24")) for i, d in enumerate(named)
    ]
    report = run_checks(with_parts(netplan={"head": (file,)}), site_of(ends), only=["fabric.persistence_owner"])
    (found,) = [f for f in report.findings if f.node == "head"]
    assert found.status == ("ok" if all(d.mtu == 9000 and d.addresses for d in named) else "fail"), found.observed
    assert file.owner in found.observed
