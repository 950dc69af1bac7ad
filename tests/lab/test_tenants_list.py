"""`tenants list` beside a serving pair, with every kind of tenant that can be had without a screen, all real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.lab import real_tenants
from tests.lab.conftest import RehearsalPair
from tests.lab.operator_cli import RANK, Operator
from tests.lab.real_tenants import Nodes, Started

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

SMALL = ("--set", "tenants.large_memory_gib=0.05")
MIB = 80


@pytest.fixture(scope="module")
def nodes(pair: RehearsalPair) -> Nodes:
    return Nodes(pair.ssh_config)


@pytest.fixture(scope="module")
def started(nodes: Nodes, operator: Operator) -> Iterator[dict[str, Started]]:
    """Tenants on both nodes beside the ranks."""
    done = operator.run("deploy", "--yes")
    assert done.rc == 0, done
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(tenant)
            for name, tenant in (
                ("container", real_tenants.container(nodes, "head", mib=MIB, gpu=True, claim_mib=2048)),
                ("compose", real_tenants.compose(nodes, "worker", mib=MIB)),
                ("unit", real_tenants.system_unit(nodes, "head", mib=MIB)),
                ("user-unit", real_tenants.user_unit(nodes, "worker", mib=MIB)),
                ("process", real_tenants.process(nodes, "head", mib=MIB)),
                ("loop", real_tenants.respawning_process(nodes, "worker", mib=MIB)),
                ("orphan", real_tenants.orphan(nodes, "head", mib=MIB, gpu=True)),
            )
        }


@pytest.fixture(scope="module")
def listed(started: dict[str, Started], operator: Operator) -> dict[str, dict[str, Any]]:
    """What the verb says of them, by key; nothing else is on its list."""
    done = operator.run("tenants list", "--json", *SMALL)
    assert done.rc == 0, done
    document = done.document()
    assert document["problems"] == []
    found = {(node["role"], tenant["key"]): tenant for node in document["nodes"] for tenant in node["tenants"]}
    assert set(found) == {(tenant.role, tenant.key) for tenant in started.values()}
    by_key = {key: tenant for (_, key), tenant in found.items()}
    return {name: by_key[tenant.key] for name, tenant in started.items()}


def test_each_holds_what_it_was_given_shared_pages_once(listed: dict[str, dict[str, Any]]) -> None:
    for name, tenant in listed.items():
        assert MIB * 1024 <= tenant["memory_kib"] < (MIB + 40) * 1024, (name, tenant)
        assert tenant["reclaimable_kib"] is not None


def test_the_gpu_is_the_drivers_word(listed: dict[str, dict[str, Any]]) -> None:
    assert {name for name, tenant in listed.items() if tenant["on_gpu"]} == {"container", "orphan"}
    assert listed["container"]["gpu_kib"] == 2048 * 1024
    assert listed["unit"]["gpu_kib"] is None


def test_each_is_identified_as_it_must_come_back(
    listed: dict[str, dict[str, Any]], started: dict[str, Started]
) -> None:
    member = listed["container"]["members"][0]
    assert (member["id"], member["restart_policy"]) == (started["container"].id, "unless-stopped")
    assert [one["service"] for one in listed["compose"]["members"]] == ["store", "web"]
    assert started["compose"].id in [one["id"] for one in listed["compose"]["members"]]
    assert listed["unit"]["unit"]["enablement"] == listed["user-unit"]["unit"]["enablement"] == "enabled"
    assert listed["user-unit"]["unit"]["user"] == real_tenants.LOGIN
    assert listed["user-unit"]["held_by"] == "systemd, Restart=always"
    process = listed["process"]["process"]
    assert (process["pid"], process["user"], process["cwd"]) == (started["process"].pid, real_tenants.LOGIN, "/tmp")
    assert process["argv"][1:3] == [f"{real_tenants.PLACE}/hog.py", started["process"].word]
    assert started["loop"].pid in listed["loop"]["pids"]
    assert listed["loop"]["held_by"] is not None
    assert listed["orphan"]["kind"] == "orphan"


def test_the_start_ticks_are_those_of_the_process_that_lives(
    listed: dict[str, dict[str, Any]], started: dict[str, Started], nodes: Nodes
) -> None:
    pid = started["process"].pid
    stat = nodes.run("head", f"cat /proc/{pid}/stat").rpartition(")")[2].split()
    assert listed["process"]["process"]["start_ticks"] == int(stat[19])


def test_the_key_is_the_same_at_the_next_look(listed: dict[str, dict[str, Any]], operator: Operator) -> None:
    again = operator.run("tenants list", "--json", *SMALL).document()
    keys = {tenant["key"] for node in again["nodes"] for tenant in node["tenants"]}
    assert keys == {tenant["key"] for tenant in listed.values()}


def test_the_table_is_for_people_and_the_rank_is_not_in_it(
    listed: dict[str, dict[str, Any]], operator: Operator
) -> None:
    began = time.monotonic()
    done = operator.run("tenants list", *SMALL)
    assert time.monotonic() - began < 15
    assert done.rc == 0, done
    assert all(tenant["key"] in done.out for tenant in listed.values())
    assert "GiB available of" in done.out
    assert RANK not in done.out


def test_without_the_driver_it_could_not_be_told_and_the_large_ones_still_show(
    listed: dict[str, dict[str, Any]], operator: Operator, nodes: Nodes
) -> None:
    nodes.root("head", "touch /run/dspark-lab/gpu-fail")
    try:
        done = operator.run("tenants list", "--json", *SMALL)
    finally:
        nodes.root("head", "rm -f /run/dspark-lab/gpu-fail")
    assert done.rc == 3, done
    head, worker = done.document()["nodes"]
    assert [tenant["on_gpu"] for tenant in head["tenants"]] == [None] * 4
    assert all(tenant["on_gpu"] is False for tenant in worker["tenants"])
    assert done.document()["problems"][0].startswith("head: what computes on the GPU could not be read")
