"""No parser raises on any text, and what it understood survives JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts import (
    docker_engine,
    ethtool,
    gpu,
    ifupdown,
    jumbo,
    kernel_log,
    links,
    links_text,
    listeners,
    memory,
    nccl_files,
    nccl_log,
    netplan,
    networkd,
    networkmanager,
    persistence,
    rank,
    rdma_tools,
    routes,
    service,
    system,
    verbs,
)
from dspark_ops.facts.gids import parse_gids
from dspark_ops.facts.rdma import cage_of, parse_rdma
from dspark_ops.facts.snapshot import NodeFacts, parse_node
from dspark_ops.transport.base import NodeReading, ProbeResult

PARSERS: dict[str, Callable[[str], object]] = {
    "links": links.parse_links,
    "routes": routes.parse_routes,
    "memory": memory.parse_meminfo,
    "gpu identity": gpu.parse_identity,
    "gpu processes": gpu.parse_compute_apps,
    "dgx-release": system.parse_dgx_release,
    "uname": system.parse_uname,
    "lab marker": system.parse_lab_marker,
    "logind": lambda text: system.parse_remove_ipc({"/etc/systemd/logind.conf": text}),
    "netplan": lambda text: netplan.parse_netplan("/etc/netplan/x.yaml", text),
    "ls": netplan.parse_modes,
    "docker info": docker_engine.parse_info,
    "docker ps": docker_engine.parse_ps,
    "docker labels": docker_engine.parse_labels,
    "docker image ls": docker_engine.parse_images,
    "docker inspect": rank.parse_inspect,
    "docker top": rank.parse_top,
    "log": rank.orderly_end,
    "listeners": listeners.parse_listeners,
    "models": service.parse_models,
    "version": service.parse_version,
    "completion": service.parse_completion,
    "ping": lambda text: jumbo.parse_ping("r", text),
    "ethtool": ethtool.parse_settings,
    "ethtool -i": ethtool.parse_driver,
    "ethtool -m": ethtool.parse_module,
    "ethtool -S": lambda text: ethtool.worst_lane(ethtool.parse_statistics(text) or {}),
    "interfaces": lambda text: ifupdown.parse_interfaces({"/etc/network/interfaces": text}),
    "kernel log": kernel_log.parse_kernel_log,
    "ip -br": links_text.parse_ip_brief,
    "ip": links_text.parse_ip_text,
    "nccl files": lambda text: nccl_files.parse_nccl_files({"/etc/nccl.conf": text}),
    "nccl log": nccl_log.parse_nccl_log,
    "networkd": lambda text: networkd.parse_networkd({"/etc/systemd/network/x.network": text}),
    "keyfile": lambda text: networkmanager.parse_profile("/etc/x", text),
    "managers": persistence.parse_managers,
    "ibdev2netdev": rdma_tools.parse_ibdev2netdev,
    "rdma link": rdma_tools.parse_rdma_link,
    "rdma statistic": rdma_tools.parse_rdma_statistic,
    "show_gids": rdma_tools.parse_show_gids,
    "gid listing": rdma_tools.parse_gid_listing,
    "ibv_devinfo": verbs.parse_ibv_devinfo,
    "ibstat": verbs.parse_ibstat,
}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
KEYS = st.one_of(
    st.sampled_from(["ifname", "mtu", "flags", "addr_info", "local", "prefixlen", "linkinfo", "dst", "dev"]),
    st.sampled_from(["Id", "State", "Config", "Env", "Labels", "HostConfig", "RestartPolicy", "Name", "Path", "Args"]),
    st.sampled_from(["ID", "Names", "ServerErrors", "Runtimes", "data", "id", "choices", "message", "content"]),
    st.sampled_from(["what", "network", "ethernets", "match", "addresses"]),
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=12
)


@pytest.mark.parametrize("name", PARSERS)
def test_no_parser_raises_on_any_text(name: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300) | DOCUMENTS.map(lambda d: json.dumps(d, allow_nan=True)))
    def run(text: str) -> None:
        PARSERS[name](text)

    run()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(list(PARSERS)), st.text(max_size=80), max_size=8), DOCUMENTS)
def test_a_node_is_typed_from_any_answers_and_survives_json(texts: dict[str, str], document: Any) -> None:
    probes = ["links.addr", "routes.main", "gpu.identity", "gpu.processes", "docker.info", "docker.ps", "docker.images"]
    probes += [
        "rank.inspect",
        "rank.top",
        "rank.tail",
        "listeners.tcp",
        "system.uname",
        "netplan.list",
        "service.health",
    ]
    values = [*texts.values(), json.dumps(document)]
    results = {
        probe: ProbeResult(id=probe, rc=0, stdout=values[i % len(values)], stderr="") for i, probe in enumerate(probes)
    }
    reading = NodeReading(node="head", reachable=True, user="nvidia", sudo=True, results=results)
    facts = parse_node("head", reading)
    assert NodeFacts.model_validate_json(facts.model_dump_json()) == facts


@given(st.integers(0, 99), st.ip_addresses(v=4).filter(lambda a: int(a) > 0))
def test_a_mapped_gid_gives_its_address_back(index: int, address: IPv4Address) -> None:
    gid = IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed).exploded
    (entry,) = parse_gids({f"gids/{index}": gid + "\n"})
    assert (entry.index, entry.ipv4, entry.type) == (index, address, None)


@given(st.dictionaries(st.text(max_size=40), st.text(max_size=60), max_size=6))
def test_any_paths_and_contents_give_no_error_in_the_rdma_tree(files: dict[str, str]) -> None:
    under = {f"/sys/class/infiniband/{path}": text for path, text in files.items()}
    parse_rdma(under, {**files, **under}, files)
    parse_gids(files)


def test_the_cage_is_the_port_name_and_else_the_pci_function() -> None:
    assert cage_of("p1", "0000:01:00.0") == 1
    assert cage_of(None, "0002:01:00.1") == 1
    assert cage_of("p0\n", None) == 0
    assert cage_of("", "virtual") is None


def test_an_unreachable_node_knows_nothing() -> None:
    facts = parse_node("worker", NodeReading(node="worker", reachable=False, error="no answer"), "node-b")
    known = facts.model_dump(exclude_none=True)
    assert known == {
        "role": "worker",
        "host": "node-b",
        "reachable": False,
        "error": "no answer",
        "round_trip_s": 0.0,
        "rank_known": False,
    }
