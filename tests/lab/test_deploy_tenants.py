"""The article's case: somebody on the head holds the memory that a release needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.lab.conftest import RehearsalPair
from tests.lab.operator_cli import Operator
from tests.lab.real_tenants import Nodes, Started, compose, container, orphan, process, user_unit

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def inspected(operator: Operator, name: str) -> dict[str, object]:
    (found,) = json.loads(operator.on("head", "docker", "container", "inspect", name))
    return {
        "id": found["Id"],
        "running": found["State"]["Running"],
        "policy": found["HostConfig"]["RestartPolicy"],
        "config": found["Config"],
    }


def test_refused_then_by_consent_evicted_and_given_back(operator: Operator, pair: RehearsalPair) -> None:
    operator.run("stop", "--yes", "--remove")
    nodes = Nodes(pair.ssh_config)
    held_mib = nodes.available_kib("head") // 1024 - 1600
    with container(nodes, "head", name="comfyui", mib=held_mib) as tenant:
        before = inspected(operator, "comfyui")
        refused = operator.run("deploy", "--yes")
        assert refused.rc == 4, refused
        assert tenant.key in refused.err
        assert "--evict" in refused.err
        assert operator.ranks() == {"head": None, "worker": None}
        assert inspected(operator, "comfyui") == before

        planned = operator.run("deploy", "--check", "--evict")
        assert planned.rc == 0, planned
        assert f"evict head: {tenant.key}" in planned.err
        assert inspected(operator, "comfyui") == before

        served = operator.run("deploy", "--yes", "--evict", "--json")
        assert (served.rc, served.document()["verdict"]) == (0, "ready"), served
        assert nodes.answer("head", tenant.port) is None

        stopped = operator.run("stop", "--yes")
        assert stopped.rc == 0, stopped
        assert tenant.key in stopped.out
        restored = operator.run("tenants restore", "--yes")
        assert restored.rc == 0, restored
        nodes.wait_answer("head", tenant.port, tenant.word)
        assert inspected(operator, "comfyui") == before
        again = operator.run("tenants restore", "--yes", "--json")
        assert (again.rc, again.document()["changes"]) == (0, []), again


@pytest.mark.soak
def test_a_deploy_that_fails_gives_the_tenant_back_by_itself(operator: Operator, pair: RehearsalPair) -> None:
    operator.run("stop", "--yes", "--remove")
    nodes = Nodes(pair.ssh_config)
    with container(nodes, "head", name="comfyui", mib=nodes.available_kib("head") // 1024 - 1600) as tenant:
        before = inspected(operator, "comfyui")
        failed = operator.run("deploy", "--yes", "--evict", "--json", "--set", "model.path=/models/absent")
        assert failed.rc == 5, failed
        assert tenant.key in failed.document()["message"]
        assert operator.ranks() == {"head": None, "worker": None}
        nodes.wait_answer("head", tenant.port, tenant.word)
        assert inspected(operator, "comfyui") == before


Starter = Callable[..., AbstractContextManager[Started]]


@pytest.mark.soak
@pytest.mark.parametrize("start", [user_unit, compose, process, orphan], ids=lambda start: start.__name__)
def test_the_same_for_others_who_hold_the_memory(operator: Operator, pair: RehearsalPair, start: Starter) -> None:
    operator.run("stop", "--yes", "--remove")
    nodes = Nodes(pair.ssh_config)
    with start(nodes, "head", mib=nodes.available_kib("head") // 1024 - 1600) as tenant:
        refused = operator.run("deploy", "--yes")
        assert refused.rc == 4, refused
        assert tenant.key in refused.err
        served = operator.run("deploy", "--yes", "--evict", "--json")
        assert (served.rc, served.document()["verdict"]) == (0, "ready"), served
        assert nodes.answer("head", tenant.port) is None
        assert operator.run("stop", "--yes").rc == 0
        restored = operator.run("tenants restore", "--yes")
        if start is process:
            # Nobody consented to a recorded command yet: it is refused, and nothing is lost by asking again.
            assert restored.rc == 4, restored
            restored = operator.run("tenants restore", "--yes", "--start-processes")
        assert restored.rc == 0, restored
        # An engine without its server is nobody's: it does not come back.
        nodes.wait_answer("head", tenant.port, None if start is orphan else tenant.word)
