"""What is not owed any more: our own changes are taken back, nobody is started, the record is kept with the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import dspark_tenant_containers as containers
from ansible.module_utils import dspark_tenant_processes as bare
from ansible.module_utils import dspark_tenant_records as records
from ansible.module_utils import dspark_tenant_transactions as transactions
from ansible.module_utils import dspark_tenant_units as units
from ansible.module_utils.dspark_tenant_forgetting import forget_named
from ansible.module_utils.dspark_tenant_rules import TenantError

from tests.unit.roles.conftest import Call
from tests.unit.roles.tenant_node import Killer, TenantNode, box, container_tenant, prepare, unit, unit_tenant

ONE = container_tenant(("a1", "comfyui"))
STUDIO = container_tenant(("w1", "web"), ("d1", "db"), ("q1", "queue"), key="compose:studio")
NAME = "ollama.service"
OLLAMA = unit_tenant(NAME)


@pytest.fixture
def tenant_node(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    return prepare(tmp_path, on_path, monkeypatch)


@pytest.fixture
def killer(tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


def forget(node: TenantNode, *names: str, **more: Any) -> list[transactions.Result]:
    return forget_named(list(names or ("run-1.json",)), node.limits(**more))


def kept(node: TenantNode, name: str = "run-1.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((node.records / name).read_text())
    return found


def policies(node: TenantNode) -> dict[str, tuple[str, str, int]]:
    return {
        found["Id"]: (
            found["State"]["Status"],
            found["HostConfig"]["RestartPolicy"]["Name"],
            found["HostConfig"]["RestartPolicy"]["MaximumRetryCount"],
        )
        for found in node.state["containers"]
    }


def remove(node: TenantNode, *gone: str) -> None:
    state = node.state
    state["containers"] = [found for found in state["containers"] if found["Id"] not in gone]
    node.has(**state)


def drop_ins(node: TenantNode) -> list[Path]:
    return sorted(node.home.glob("etc-*/**/*.conf"))


def test_a_removed_container_is_the_case_it_is_for(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    remove(tenant_node, "a1")
    (left,) = tenant_node.restore()
    assert (left.outcome, "`dspark-ops tenants forget KEY`" in left.sentence) == ("left", True)
    before = kept(tenant_node)
    (result,) = forget(tenant_node)
    assert (result.outcome, result.changed, result.failed) == ("forgotten", True, False)
    assert result.sentence == "container comfyui was removed, so nothing of ours is on it"
    assert tenant_node.changing_calls() == []
    after = kept(tenant_node)
    assert datetime.fromisoformat(after.pop("forgotten_at")).tzinfo is not None
    # The rest of the record is kept whole.
    assert after == before | {"state": "forgotten", "taken_back": []}
    assert tenant_node.restore() == []
    assert forget(tenant_node) == []


@pytest.mark.parametrize(("policy", "later"), [("unless-stopped", ""), ("always", ", which Docker starts when the ")])
def test_a_container_that_is_there_gets_its_policy_back_and_is_not_started(
    tenant_node: TenantNode, policy: str, later: str
) -> None:
    tenant_node.has(containers=[box("a1", "comfyui", policy=policy)])
    tenant_node.evict(ONE)
    calls = tenant_node.changing_calls()
    (result,) = forget(tenant_node)
    assert tenant_node.changing_calls()[len(calls) :] == [f"docker update --restart={policy} a1"]
    assert policies(tenant_node) == {"a1": ("exited", policy, 0)}
    told, _, rest = result.sentence.partition(f"restart policy {policy}")
    assert told == "container comfyui is exited and was not started; "
    assert rest.startswith(later) if later else rest == ""
    assert kept(tenant_node)["taken_back"] == ["policy a1"]


def test_of_a_project_what_is_left_gets_its_policy_back(tenant_node: TenantNode) -> None:
    tenant_node.has(
        containers=[
            box("w1", "web", policy="always"),
            box("d1", "db", policy="on-failure", retries=3),
            box("q1", "queue", policy="no"),
        ]
    )
    tenant_node.evict(STUDIO)
    remove(tenant_node, "w1")
    calls = len(tenant_node.changing_calls())
    (result,) = forget(tenant_node)
    assert tenant_node.changing_calls()[calls:] == ["docker update --restart=on-failure:3 d1"]
    assert policies(tenant_node) == {"d1": ("exited", "on-failure", 3), "q1": ("exited", "no", 0)}
    assert "container web was removed" in result.sentence
    assert "container db is exited and was not started; restart policy on-failure:3" in result.sentence


def test_a_policy_that_somebody_changed_meanwhile_is_left(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    state = tenant_node.state
    state["containers"][0]["HostConfig"]["RestartPolicy"]["Name"] = "always"
    tenant_node.has(**state)
    forget(tenant_node)
    assert policies(tenant_node)["a1"] == ("exited", "always", 0)
    assert tenant_node.changing_calls() == []


def test_a_silent_engine_leaves_it_owed(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    tenant_node.has(**{**tenant_node.state, "down": True})
    (result,) = forget(tenant_node)
    assert (result.outcome, result.changed) == ("left", False)
    assert "[host.docker_down]" in result.sentence
    assert tenant_node.states() == ["stopped"]


def test_a_policy_that_does_not_come_back_is_said_and_leaves_it_owed(
    tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    monkeypatch.setattr(containers, "must", lambda *_words, **_more: "")
    (result,) = forget(tenant_node)
    assert (result.outcome, result.sentence) == ("left", "policy a1 did not take effect [tenant.owner]")
    assert result.after == "container comfyui: exited, restart no\nrecord: stopped\n"
    assert tenant_node.states() == ["stopped"]


def socket_activated() -> dict[str, Any]:
    return {NAME: unit(TriggeredBy="ollama.socket"), "ollama.socket": unit(fragment="/etc/ollama.socket")}


def test_a_unit_may_start_again_and_is_not_started(tenant_node: TenantNode) -> None:
    tenant_node.has(units=socket_activated())
    tenant_node.evict(OLLAMA)
    calls = len(tenant_node.changing_calls())
    assert len(drop_ins(tenant_node)) == 2
    (result,) = forget(tenant_node)
    assert result.outcome == "forgotten"
    assert drop_ins(tenant_node) == []
    assert not any((tenant_node.home / "etc-system").iterdir())
    assert tenant_node.changing_calls()[calls:] == ["systemctl daemon-reload"]
    assert {found["show"]["ActiveState"] for found in tenant_node.state["units"].values()} == {"inactive"}
    said = f"{NAME}: inactive; it may start again and was not started; its enablement (enabled) was never touched"
    assert result.sentence.startswith(said)
    assert kept(tenant_node)["taken_back"] == [f"allow {NAME}", "allow ollama.socket"]


def test_a_folder_of_somebody_else_stays(tenant_node: TenantNode) -> None:
    other = tenant_node.home / f"etc-system/{NAME}.d/override.conf"
    other.parent.mkdir(parents=True)
    other.write_text("[Service]\n")
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    forget(tenant_node)
    assert drop_ins(tenant_node) == [other]


def test_a_unit_whose_file_was_removed_is_let_go(tenant_node: TenantNode) -> None:
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    tenant_node.has(units={})
    assert "`dspark-ops tenants forget KEY`" in tenant_node.restore()[0].sentence
    assert [result.outcome for result in forget(tenant_node)] == ["forgotten"]
    assert drop_ins(tenant_node) == []


def test_a_users_unit_is_let_go_without_its_manager(tenant_node: TenantNode) -> None:
    tenant_node.has(units={"lmstudio.service": unit()})
    tenant_node.evict(unit_tenant("lmstudio.service", user="ada"))
    tenant_node.has(**{**tenant_node.state, "no_user_manager": True})
    (result,) = forget(tenant_node)
    assert (result.outcome, drop_ins(tenant_node), tenant_node.changing_calls()) == ("forgotten", [], [])
    assert result.before == ("lmstudio.service: its manager does not run, kept from starting\nrecord: stopped\n")
    assert result.after == "lmstudio.service: its manager does not run, may start\nrecord: forgotten\n"


def test_a_unit_that_an_interrupted_eviction_left_running_is_freed(tenant_node: TenantNode, killer: Killer) -> None:
    tenant_node.has(units={NAME: unit()})
    # The record and the drop-in are written, and nothing else.
    assert killer.run(2, lambda: tenant_node.evict(OLLAMA))
    assert (tenant_node.states(), len(drop_ins(tenant_node))) == (["intended"], 1)
    forget(tenant_node)
    assert (tenant_node.states(), drop_ins(tenant_node)) == (["forgotten"], [])
    assert tenant_node.state["units"][NAME]["show"]["ActiveState"] == "active"


@pytest.mark.parametrize("step", range(5))
def test_one_that_is_killed_is_finished_by_the_next(tenant_node: TenantNode, killer: Killer, step: int) -> None:
    tenant_node.has(units=socket_activated())
    tenant_node.evict(OLLAMA)
    killed = killer.run(step, lambda: forget(tenant_node))
    assert killed is (step < 4), "the number of steps has changed: mend the range"
    calls = len(tenant_node.changing_calls())
    forget(tenant_node)
    assert (tenant_node.states(), drop_ins(tenant_node)) == (["forgotten"], [])
    # systemd is told also of drop-ins that the killed run has removed.
    assert ("systemctl daemon-reload" in tenant_node.changing_calls()[calls:]) is killed


@pytest.mark.parametrize("step", range(3))
def test_a_container_whose_forgetting_is_killed_too(tenant_node: TenantNode, killer: Killer, step: int) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    assert killer.run(step, lambda: forget(tenant_node)) is (step < 2)
    forget(tenant_node)
    assert tenant_node.states() == ["forgotten"]
    assert policies(tenant_node) == {"a1": ("exited", "unless-stopped", 0)}


@pytest.mark.parametrize(
    ("kind", "pid", "how"),
    [
        ("process", None, "it was not started; its command stays in the record"),
        ("process", 4711, "it runs as pid 4711"),
        ("orphan", None, "it was not started; its command stays in the record"),
    ],
)
def test_a_process_loses_its_environment_and_nothing_else(
    tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch, kind: str, pid: int | None, how: str
) -> None:
    monkeypatch.setattr(bare, "again", lambda _recorded: pid)
    recorded = {"pid": 2**30, "start_ticks": 1, "shown": [2**30, 1], "argv": ["nobody", "runs", "this"], "uid": 0}
    record = {
        "schema": records.SCHEMA,
        "run": "run",
        "n": 1,
        "key": f"{kind}:nobody/1",
        "kind": kind,
        "what": "nobody",
        "state": "stopped",
        "intended_at": records.stamp(),
        "recorded": {**recorded, "cwd": "/", "twins": []},
        "path": str(tenant_node.records / "run-1.json"),
    }
    records.store_environment(record, {"TOKEN": "planted"})
    records.store(record)
    (result,) = forget(tenant_node)
    assert result.outcome == "forgotten"
    assert result.sentence == f"{how}, nothing of ours was left behind"
    assert [path.name for path in tenant_node.records.glob("*.json")] == ["run-1.json"]
    assert kept(tenant_node)["recorded"]["argv"] == ["nobody", "runs", "this"]


@pytest.mark.parametrize("tenant", [ONE, OLLAMA], ids=["container", "unit"])
def test_check_mode_foretells_and_writes_nothing(tenant_node: TenantNode, tenant: dict[str, Any]) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")], units={NAME: unit()})
    tenant_node.evict(tenant)
    calls, files, record = tenant_node.changing_calls(), drop_ins(tenant_node), kept(tenant_node)
    (foretold,) = forget(tenant_node, check=True)
    assert (foretold.outcome, foretold.changed) == ("forgotten", True)
    assert (tenant_node.changing_calls(), drop_ins(tenant_node), kept(tenant_node)) == (calls, files, record)
    (done,) = forget(tenant_node)
    assert (foretold.before, foretold.after) == (done.before, done.after)
    assert foretold.before.endswith("record: stopped\n")
    assert foretold.before != foretold.after


def test_only_the_records_that_were_shown_are_forgotten(tenant_node: TenantNode, call: Call) -> None:
    def module(*names: str, check: bool = False) -> dict[str, Any]:
        return call("dspark_tenants", check=check, state="forget", records=list(names), folder=str(tenant_node.records))

    tenant_node.has(containers=[box("a1", "comfyui"), box("b2", "comfyui2")])
    tenant_node.evict(ONE, "r1")
    tenant_node.evict(container_tenant(("b2", "comfyui2"), key="container:comfyui2"), "r2")
    # Of the same key, so that only the name of the record tells them apart.
    (tenant_node.records / "r2-1.json").write_text(json.dumps(kept(tenant_node, "r2-1.json") | {"key": ONE["key"]}))
    assert tenant_node.states() == ["stopped", "stopped"]
    # Nobody named is nobody meant.
    assert (module()["changed"], module("r9-1.json")["changed"]) == (False, False)
    assert module("r1-1.json", check=True)["changed"]
    assert tenant_node.states() == ["stopped", "stopped"]
    done = module("r1-1.json")
    assert (done["changed"], done["dspark_summary"]["what"]) == (True, "container:comfyui forgotten")
    assert tenant_node.states() == ["forgotten", "stopped"]
    assert policies(tenant_node)["b2"] == ("exited", "no", 0)
    again = module("r1-1.json")
    assert (again["changed"], again["tenants"]) == (False, [])


def test_a_forgotten_record_is_pruned_as_the_other_settled_ones(
    tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    forget(tenant_node)
    records.prune(tenant_node.records)
    assert tenant_node.states() == ["forgotten"]
    state = tenant_node.state
    state["containers"][0]["State"]["Status"] = "running"
    tenant_node.has(**state)
    tenant_node.evict(ONE, "later")
    forget(tenant_node, "later-1.json")
    monkeypatch.setattr(records, "KEEP", 1)
    records.prune(tenant_node.records)
    assert [path.name for path in tenant_node.records.glob("*.json")] == ["later-1.json"]


def test_one_that_was_forgotten_may_be_evicted_anew(tenant_node: TenantNode) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    tenant_node.evict(ONE)
    forget(tenant_node)
    state = tenant_node.state
    state["containers"][0]["State"]["Status"] = "running"
    tenant_node.has(**state)
    assert tenant_node.evict(ONE, "second").outcome == "evicted"
    assert tenant_node.states() == ["forgotten", "stopped"]
    assert [result.outcome for result in tenant_node.restore()] == ["restored"]
    assert policies(tenant_node) == {"a1": ("running", "unless-stopped", 0)}


@pytest.mark.parametrize("there", [True, False])
def test_a_manager_that_does_not_reload_leaves_it_owed(
    tenant_node: TenantNode, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    tenant_node.has(units={NAME: unit()})
    tenant_node.evict(OLLAMA)
    if not there:
        drop_ins(tenant_node)[0].unlink()
    real = units.must

    def must(*words: str, **more: Any) -> str:
        if "daemon-reload" in words:
            raise TenantError("failed", "systemctl daemon-reload failed: no bus [tenant.owner]")
        return real(*words, **more)

    monkeypatch.setattr(units, "must", must)
    (result,) = forget(tenant_node)
    # The drop-in that was removed is a change, also of a run that ends badly.
    assert (result.outcome, result.changed, "no bus" in result.sentence) == ("left", there, True)
    assert tenant_node.states() == ["stopped"]
