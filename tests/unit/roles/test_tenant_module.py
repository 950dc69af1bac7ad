"""dspark_tenants as Ansible calls it: what it answers, what fails it, and that it ends with the first failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import Call
from tests.unit.roles.tenant_node import TenantNode, box, container_tenant, prepare, unit, unit_tenant

COMFY, OLLAMA = container_tenant(("a1", "comfyui")), unit_tenant("ollama.service")
Module = Callable[..., dict[str, Any]]


@pytest.fixture
def tenant_node(tmp_path: Path, on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> TenantNode:
    return prepare(tmp_path, on_path, monkeypatch)


@pytest.fixture
def module(tenant_node: TenantNode, call: Call) -> Module:
    def run(state: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
        given = {"return_timeout_s": 0, "folder": str(tenant_node.records), **more}
        return call("dspark_tenants", check=check, state=state, **given)

    return run


def test_one_answer_and_one_diff_per_tenant(tenant_node: TenantNode, module: Module) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")], units={"ollama.service": unit()})
    foretold = module("evict", check=True, tenants=[COMFY, OLLAMA], run="r1")
    assert foretold["changed"]
    assert tenant_node.changing_calls() == []
    done = module("evict", tenants=[COMFY, OLLAMA], run="r1")
    assert [(t["key"], t["outcome"], t["freed_kib"]) for t in done["tenants"]] == [
        ("container:comfyui", "evicted", 2 << 20),
        ("unit:ollama.service", "evicted", 2 << 20),
    ]
    assert done["dspark_summary"]["what"] == "container:comfyui evicted, unit:ollama.service evicted"
    assert [(d["before"], d["after"]) for d in foretold["diff"]] == [(d["before"], d["after"]) for d in done["diff"]]
    back = module("restore")
    # The last one that went is the first to come back.
    assert [t["key"] for t in back["tenants"]] == ["unit:ollama.service", "container:comfyui"]
    assert back["changed"]
    assert not module("restore")["changed"]


def test_the_first_failure_ends_it(tenant_node: TenantNode, module: Module) -> None:
    tenant_node.has(containers=[box("b2", "comfyui")], units={"ollama.service": unit()})
    answer = module("evict", tenants=[COMFY, OLLAMA], run="r1")
    assert answer["failed"]
    assert answer["msg"].startswith("container:comfyui: container comfyui is another one now")
    assert tenant_node.changing_calls() == []


def test_only_the_named_run_or_keys_come_back(tenant_node: TenantNode, module: Module) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")], units={"ollama.service": unit()})
    module("evict", tenants=[COMFY], run="r1")
    module("evict", tenants=[OLLAMA], run="r2")
    assert [t["key"] for t in module("restore", run="r2")["tenants"]] == ["unit:ollama.service"]
    assert module("restore", keys=["unit:ollama.service"])["tenants"] == []
    assert [t["key"] for t in module("restore", keys=["container:comfyui"])["tenants"]] == ["container:comfyui"]


def test_a_record_that_is_not_whole_ends_it(tenant_node: TenantNode, module: Module) -> None:
    (tenant_node.records / "r0-1.json").write_text('{"schema": "dspark-ops/tenant/v1", ')
    answer = module("restore")
    assert answer["failed"]
    assert "r0-1.json cannot be read" in answer["msg"]


@pytest.mark.parametrize("run", ["", "../x", "a/b", "a" * 81])
def test_a_run_is_a_name_of_a_file(module: Module, run: str) -> None:
    assert "no name of a file" in module("evict", tenants=[COMFY], run=run)["msg"]


def test_records_are_for_root_alone(tenant_node: TenantNode, module: Module) -> None:
    tenant_node.has(containers=[box("a1", "comfyui")])
    module("evict", tenants=[COMFY], run="r1")
    path = tenant_node.records / "r1-1.json"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert json.loads(path.read_text())["state"] == "stopped"


def test_settled_records_do_not_pile_up(
    tenant_node: TenantNode, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils.dspark_tenant_records.KEEP", 1)
    tenant_node.has(containers=[box("a1", "comfyui")])
    for run in ("r1", "r2", "r3"):
        module("evict", tenants=[COMFY], run=run)
        module("restore")
    assert [path.name for path in tenant_node.records.glob("*.json")] == ["r3-1.json"]
