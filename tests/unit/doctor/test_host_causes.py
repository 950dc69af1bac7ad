"""One cause on a host, its GPU or beside the pair is one root; everything else that is bad follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.doctor.engine import run_checks
from tests.unit.doctor.pair_fixture import load_case_site, pair_facts

H = "head"
NO_GPU = [[[H, "gpu"], None], [[H, "gpu_state"], None]]
NO_ENGINE = [
    [[H, "docker"], {"answers": False, "error": "Cannot connect to the Docker daemon"}],
    [[H, "rank"], None],
    [[H, "rank_known"], False],
    [[H, "images"], None],
    [[H, "containers"], None],
    [[H, "docker_settings"], None],
    [[H, "rank_settings"], None],
]
STORIES: dict[str, tuple[str, list[Any]]] = {
    "the Engine was stopped": (
        "host.docker_engine",
        [*NO_ENGINE, [[H, "units", "docker.service", "active"], "inactive"]],
    ),
    "the Engine has failed": ("host.docker_engine", [*NO_ENGINE, [[H, "units", "docker.service", "active"], "failed"]]),
    "sudo asks for a password": (
        "host.sudo",
        [
            [[H, "sudo"], False],
            [[H, "kernel_events"], None],
            [[H, "kernel", "previous_end"], None],
            [[H, "sshd"], None],
            [[H, "evictions"], None],
            [[H, "container_logs"], None],
        ],
    ),
    "an engine has lost its server": (
        "tenant.orphan_engine",
        [
            [[H, "noted", "+"], {"pid": 900, "kind": "engine", "what": "VLLM::EngineCore", "orphan": True}],
            [[H, "gpu", "processes", "+"], {"pid": 900, "name": "VLLM::EngineCore", "used_mib": 104277}],
        ],
    ),
    "another server holds the GPU and is open to the network": (
        "tenant.gpu_process",
        [
            [[H, "noted", "+"], {"pid": 900, "kind": "server", "what": "llama.cpp"}],
            [[H, "gpu", "processes", "+"], {"pid": 900, "name": "llama-server", "used_mib": 104448}],
            [[H, "units", "+"], {"name": "llama-server.service", "active": "active", "enablement": "enabled"}],
            [[H, "listeners", "+"], {"address": "0.0.0.0", "port": 30000, "process": "llama-server", "pid": 900}],
        ],
    ),
    "the driver was upgraded without a reboot": (
        "gpu.module_current",
        [
            [[H, "packages", 4, "version"], "580.173.02-0ubuntu0.24.04.1"],
            [[H, "packages", 5, "version"], "580.173.02-0ubuntu0.24.04.1"],
            *NO_GPU,
        ],
    ),
    "the GPU fell off the bus": ("gpu.xid", [[[H, "kernel_events", "xids"], [79]], *NO_GPU]),
    "the kernel miscounts its memory": (
        "host.kernel_option",
        [[[H, "system", "kernel"], "7.0.0-1019-nvidia"], [[H, "memory", "cma_total_kib"], 0]],
    ),
    "the time service has failed": (
        "host.time_sync",
        [[[H, "units", "systemd-timesyncd.service", "active"], "failed"]],
    ),
    "a busy GPU is stuck at a low clock": (
        "gpu.clock_wedge",
        [[[H, "gpu_state", "sm_mhz"], 650], [[H, "gpu_state", "power_w"], 15.8]],
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_one_cause_is_one_root(story: str) -> None:
    root, changes = STORIES[story]
    report = run_checks(pair_facts({"set": changes}), load_case_site(), active=True)
    bad = [f for f in report.findings if f.status in ("fail", "warn", "unknown")]
    assert {f.id for f in bad if f.caused_by is None} == {root}
    assert {f.node for f in bad if f.id == root} == {H}
    assert {f.caused_by for f in bad} <= {None, root}
