"""Whatever the logs hold and in whatever order it arrives: one answer, no traceback, and a document by its schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspark_ops.doctor.incident.gather import case_of, case_of_folder
from dspark_ops.doctor.incident.judge import judge
from dspark_ops.doctor.incident.model import IncidentReport, incident_schema, render_schema
from dspark_ops.doctor.incident.report import render, report_on
from dspark_ops.facts.log_signatures import load_signatures
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.doctor.incident.stories import LINES, ZERO, Told, case

ROOT = Path(__file__).parents[4]
_NAMES = {
    log: [s.id for s in load_signatures().values() if s.where in where and s.pattern]
    for log, where in (("engine", ("engine", "nccl")), ("kernel", ("kernel",)), ("journal", ("journal",)))
}


def lines_of(log: str) -> st.SearchStrategy[list[tuple[float, str]]]:
    moments = st.floats(-3000, 3000, allow_nan=False)
    return st.lists(st.tuples(moments, st.sampled_from(_NAMES[log])), max_size=6)


TOLD = st.builds(
    Told,
    engine=lines_of("engine"),
    kernel=lines_of("kernel"),
    journal=lines_of("journal"),
    end=st.none() | st.tuples(st.floats(-50, 3000), st.sampled_from([0, 1, 137, 143]), st.booleans(), st.booleans()),
    clock_s=st.sampled_from([0.0, 40.0, -3600.0]),
    uncertainty_s=st.none() | st.floats(0, 2),
    unread=st.lists(st.sampled_from(["engine", "kernel", "journal"]), max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(head=TOLD, worker=TOLD, data=st.data())
def test_the_order_of_the_lines_does_not_matter(head: Told, worker: Told, data: st.DataObject) -> None:
    whole = case(head, worker)
    shuffled = whole.model_copy(update={"events": tuple(data.draw(st.permutations(whole.events)))})
    assert judge(shuffled) == judge(whole)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(head=TOLD, worker=TOLD)
def test_every_report_obeys_its_schema_and_its_own_rules(head: Told, worker: Told) -> None:
    report = report_on(case(head, worker), None, taken_at=ZERO)
    jsonschema.validate(json.loads(report.to_json()), incident_schema())
    assert IncidentReport.model_validate_json(report.to_json()) == report
    assert (report.cause is not None) is (report.verdict == "cause")
    assert report.exit_code == {"cause": 1, "not-known": 3, "nothing": 0, "indeterminate": 3}[report.verdict]
    if report.cause is not None:
        known = load_signatures()[report.cause.signature]
        assert known.kind == "root"
        assert known.confidence != "low"
    assert render(report).splitlines()[-1] == report.message


def test_the_published_schema_is_current() -> None:
    assert (ROOT / "checks/incident.schema.json").read_text(encoding="utf-8") == render_schema()
    jsonschema.Draft202012Validator.check_schema(incident_schema())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.binary(max_size=400),
    worker=st.text(max_size=400),
    line=st.sampled_from(sorted(LINES.values())),
    at=st.integers(0, 400),
)
def test_rubbish_cut_lines_and_other_tongues_do_no_harm(
    tmp_path: Path, head: bytes, worker: str, line: str, at: int
) -> None:
    dated = f"2026-11-23T20:00:00.000000000Z {line}\r\n2026-13-45T99:99:99.1Z {line}\n23. Nov 20:00 {line}\n".encode()
    (tmp_path / "head.log").write_bytes(head + b"\n" + dated + dated[:at])
    (tmp_path / "worker.log").write_text(worker + line[:at], encoding="utf-8", errors="replace")
    (tmp_path / "worker.kernel.log").write_bytes(head + line.encode()[:at])
    report = report_on(case_of_folder(tmp_path), None, taken_at=ZERO)
    assert all(c.isprintable() or c == "\n" for c in render(report))


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"marks": 5}',
        '{"marks": {"xid": 3}, "bytes": 1, "cut": null}',
        '{"marks": {}, "bytes": "x"}',
        '{"marks": {"no_such": {"count": 1, "first": ["x"], "last": []}}, "bytes": 1, "cut": null}',
        "[" * 5000,
    ],
)
def test_an_answer_that_is_no_document_is_a_log_that_was_not_read(stdout: str) -> None:
    results = {name: ProbeResult(id=name, rc=0, stdout=stdout) for name in ("incident.engine", "incident.kernel")}
    readings = {role: NodeReading(node=role, reachable=True, results=results) for role in ("head", "worker")}
    report = report_on(case_of({"head": readings["head"], "worker": readings["worker"]}), None, taken_at=ZERO)
    assert report.verdict == "indeterminate"


def test_lines_without_a_time_are_kept_and_told_to_be_unsure(tmp_path: Path) -> None:
    (tmp_path / "head.log").write_text(LINES["port_in_use"] + "\n")
    (tmp_path / "worker.log").write_text("nothing\n")
    report = report_on(case_of_folder(tmp_path), None, taken_at=ZERO)
    assert report.cause is not None
    assert report.cause.check == "boot.port_free"
    assert "its line has no time" in " ".join(report.cause.because)
