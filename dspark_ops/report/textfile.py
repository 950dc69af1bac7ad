"""A report as a file for the textfile collector of Prometheus' node exporter. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from dspark_ops.report.models import STATUSES, Report, Status, Verdict, counts

# The rights of the file: the exporter runs as a user of its own.
MODE = 0o644

VALUES: dict[Status, int] = {"ok": 0, "warn": 1, "fail": 2, "unknown": 3, "skip": 4}
VERDICTS: tuple[Verdict, ...] = ("ready", "slow", "blocked", "indeterminate")


class _Snapshot:
    """One report in the shape that the client library collects."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def collect(self) -> Iterator[Metric]:
        return _families(self.report)


def render_textfile(report: Report) -> str:
    """The text format 0.0.4, one series a check and node; the same report gives the same text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(report))
    return generate_latest(registry).decode("utf-8")


def _families(report: Report) -> Iterator[Metric]:
    site = report.site or ""
    told = ", ".join(f"{value} {status}" for status, value in VALUES.items())
    checks = GaugeMetricFamily(
        "dspark_doctor_check", f"Result of a check: {told}.", labels=("site", "id", "node", "severity")
    )
    ignored = GaugeMetricFamily(
        "dspark_doctor_check_ignored", "1 for a check that the operator ignores.", labels=("site", "id", "node")
    )
    for finding in report.findings:
        checks.add_metric((site, finding.id, finding.node, finding.severity), VALUES[finding.status])
        if finding.ignored:
            ignored.add_metric((site, finding.id, finding.node), 1)
    yield checks
    yield ignored
    results = GaugeMetricFamily("dspark_doctor_results", "How many results have a status.", labels=("site", "status"))
    totals = counts(report.findings)
    for status in STATUSES:
        results.add_metric((site, status), totals[status])
    yield results
    verdict = GaugeMetricFamily("dspark_doctor_verdict", "1 for the verdict of the run.", labels=("site", "verdict"))
    for known in VERDICTS:
        verdict.add_metric((site, known), known == report.verdict)
    yield verdict
    reached = GaugeMetricFamily(
        "dspark_doctor_node_reached", "1 for a node that was read.", labels=("site", "node", "host")
    )
    for node in report.nodes:
        reached.add_metric((site, node.role, node.host), node.reachable)
    yield reached
    yield _single("dspark_doctor_exit_code", "Exit code of the run.", site, report.exit_code)
    yield _single("dspark_doctor_run_timestamp_seconds", "When the run ended.", site, report.finished_at.timestamp())
    yield _single("dspark_doctor_duration_seconds", "How long the run took.", site, report.elapsed_s)
    about = InfoMetricFamily("dspark_doctor", "The tool that ran.", labels=("site",))
    about.add_metric((site,), {"version": report.tool_version})
    yield about


def _single(name: str, text: str, site: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("site",))
    family.add_metric((site,), value)
    return family
