"""Units as tenants: kept from starting by a drop-in, enablement untouched, brought back with what triggers them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.tenant_node import Killer, TenantNode, prepare, unit, unit_tenant

NAME = "ollama.service"
OLLAMA = unit_tenant(NAME)


@pytest.fixture
def tenant_node(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    return prepare(tmp_path, on_path, monkeypatch)


@pytest.fixture
def killer(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


def _active(node: TenantNode) -> dict[str, str]:
    return {name: found["show"]["ActiveState"] for name, found in node.state["units"].items()}


def _drop_ins(node: TenantNode) -> list[str]:
    return sorted(str(path.relative_to(node.home)) for path in node.home.glob("etc-*/**/*.conf"))


def _socket_activated() -> dict[str, Any]:
    return {
        NAME: unit(TriggeredBy="ollama.socket"),
        "ollama.socket": unit(fragment="/etc/ollama.socket"),
    }


def test_a_unit_is_kept_from_starting_and_comes_back_with_its_socket(tenant_node: TenantNode) -> None:
    tenant_node.has(units=_socket_activated())
    assert tenant_node.evict(OLLAMA).outcome == "evicted"
    assert _active(tenant_node) == {NAME: "inactive", "ollama.socket": "inactive"}
    assert _drop_ins(tenant_node) == [
        f"etc-system/{NAME}.d/zz-dspark-evicted.conf",
        "etc-system/ollama.socket.d/zz-dspark-evicted.conf",
    ]
    # The socket first: it would start the unit again.
    stops = [call for call in tenant_node.changing_calls() if " stop " in call]
    assert [call.split()[-1] for call in stops] == ["ollama.socket", NAME]
    assert not any("able" in call or "mask" in call for call in tenant_node.changing_calls())
    assert [result.outcome for result in tenant_node.restore()] == ["restored"]
    assert _active(tenant_node) == {NAME: "active", "ollama.socket": "active"}
    assert not any((tenant_node.home / "etc-system").iterdir())
    assert tenant_node.restore() == []


@pytest.mark.parametrize(("step", "again"), [*((step, False) for step in range(9)), (2, True), (5, True)])
def test_whatever_step_a_kill_comes_at_everything_comes_back(
    tenant_node: TenantNode, killer: Killer, step: int, again: bool
) -> None:
    tenant_node.has(units=_socket_activated())
    killed = killer.run(step, lambda: tenant_node.evict(OLLAMA))
    assert killed is (step < 8)
    if again and _active(tenant_node)[NAME] == "active":
        assert tenant_node.evict(OLLAMA, "second").outcome == "evicted"
    tenant_node.restore()
    assert _active(tenant_node) == {NAME: "active", "ollama.socket": "active"}
    assert _drop_ins(tenant_node) == []
    assert not {"intended", "stopped"} & set(tenant_node.states())


@pytest.mark.parametrize("step", range(5))
def test_a_restore_that_is_killed_is_finished_by_the_next(tenant_node: TenantNode, killer: Killer, step: int) -> None:
    tenant_node.has(units=_socket_activated())
    tenant_node.evict(OLLAMA)
    assert killer.run(step, tenant_node.restore)
    tenant_node.restore()
    assert _active(tenant_node) == {NAME: "active", "ollama.socket": "active"}
    assert _drop_ins(tenant_node) == []


def test_a_users_unit_is_kept_down_by_root_and_reached_as_the_user(tenant_node: TenantNode) -> None:
    tenant_node.has(units={"lmstudio.service": unit()})
    tenant = unit_tenant("lmstudio.service", user="ada")
    assert tenant_node.evict(tenant).outcome == "evicted"
    path = tenant_node.home / "etc-user/lmstudio.service.d/zz-dspark-evicted-1000.conf"
    assert "ConditionUser=!ada" in path.read_text()
    assert set((tenant_node.home / "users").read_text().split()) == {"ada"}
    tenant_node.restore()
    assert _active(tenant_node) == {"lmstudio.service": "active"}
    assert not path.exists()


def test_a_users_unit_without_its_manager_stays_owed(tenant_node: TenantNode) -> None:
    tenant_node.has(units={"lmstudio.service": unit()})
    tenant_node.evict(unit_tenant("lmstudio.service", user="ada"))
    tenant_node.has(**{**tenant_node.state, "no_user_manager": True})
    results = tenant_node.restore()
    assert results[0].outcome == "left"
    assert "log in as ada" in results[0].sentence
    assert tenant_node.states() == ["stopped"]


def test_a_drop_in_folder_of_somebody_else_stays(tenant_node: TenantNode) -> None:
    folder = tenant_node.home / f"etc-system/{NAME}.d"
    folder.mkdir(parents=True)
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    tenant_node.restore()
    assert folder.is_dir()


def test_a_transient_unit_is_defined_again_from_its_own_file(tenant_node: TenantNode, tmp_path: Path) -> None:
    fragment = tmp_path / "run/systemd/transient/try.service"
    fragment.parent.mkdir(parents=True)
    fragment.write_text("[Service]\nExecStart=/bin/x\n")
    tenant_node.has(units={"try.service": unit(enabled="transient", fragment=str(fragment))})
    assert tenant_node.evict(unit_tenant("try.service", fragment=str(fragment))).outcome == "evicted"
    assert not fragment.exists()
    assert [result.outcome for result in tenant_node.restore()] == ["restored"]
    assert fragment.read_text() == "[Service]\nExecStart=/bin/x\n"
    assert _active(tenant_node) == {"try.service": "active"}


@pytest.mark.parametrize(
    ("tenant", "outcome", "said"),
    [
        (unit_tenant(NAME, fragment="/usr/lib/x.service"), "changed", "[tenant.changed]"),
        (unit_tenant("run-7.scope", fragment=None), "refused", "[tenant.not_restorable]"),
        (unit_tenant("idle.service", fragment=None), "gone", "not active any more"),
    ],
)
def test_what_is_not_evicted_is_not_touched(
    tenant_node: TenantNode, tenant: dict[str, Any], outcome: str, said: str
) -> None:
    tenant_node.has(units={NAME: unit(), "run-7.scope": unit(), "idle.service": unit("inactive")})
    result = tenant_node.evict(tenant)
    assert result.outcome == outcome
    assert said in result.sentence
    assert tenant_node.changing_calls() == []
    assert tenant_node.states() == []


def test_a_unit_that_does_not_end_is_killed_by_consent_only(tenant_node: TenantNode) -> None:
    tenant_node.has(units={NAME: {**unit(), "stubborn": True}})
    result = tenant_node.evict(OLLAMA, timeout_s=0.3)
    assert (result.outcome, result.failed) == ("still-runs", True)
    assert "--kill" in result.sentence
    assert not any(" kill " in call for call in tenant_node.changing_calls())
    assert tenant_node.evict(OLLAMA, "second", timeout_s=0.3, kill=True).outcome == "evicted"


def test_a_removed_unit_is_left(tenant_node: TenantNode) -> None:
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    tenant_node.has(units={})
    results = tenant_node.restore()
    assert results[0].outcome == "left"
    assert "[tenant.removed]" in results[0].sentence
    assert tenant_node.states() == ["stopped"]


def test_enablement_that_somebody_changed_is_told_and_left(tenant_node: TenantNode) -> None:
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    state = tenant_node.state
    state["units"][NAME]["enabled"] = "disabled"
    tenant_node.has(**state)
    results = tenant_node.restore()
    assert results[0].outcome == "restored"
    assert "is disabled now and was enabled" in results[0].sentence


def test_a_desktop_goes_with_its_display_manager(tenant_node: TenantNode) -> None:
    tenant_node.has(units={"gdm.service": unit()})
    tenant = {**unit_tenant("gdm.service"), "key": "desktop:ada", "kind": "desktop"}
    assert tenant_node.evict(tenant).outcome == "evicted"
    tenant_node.restore()
    assert _active(tenant_node) == {"gdm.service": "active"}
