"""Verdicts: what blocks, slows, is a risk, is unknown, was ignored; and what --strict makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from dspark_ops.report.models import Finding, NodeReport, judge
from tests.unit.report.test_report import NODES, found

LOST = (NODES[0], NodeReport(role="worker", host="node-b", reachable=False, error="x"))
OK = found("ok")
SLOW = found("fail", effect="slows")
SLOW_ADVISED = found("warn", effect="slows", severity="advised")
RISK = found("warn", effect="risks", severity="advised")
BLOCK = found("fail", effect="blocks")
UNKNOWN = found("unknown")
UNKNOWN_ADVISED = found("unknown", severity="advised")


def but_ignored(finding: Finding) -> Finding:
    return finding.model_copy(update={"ignored": True})


@pytest.mark.parametrize(
    ("findings", "nodes", "plain", "strict"),
    [
        ([OK], NODES, ("ready", 0), ("ready", 0)),
        ([OK, RISK], NODES, ("ready", 0), ("blocked", 1)),
        ([OK, SLOW], NODES, ("slow", 0), ("slow", 1)),
        ([SLOW], NODES, ("slow", 0), ("slow", 1)),
        ([SLOW_ADVISED], NODES, ("slow", 0), ("slow", 1)),
        ([SLOW, RISK], NODES, ("slow", 0), ("blocked", 1)),
        ([SLOW, BLOCK], NODES, ("blocked", 1), ("blocked", 1)),
        ([OK, found("fail")], NODES, ("blocked", 1), ("blocked", 1)),
        ([OK, found("fail", effect="risks")], NODES, ("blocked", 1), ("blocked", 1)),
        ([OK, UNKNOWN], NODES, ("indeterminate", 3), ("indeterminate", 3)),
        ([SLOW, UNKNOWN], NODES, ("indeterminate", 3), ("indeterminate", 3)),
        ([BLOCK, UNKNOWN], NODES, ("blocked", 1), ("blocked", 1)),
        ([OK, UNKNOWN_ADVISED], NODES, ("ready", 0), ("indeterminate", 3)),
        ([SLOW, UNKNOWN_ADVISED], NODES, ("slow", 0), ("indeterminate", 3)),
        ([UNKNOWN_ADVISED], NODES, ("indeterminate", 3), ("indeterminate", 3)),
        ([RISK, UNKNOWN_ADVISED], NODES, ("ready", 0), ("blocked", 1)),
        ([found("skip")], NODES, ("indeterminate", 3), ("indeterminate", 3)),
        ([OK, but_ignored(BLOCK)], NODES, ("ready", 0), ("ready", 0)),
        ([OK, but_ignored(UNKNOWN)], NODES, ("ready", 0), ("ready", 0)),
        ([OK, but_ignored(SLOW)], NODES, ("ready", 0), ("ready", 0)),
        ([BLOCK, but_ignored(BLOCK)], NODES, ("blocked", 1), ("blocked", 1)),
        ([but_ignored(OK)], NODES, ("indeterminate", 3), ("indeterminate", 3)),
        ([OK, BLOCK], LOST, ("indeterminate", 3), ("indeterminate", 3)),
        ([OK, but_ignored(BLOCK)], LOST, ("indeterminate", 3), ("indeterminate", 3)),
        ([OK], (), ("ready", 0), ("ready", 0)),
    ],
)
def test_verdict_and_exit_code(findings: list[Finding], nodes: Any, plain: Any, strict: Any) -> None:
    assert judge(findings, nodes) == plain
    assert judge(findings, nodes, strict=True) == strict
