"""Containers as tenants: recorded, stopped, given back with the same id and policy, also after a kill at any step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.tenant_node import Killer, TenantNode, box, container_tenant, prepare

ONE = container_tenant(("a1", "comfyui"))
STUDIO = container_tenant(("w1", "web"), ("d1", "db"), ("q1", "queue"), key="compose:studio")


@pytest.fixture
def tenant_node(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    return prepare(tmp_path, on_path, monkeypatch)


@pytest.fixture
def killer(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


def _policies(node: TenantNode) -> dict[str, tuple[str, str, int]]:
    return {
        found["Id"]: (
            found["State"]["Status"],
            found["HostConfig"]["RestartPolicy"]["Name"],
            found["HostConfig"]["RestartPolicy"]["MaximumRetryCount"],
        )
        for found in node.state["containers"]
    }


def _studio() -> list[dict[str, Any]]:
    return [
        box("w1", "web", policy="always", service="web", depends_on="db:service_started:false,queue:service_started"),
        box("d1", "db", policy="on-failure", retries=3, service="db"),
        box("q1", "queue", policy="no", service="queue", depends_on="db:service_healthy:false"),
    ]


def test_a_container_loses_its_policy_before_it_is_stopped_and_gets_both_back(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    result = tenant_node.evict(ONE)
    assert (result.outcome, result.freed_kib, result.changed) == ("evicted", 2 << 20, True)
    assert tenant_node.changing_calls() == ["docker update --restart=no a1", "docker stop a1"]
    assert tenant_node.states() == ["stopped"]
    assert [(r.outcome, r.sentence) for r in tenant_node.restore()] == [("restored", "as before")]
    assert _policies(tenant_node) == {"a1": ("running", "unless-stopped", 0)}
    assert tenant_node.restore() == []


def test_a_project_stops_against_its_dependencies_and_starts_along_them(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=_studio())
    before = _policies(tenant_node)
    assert tenant_node.evict(STUDIO).outcome == "evicted"
    stops = [call for call in tenant_node.changing_calls() if " stop " in call]
    assert stops == ["docker stop w1", "docker stop q1", "docker stop d1"]
    tenant_node.restore()
    starts = [call for call in tenant_node.changing_calls() if " start " in call]
    assert starts == ["docker start d1", "docker start q1", "docker start w1"]
    assert _policies(tenant_node) == before


@pytest.mark.parametrize(
    ("step", "again"), [*((step, False) for step in range(10)), *((step, True) for step in (2, 4))]
)
def test_whatever_step_a_kill_comes_at_everything_comes_back(
    tenant_node: TenantNode, killer: Killer, step: int, again: bool
) -> None:
    tenant_node.has(containers=_studio())
    before = _policies(tenant_node)
    killed = killer.run(step, lambda: tenant_node.evict(STUDIO))
    assert killed is (step < 8), "the number of steps has changed: mend the range"
    if again:
        # The next look shows only what still runs.
        running = {found["Id"] for found in tenant_node.state["containers"] if found["State"]["Status"] == "running"}
        shown = [member for member in STUDIO["members"] if member["id"] in running]
        if shown:
            assert tenant_node.evict({**STUDIO, "members": shown}, "second").outcome == "evicted"
    tenant_node.restore()
    assert _policies(tenant_node) == before
    assert not {"intended", "stopped"} & set(tenant_node.states())


@pytest.mark.parametrize("step", [0, 1, 2, 4, 5])
def test_a_restore_that_is_killed_is_finished_by_the_next(tenant_node: TenantNode, killer: Killer, step: int) -> None:
    tenant_node.has(containers=_studio())
    before = _policies(tenant_node)
    tenant_node.evict(STUDIO)
    killer.run(step, tenant_node.restore)
    tenant_node.restore()
    assert _policies(tenant_node) == before
    assert tenant_node.states() == ["restored"]


def test_another_container_under_the_name_is_not_touched(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("b2", "comfyui")])
    result = tenant_node.evict(ONE)
    assert (result.outcome, result.failed) == ("changed", True)
    assert "[tenant.changed]" in result.sentence
    assert tenant_node.changing_calls() == []
    assert tenant_node.states() == []


def test_one_that_has_ended_by_itself_is_nobodys_business(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui", status="exited")])
    result = tenant_node.evict(ONE)
    assert (result.outcome, result.failed, result.changed) == ("gone", False, False)
    assert tenant_node.states() == []


def test_one_that_would_be_removed_by_its_end_is_refused(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui", rm=True)])
    result = tenant_node.evict(ONE)
    assert result.outcome == "refused"
    assert "--rm" in result.sentence
    assert tenant_node.changing_calls() == []


def test_memory_that_stays_away_is_a_failure_and_the_tenant_is_owed(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.keeps = True
    result = tenant_node.evict(ONE)
    assert (result.outcome, result.failed) == ("not-returned", True)
    assert "MemAvailable grew by 0.00 GiB" in result.sentence
    assert tenant_node.states() == ["stopped"]


def test_what_the_driver_gave_must_come_back_too(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    result = tenant_node.evict({**ONE, "on_gpu": True, "gpu_kib": 100 << 20})
    assert (result.outcome, result.held_kib) == ("not-returned", 100 << 20)
    assert "held 100.00 GiB, but MemAvailable grew by 2.00 GiB" in result.sentence


def test_an_unknown_share_of_the_gpu_is_waited_for(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    # Before; its own memory is back; the driver's comes later, in parts; then no more.
    answers = iter([1 << 20, 3 << 20, 3 << 20, 40 << 20, 80 << 20])
    transactions = "ansible.module_utils.dspark_tenant_transactions"
    monkeypatch.setattr(f"{transactions}.available_kib", lambda: next(answers, 80 << 20))
    result = tenant_node.evict({**ONE, "on_gpu": True, "gpu_kib": None}, return_timeout_s=5)
    assert (result.outcome, result.freed_kib) == ("evicted", 79 << 20)


def test_one_that_somebody_starts_again_is_named(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")], respawn=True)
    result = tenant_node.evict(ONE)
    assert (result.outcome, result.failed) == ("respawned", True)
    assert "newa1" in result.sentence


def test_one_that_was_started_again_by_hand_only_gets_its_policy_back(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    state = tenant_node.state
    state["containers"][0]["State"]["Status"] = "running"
    tenant_node.has(**state)
    assert [result.outcome for result in tenant_node.restore()] == ["back"]
    assert tenant_node.changing_calls() == ["docker update --restart=unless-stopped a1"]


def test_a_policy_that_somebody_changed_meanwhile_is_left(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    state = tenant_node.state
    state["containers"][0]["HostConfig"]["RestartPolicy"]["Name"] = "always"
    tenant_node.has(**state)
    tenant_node.restore()
    assert _policies(tenant_node)["a1"][1] == "always"


def test_a_removed_container_is_left_and_stays_owed(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=_studio())
    tenant_node.evict(STUDIO)
    state = tenant_node.state
    state["containers"] = [found for found in state["containers"] if found["Id"] != "w1"]
    tenant_node.has(**state)
    results = tenant_node.restore()
    assert [result.outcome for result in results] == ["left"]
    assert "container web" in results[0].sentence
    assert _policies(tenant_node)["d1"] == ("running", "on-failure", 3)
    assert tenant_node.states() == ["stopped"]


def test_a_paused_one_comes_back_paused(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui", status="paused")])
    tenant_node.evict(ONE)
    tenant_node.restore()
    assert _policies(tenant_node) == {"a1": ("paused", "unless-stopped", 0)}


def test_check_mode_tells_and_writes_nothing(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    result = tenant_node.evict(ONE, check=True)
    assert (result.outcome, result.changed) == ("evicted", True)
    assert (result.before, result.after) == (
        "container comfyui: running, restart unless-stopped\n",
        "container comfyui: exited, restart no\n",
    )
    assert tenant_node.changing_calls() == []
    assert tenant_node.states() == []
    tenant_node.evict(ONE)
    calls = tenant_node.changing_calls()
    assert [(r.outcome, r.changed) for r in tenant_node.restore(check=True)] == [("restored", True)]
    assert tenant_node.changing_calls() == calls
    assert tenant_node.states() == ["stopped"]


def test_a_silent_engine_is_no_missing_container(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    tenant_node.has(**{**tenant_node.state, "down": True})
    results = tenant_node.restore()
    assert "[host.docker_down]" in results[0].sentence
    assert tenant_node.states() == ["stopped"]
