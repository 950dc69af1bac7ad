from __future__ import annotations

from dspark_ops.report.models import Measurement, Report, now
from dspark_ops.report.text import render


def report(*measured: Measurement) -> Report:
    moment = now()
    return Report(
        verb="x",
        started_at=moment,
        finished_at=moment,
        verdict="ready",
        exit_code=0,
        measurements=measured,
        message="done",
    )


def test_numbers_are_a_table_with_a_mark_for_what_was_not_measured() -> None:
    text = render(
        report(
            Measurement(node="head", subject="p0a", what="sent", value=98.0432, unit="Gb/s"),
            Measurement(node="head", subject="p0b", what="sent", value=None, unit="Gb/s", note="p0b: no device"),
            Measurement(node="pair", subject="p0a", what="latency", value=1.5, unit="us"),
        )
    )
    lines = text.splitlines()
    assert lines[0].split() == ["sent", "Gb/s", "latency", "us"]
    assert lines[1].split() == ["head", "p0a", "98.04"]
    assert lines[2].split() == ["head", "p0b", "?"]
    assert lines[3].split() == ["pair", "p0a", "1.5"]
    assert lines[4] == "  p0b: no device"
    assert len({len(line) for line in (lines[0], lines[3])}) == 1, "columns line up"


def test_a_report_without_numbers_has_no_table() -> None:
    assert render(report()) == "ready: done"


def test_numbers_survive_json() -> None:
    whole = report(Measurement(node="head", subject="p0a", what="sent", value=None, unit="Gb/s"))
    assert Report.model_validate_json(whole.to_json()) == whole
