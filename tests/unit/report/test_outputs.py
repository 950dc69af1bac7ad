"""The files of a report: JUnit XML, one HTML file, metrics; written whole or not at all, whatever a host has said."""

from __future__ import annotations

import stat
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dspark_ops.doctor.outputs import Outputs
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.report.files import write_whole
from dspark_ops.report.html import render_html
from dspark_ops.report.junit import render_junit
from dspark_ops.report.models import Change, Measurement, Phase, Report, now
from dspark_ops.report.textfile import VALUES, render_textfile
from tests.unit.report.test_report import NODES, REMEDY, found, report

NASTY = "<script>alert('&amp;')</script> \"q\" ]]> {{ 7*7 }} \x00\x1b[31m \ud7ff \ufffe \U0001f980 \\ \n | ü"
FINDINGS = (
    found("ok", id="reach.ssh"),
    found("fail", observed=NASTY, expected="9000", remedy=REMEDY, evidence=NASTY),
    found("ok", node="worker"),
    found("unknown", id="host.clock", severity="advised", caused_by="fabric.mtu"),
    found("warn", id="host.swap", severity="advised", effect="risks", remedy=REMEDY),
    found("skip", id="service.health", node="pair", observed="nothing is deployed"),
    found("fail", id="image.present", ignored=True),
    found("ok", id="image.reference", ignored=True),
)


def full(**more: Any) -> Report:
    moment = now()
    fields: dict[str, Any] = {
        "site": 'a "b\\c\n',
        "nodes": NODES,
        "findings": FINDINGS,
        "verdict": "blocked",
        "exit_code": 1,
        "started_at": moment - timedelta(seconds=1.5),
        "finished_at": moment,
        "next_step": "dspark-ops bootstrap --site 'a b.yml'",
        **more,
    }
    return report(**fields)


def parsed(text: str) -> Any:
    return ET.fromstring(text)  # noqa: S314 (our own text)


def cases(text: str) -> dict[str, Any]:
    root = parsed(text)
    (suite,) = root.findall("testsuite")
    return {case.get("name"): case for case in suite.findall("testcase")}


def test_junit_has_one_case_a_check_and_node() -> None:
    text = render_junit(full())
    named = cases(text)
    assert len(named) == len(FINDINGS)
    kinds = {name: [child.tag for child in case] for name, case in named.items()}
    assert kinds == {
        "reach.ssh [head]": [],
        "fabric.mtu [head]": ["failure"],
        "fabric.mtu [worker]": [],
        "host.clock [head]": ["error"],
        "host.swap [head]": ["system-out"],
        "service.health [pair]": ["skipped"],
        "image.present [head]": ["skipped"],
        "image.reference [head]": [],
    }
    root = parsed(text)
    totals = {key: root.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
    assert totals == {"tests": "8", "failures": "1", "errors": "1", "skipped": "2", "time": "1.500"}
    assert totals.items() <= root.find("testsuite").attrib.items()
    assert named["fabric.mtu [worker]"].get("classname") == "fabric.worker"


def test_junit_tells_reason_remedy_and_cause() -> None:
    named = cases(render_junit(full()))
    assert named["service.health [pair]"].find("skipped").get("message") == "nothing is deployed"
    assert named["image.present [head]"].find("skipped").get("message") == "ignored, would be fail: seen"
    failure = named["fabric.mtu [head]"].find("failure")
    assert "expected: 9000" in failure.text
    assert "$ dspark-ops bootstrap --site 'a b.yml'" in failure.text
    assert "<script>alert('&amp;')</script>" in failure.get("message")
    assert "follows from: fabric.mtu" in named["host.clock [head]"].find("error").text
    assert "warning: seen" in named["host.swap [head]"].find("system-out").text


def test_under_strict_a_warning_is_a_failure_in_junit() -> None:
    named = cases(render_junit(full(), strict=True))
    assert named["host.swap [head]"].find("failure") is not None


class Page(HTMLParser):
    """What a browser would find: tags, the attributes that load something, and all text."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.loading: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.loading += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.loading += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(made: Report) -> Page:
    page = Page()
    page.feed(render_html(made))
    page.close()
    assert page.open == []
    return page


def test_html_is_one_file_that_loads_and_runs_nothing() -> None:
    text = render_html(full())
    page = page_of(full())
    assert page.loading == []
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "svg", "form", "base"}
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert 'name="viewport"' in text
    assert "@media print" in text


def test_html_says_all_that_the_report_says() -> None:
    made = full(
        phases=(Phase(name="read <both>", status="done", elapsed_s=1.0),),
        changes=(Change(node="head", what="/etc/x", before="a", diff="-a<b>\n"),),
        measurements=(Measurement(node="head", subject="p0a", what="rate", value=None, unit="Gb/s", note="n<o>te"),),
        left=("the file <x>",),
    )
    page = page_of(made)
    assert NASTY.replace("\x00", "\ufffd").replace("\x1b", "\ufffd") in page.text
    for finding in made.findings:
        assert finding.id in page.text
    for told in ("read <both>", "-a<b>", "n<o>te", "the file <x>", "follows from fabric.mtu", "a b.yml"):
        assert told in page.text
    assert "1 more follow from fabric.mtu: host.clock" in page.text
    assert page.tags["both"] == page.tags["x"] == 0


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_text_of_a_host_breaks_a_file(text: str) -> None:
    made = full(findings=(found("fail", observed=text, evidence=text), found("skip", node="worker", observed=text)))
    cases(render_junit(made))
    page_of(made)
    assert list(text_string_to_metric_families(render_textfile(made.model_copy(update={"site": text}))))


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    read = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(read) == len(samples), "a series is there twice"
    return read


def test_textfile_has_exactly_one_series_a_check_and_node() -> None:
    made = full()
    read = series(render_textfile(made))
    checks = [
        dict(labels) | {"value": value} for (name, labels), value in read.items() if name == "dspark_doctor_check"
    ]
    assert checks == [
        {"site": made.site, "id": f.id, "node": f.node, "severity": f.severity, "value": VALUES[f.status]}
        for f in FINDINGS
    ]
    site = ("site", made.site or "")
    assert read["dspark_doctor_check_ignored", (("id", "image.present"), ("node", "head"), site)] == 1
    assert read["dspark_doctor_verdict", (site, ("verdict", "blocked"))] == 1
    assert read["dspark_doctor_verdict", (site, ("verdict", "ready"))] == 0
    assert read["dspark_doctor_exit_code", (site,)] == 1
    assert read["dspark_doctor_duration_seconds", (site,)] == 1.5
    assert read["dspark_doctor_run_timestamp_seconds", (site,)] == made.finished_at.timestamp()
    assert read["dspark_doctor_results", (site, ("status", "ok"))] == 3
    assert read["dspark_doctor_node_reached", (("host", "node-b"), ("node", "worker"), site)] == 1


def test_textfile_has_no_time_stamps_which_the_collector_refuses_and_is_repeatable() -> None:
    made = full()
    text = render_textfile(made)
    assert text == render_textfile(made)
    assert text.endswith("\n")
    assert all(sample.timestamp is None for f in text_string_to_metric_families(text) for sample in f.samples)


def test_files_are_written_whole_and_with_the_rights_of_their_readers(tmp_path: Path) -> None:
    outputs = Outputs(junit=tmp_path / "a.xml", html=tmp_path / "a.html", textfile=tmp_path / "a.prom")
    outputs.check()
    outputs.write(full())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.prom", "a.xml"]
    assert stat.S_IMODE((tmp_path / "a.prom").stat().st_mode) & 0o044 == 0o044
    (tmp_path / "link.prom").symlink_to("a.prom")
    write_whole(tmp_path / "link.prom", "new")
    assert (tmp_path / "a.prom").read_text() == "new"
    assert (tmp_path / "link.prom").is_symlink()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.prom"
    write_whole(target, "old")

    def full_disk(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(NoVerdictError, match="No space left"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.prom"]


@pytest.mark.parametrize("name", ["absent/a.xml", "."])
def test_a_target_that_cannot_be_is_told_before_the_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        Outputs(junit=tmp_path / name).check()


def test_a_device_is_no_file_to_replace() -> None:
    with pytest.raises(ConfigError, match="no file"):
        Outputs(textfile=Path("/dev/null")).check()
