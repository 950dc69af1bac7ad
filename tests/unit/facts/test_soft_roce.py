"""Soft-RoCE as two VMs really show it: no PCI address, no port name, another GID table, and still the same rails."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from dspark_ops.config.models import ROLES
from dspark_ops.facts.ethtool import parse_driver, parse_settings
from dspark_ops.facts.gids import roce_v2_indexes
from dspark_ops.facts.links import parse_links
from dspark_ops.facts.rdma import HcaFacts, parse_rdma
from dspark_ops.facts.rdma_tools import parse_rdma_link
from dspark_ops.facts.verbs import parse_ibv_devinfo
from tests.unit.facts.captures import FIXTURES

RXE = FIXTURES / "rxe"
CAPTURES = sorted(f"{state.name}/{role}" for state in RXE.iterdir() if state.is_dir() for role in ROLES)


def hcas(capture: str) -> dict[str, HcaFacts]:
    """The RDMA devices of a capture, as the probes would have returned them."""
    folder: Path = RXE / capture
    files = json.loads((folder / "sysfs.json").read_text(encoding="utf-8"))["files"]
    verbs = parse_ibv_devinfo((folder / "ibv_devinfo.txt").read_text(encoding="utf-8"))
    devices = parse_rdma({}, {path: content for path, content in files.items() if "infiniband" in path}, {}, verbs)
    assert devices is not None
    return {hca.name: hca for hca in devices}


@pytest.mark.parametrize("capture", CAPTURES)
def test_cage_and_half_come_from_the_predictable_name_and_say_so(capture: str) -> None:
    assert {h.name: (h.netdev, h.cage, h.half, h.identity, h.driver, h.pci) for h in hcas(capture).values()} == {
        "rocep1s0f0": ("enp1s0f0np0", 0, "A", "name", "rxe", None),
        "rocep1s0f1": ("enp1s0f1np1", 1, "A", "name", "rxe", None),
        "roceP2p1s0f0": ("enP2p1s0f0np0", 0, "B", "name", "rxe", None),
        "roceP2p1s0f1": ("enP2p1s0f1np1", 1, "B", "name", "rxe", None),
    }


@pytest.mark.parametrize("capture", CAPTURES)
def test_state_agrees_with_rdma_link_and_the_index_with_the_addresses(capture: str) -> None:
    devices = hcas(capture)
    shown = parse_rdma_link((RXE / capture / "rdma-link.txt").read_text(encoding="utf-8"))
    assert {k.device: k.up for k in shown or ()} == {name: hca.active for name, hca in devices.items()}
    links = {k.name: k for k in parse_links((RXE / capture / "ip-j-addr.json").read_text(encoding="utf-8")) or ()}
    for hca in devices.values():
        link = links[hca.netdev or ""]
        assert all(
            roce_v2_indexes(hca.gids, link.name, address.ip) == (1,)
            for address in link.ipv4
            if isinstance(address, IPv4Interface) and hca.active
        )
        assert roce_v2_indexes(hca.gids, link.name, IPv4Address("192.0.2.1")) == ()
        if hca.active:
            assert hca.active_mtu_bytes == (4096 if link.mtu == 9000 else 1024)
        else:
            assert hca.active_mtu_bytes is None, "a port that is not active says nothing"


@pytest.mark.parametrize("capture", CAPTURES)
def test_ethtool_shows_a_port_of_a_vm_and_no_firmware(capture: str) -> None:
    (shown,) = (RXE / capture).glob("ethtool-enp1s0f0np0.txt")
    settings = parse_settings(shown.read_text(encoding="utf-8"))
    driver = parse_driver((RXE / capture / "ethtool-i-enp1s0f0np0.txt").read_text(encoding="utf-8"))
    assert settings is not None
    assert driver is not None
    assert (driver.driver, driver.firmware, driver.psid) == ("virtio_net", None, None)
    assert (settings.fec, settings.lanes) == ((), None)
    # virtio keeps its speed without a cable, which mlx5 does not: carrier alone tells.
    assert settings.speed_mbps == 200000
    assert settings.link is (capture.split("/")[0] != "cable-1-out")


def test_without_ibv_devinfo_the_mtu_is_unknown_and_the_rest_is_not() -> None:
    files = json.loads((RXE / "mtu9000/head/sysfs.json").read_text(encoding="utf-8"))["files"]
    devices = parse_rdma({}, files, {})
    assert devices is not None
    assert {(h.active_mtu_bytes, h.active, h.driver) for h in devices} == {(None, True, "rxe")}
