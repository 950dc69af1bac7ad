"""The NCCL environment per node: what is set has a reason, what is unset is absent."""

from __future__ import annotations

import pytest

from dspark_ops.config.models import ROLES, Role
from dspark_ops.fabric.nccl import GID_INDEX, SOCKET_VARIABLES, nccl_environment, nccl_settings
from tests.unit.doctor.pair_fixture import load_case_site

FOUR = (
    "fabric.rails=["
    "{name: p0a, head: {netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.0.1/24},"
    " worker: {netdev: enp1s0f1np1, hca: rocep1s0f1, address: 10.77.0.2/24}},"
    "{name: p0b, head: {netdev: enP2p1s0f0np0, hca: roceP2p1s0f0, address: 10.77.1.1/24},"
    " worker: {netdev: enP2p1s0f1np1, hca: roceP2p1s0f1, address: 10.77.1.2/24}},"
    "{name: p1a, head: {netdev: enp1s0f1np1, hca: rocep1s0f1, address: 10.77.2.1/24},"
    " worker: {netdev: enp1s0f0np0, hca: rocep1s0f0, address: 10.77.2.2/24}},"
    "{name: p1b, head: {netdev: enP2p1s0f1np1, hca: roceP2p1s0f1, address: 10.77.3.1/24},"
    " worker: {netdev: enP2p1s0f0np0, hca: roceP2p1s0f0, address: 10.77.3.2/24}}]"
)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("overrides", [(), (FOUR,), ("fabric.gid_index=3",)], ids=["one cable", "two", "pinned"])
def test_every_variable_has_one_reason_and_none_is_empty(role: Role, overrides: tuple[str, ...]) -> None:
    settings = nccl_settings(load_case_site(*overrides).site, role)
    assert len({s.name for s in settings}) == len(settings)
    assert all(s.reason for s in settings)
    assert all(s.value is None or s.value.strip() for s in settings)
    assert set(nccl_environment(load_case_site(*overrides).site, role)) == {
        s.name for s in settings if s.value is not None
    }


def test_crossed_cables_give_each_node_its_own_names_in_rail_order() -> None:
    site = load_case_site(FOUR).site
    head, worker = (nccl_environment(site, role) for role in ROLES)
    assert head["NCCL_IB_HCA"] == "=rocep1s0f0,roceP2p1s0f0,rocep1s0f1,roceP2p1s0f1"
    assert worker["NCCL_IB_HCA"] == "=rocep1s0f1,roceP2p1s0f1,rocep1s0f0,roceP2p1s0f0"
    assert [worker[name].removeprefix("=") for name in SOCKET_VARIABLES] == ["enp1s0f1np1"] * 3
    assert (head["VLLM_HOST_IP"], worker["VLLM_HOST_IP"]) == ("10.77.0.1", "10.77.0.2")


def test_four_rails_are_not_fused_and_two_are_left_to_nccl() -> None:
    four, two = (nccl_environment(load_case_site(*o).site, "head") for o in ((FOUR,), ()))
    assert (four["NCCL_IB_MERGE_NICS"], four["NCCL_NETDEVS_POLICY"], four["NCCL_CROSS_NIC"]) == ("0", "ALL", "0")
    assert not {"NCCL_IB_MERGE_NICS", "NCCL_NETDEVS_POLICY", "NCCL_CROSS_NIC"} & set(two)


def test_the_gid_index_is_set_only_by_a_pin() -> None:
    assert GID_INDEX not in nccl_environment(load_case_site().site, "head")
    assert nccl_environment(load_case_site("fabric.gid_index=5").site, "worker")[GID_INDEX] == "5"


def test_without_rdma_devices_the_list_is_unset_and_says_so() -> None:
    site = load_case_site("fabric.rails.1.head.hca=null").site
    setting = next(s for s in nccl_settings(site, "head") if s.name == "NCCL_IB_HCA")
    assert setting.value is None
    assert "p0b" in setting.reason
    assert "NCCL_IB_HCA" in nccl_environment(site, "worker")
