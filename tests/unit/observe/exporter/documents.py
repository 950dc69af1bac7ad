"""What the services of a head answer: vLLM from its recorded scrape, the others as their own code writes them."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.unit.observe.exporter.trees import FIXTURES

DOCTOR_PATH = "/var/lib/prometheus/node-exporter/dspark_doctor_example.prom"


def vllm(scale: int = 1) -> str:
    """A real scrape of two ranks with a draft; scale multiplies the counters of work, as if more had been done."""
    text = (FIXTURES / "vllm-metrics/half-draft.prom").read_text(encoding="utf-8")
    counters = r"^(vllm:(?:spec_decode_\w+_total|generation_tokens_total|iteration_tokens_total_count)\{[^}]*\}) (\S+)$"
    return re.sub(counters, lambda m: f"{m[1]} {float(m[2]) * scale}", text, flags=re.MULTILINE)


def models(window: int = 1_048_576) -> str:
    """GET /v1/models."""
    return json.dumps({"object": "list", "data": [{"id": "deepseek-v4-flash", "max_model_len": window}]})


def status(*, recovered: bool = False, **changes: Any) -> str:
    """GET /status of the supervisor, shortened; recovered: after an incident that a restart cured."""
    incident = {"id": "i-7", "reason": "rank 1 died", "detect_s": 4.2, "recover_s": 190.0}
    document: dict[str, Any] = {
        "schema": "dspark-ops/supervise/v1",
        "site": "example",
        "wanted": "running",
        "release": "r-0123456789ab",
        "state": "serving",
        "since": 1_795_999_000.4,
        "reason": "the gate passed",
        "epoch": "e-7" if recovered else "e-6",
        "held": False,
        "hold": None,
        "latched": None,
        "route": 200,
        "may_serve": True,
        "waits_for": [],
        "alerts": [],
        "incident": incident if recovered else None,
        "restarts": {"process": 1, "wanted": 1} if recovered else {"wanted": 1},
        "canary": {"verdict": "correct", "ended_s": 4990.0},
        "monotonic_s": 5000.0,
        "state_saved": True,
        "problems": [],
        "at": 1_795_999_999.6,
    }
    return json.dumps({**document, **changes})


def gateway(cloud: int = 2, local: int = 40) -> str:
    """GET /metrics of the gateway's router, as the policy writes it."""
    return f"""\
# TYPE dspark_gateway_answers_total counter
dspark_gateway_answers_total{{backend="cloud",reason="local-failed-503",status="2xx"}} {cloud}
dspark_gateway_answers_total{{backend="cloud",reason="only-cloud-fits",status="2xx"}} 1
dspark_gateway_answers_total{{backend="local",reason="local-first",status="2xx"}} {local}
dspark_gateway_answers_total{{backend="none",reason="context-length-exceeded",status="4xx"}} 1
# TYPE dspark_gateway_cloud_budget_usd gauge
dspark_gateway_cloud_budget_usd{{window="hour"}} 2.000000
dspark_gateway_cloud_budget_usd{{window="day"}} 10.000000
# TYPE dspark_gateway_cloud_spent_usd gauge
dspark_gateway_cloud_spent_usd{{window="hour"}} 0.500000
dspark_gateway_cloud_spent_usd{{window="day"}} 2.500000
# TYPE dspark_gateway_ledger_usable gauge
dspark_gateway_ledger_usable 1
"""


def doctor() -> str:
    """What `dspark-ops doctor --textfile` writes, shortened."""
    return """\
# HELP dspark_doctor_check Result of a check: 0 ok, 1 warn, 2 fail, 3 unknown, 4 skip.
# TYPE dspark_doctor_check gauge
dspark_doctor_check{id="gpu.driver",node="head",severity="required",site="example"} 0.0
dspark_doctor_check{id="fabric.mtu",node="worker",severity="required",site="example"} 2.0
dspark_doctor_check{id="nic.firmware",node="head",severity="advised",site="example"} 2.0
# HELP dspark_doctor_check_ignored 1 for a check that the operator ignores.
# TYPE dspark_doctor_check_ignored gauge
dspark_doctor_check_ignored{id="nic.firmware",node="head",site="example"} 1.0
# HELP dspark_doctor_results How many results have a status.
# TYPE dspark_doctor_results gauge
dspark_doctor_results{site="example",status="ok"} 1.0
dspark_doctor_results{site="example",status="fail"} 2.0
# HELP dspark_doctor_run_timestamp_seconds When the run ended.
# TYPE dspark_doctor_run_timestamp_seconds gauge
dspark_doctor_run_timestamp_seconds{site="example"} 1.7959995e+09
"""
