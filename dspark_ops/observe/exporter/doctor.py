"""The doctor's last result, from its file for the textfile collector, where that is on this node."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dspark_ops.observe.exporter.families import Families
from dspark_ops.observe.exporter.polling import SourceError
from dspark_ops.observe.exporter.tree import Tree

_FAIL = 2.0


def export_doctor(tree: Tree, path: str, into: Families) -> None:
    """Counts by status, and each check that fails and is not ignored.

    Raises:
        SourceError: the file is not there, or is not what the doctor writes.
    """
    text = tree.text(path)
    if text is None:
        raise SourceError(f"{path} is not there: the doctor's timer has not run, or runs on another machine")
    try:
        samples = [sample for family in text_string_to_metric_families(text + "\n") for sample in family.samples]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        raise SourceError(f"{path} is not the text format of Prometheus") from None
    if not any(sample.name == "dspark_doctor_run_timestamp_seconds" for sample in samples):
        raise SourceError(f"{path} is not what the doctor writes")
    ignored = {
        (sample.labels.get("id"), sample.labels.get("node"))
        for sample in samples
        if sample.name == "dspark_doctor_check_ignored" and sample.value
    }
    for sample in samples:
        label = sample.labels
        if sample.name == "dspark_doctor_run_timestamp_seconds":
            into.add("dspark_doctor_last_run_timestamp_seconds", sample.value)
        elif sample.name == "dspark_doctor_results":
            into.add("dspark_doctor_last_results", sample.value, status=label.get("status", ""))
        elif sample.name != "dspark_doctor_check" or (label.get("id"), label.get("node")) in ignored:
            continue
        elif sample.value == _FAIL:
            told = {name: label.get(name, "") for name in ("id", "node", "severity")}
            into.add("dspark_doctor_last_failing", 1, **told)
