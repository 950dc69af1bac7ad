"""The page for people: what is known is on it, what is not known is said, and nothing that a host wrote can run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.config.models import Site
from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.observe import status_page
from dspark_ops.observe.status_page import page_input, render_page
from dspark_ops.observe.status_view import FiringAlert, PageInput, PageView, judge_rail, page_view, parse_samples
from dspark_ops.transport.base import NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.observe.exporter import documents
from tests.unit.observe.exporter.recording import RECORDED
from tests.unit.transport.test_collector import collect

NOW = datetime(2026, 11, 28, 1, 0, 0, tzinfo=UTC)


def scrape(role: str) -> str:
    return (RECORDED / f"{role}.prom").read_text(encoding="utf-8")


def view(status: dict[str, Any] | None = None, **changes: Any) -> PageView:
    given_ = {
        "site": "example",
        "made_at": NOW,
        "status": json.loads(documents.status(recovered=True)) if status is None else status,
        "scrapes": {"head": scrape("head"), "worker": scrape("worker")},
        "alerts": (),
        "problems": {},
    }
    return page_view(PageInput(**{**given_, **changes}))


@contextmanager
def serving(pages: dict[str, str]) -> Iterator[int]:
    """A service on a loopback port, with these texts by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = pages.get(self.path)
            self.send_response(200 if text is not None else 404)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Page(HTMLParser):
    """Tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_pair_that_serves() -> None:
    page = Page(render_page(view()))
    for words in ("serving", "r-0123456789ab", "rocep1s0f0", "43,648 tokens", "21.7 %", "1,048,576 tokens", "2.50 USD"):
        assert words in page.text, words
    assert view().mark == "ok"
    assert "not known" not in page.text


def test_what_a_pair_does_not_have_is_no_gap() -> None:
    """A profile without a GPU, an engine without a draft model: nothing is to be known of them."""
    lacks = ("dspark_gpu", "dspark_acceptance", 'source="gpu')
    lines = {
        role: "".join(
            line for line in scrape(role).splitlines(keepends=True) if not any(word in line for word in lacks)
        )
        for role in ("head", "worker")
    }
    text = Page(render_page(view(scrapes=lines))).text
    assert "not known" not in text
    assert "GPU" not in text
    assert "acceptance" not in text


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = Page(render_page(view()))
    assert not {"script", "img", "link", "iframe", "object", "form", "a"} & set(page.tags)
    assert not any(name in ("src", "href") or name.startswith("on") for name, _ in page.attributes)
    policies = [value for name, value in page.attributes if name == "content"]
    assert any(value and "default-src 'none'" in value for value in policies)


def test_both_colour_schemes_are_there() -> None:
    html = render_page(view())
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html


@settings(max_examples=10)
@given(st.text(max_size=60))
def test_what_a_host_writes_stays_text(text: str) -> None:
    evil = f"<script>alert(1)</script>{text}"
    status = json.loads(documents.status()) | {"reason": evil, "alerts": [{"text": evil, "page": True}], "epoch": evil}
    page = Page(render_page(view(status, alerts=(FiringAlert(evil, "critical", evil),), problems={"alerts": evil})))
    assert "script" not in page.tags
    assert "alert(1)" in page.text


@pytest.mark.parametrize(
    ("state", "mark"),
    [("serving", "ok"), ("suspect", "warn"), ("starting", "warn"), ("failed", "fail"), ("dreaming", "unknown")],
)
def test_the_state_has_its_colour(state: str, mark: str) -> None:
    assert view(json.loads(documents.status(state=state))).mark == mark


def test_a_hold_is_not_all_well_and_is_told() -> None:
    hold = {"reason": "firmware", "owner": "me", "left_s": 5400.0}
    shown = view(json.loads(documents.status(hold=hold)))
    assert shown.mark == "warn"
    assert ("held", "firmware (me), ends in 90 min") in shown.facts


def test_a_supervisor_that_is_silent_is_not_serving() -> None:
    shown = view({}, problems={"supervisor": "the supervisor does not answer: HTTP 503"})
    assert (shown.state, shown.mark) == ("not known", "unknown")
    assert "does not answer: HTTP 503" in Page(render_page(shown)).text


def test_a_node_without_an_exporter_says_so_and_the_other_is_shown() -> None:
    shown = view(scrapes={"head": scrape("head"), "worker": None}, problems={"worker": "not reached: no route"})
    page = Page(render_page(shown)).text
    assert "not reached: no route" in page
    assert shown.nodes[0].rails
    assert not shown.nodes[1].rails


def test_alerts_that_could_not_be_read_are_not_none() -> None:
    page = Page(render_page(view(alerts=None, problems={"alerts": "Prometheus does not answer"}))).text
    assert "what Prometheus alerts: Prometheus does not answer" in page


def test_pages_stand_before_looks_and_the_heartbeat_is_no_alert() -> None:
    alerts = (
        FiringAlert("Watchdog", "none", "always"),
        FiringAlert("KvQueue", "warning", "w"),
        FiringAlert("EngineWedged", "critical", "c"),
    )
    assert [alert.source for alert in view(alerts=alerts).alerts] == ["EngineWedged", "KvQueue"]


def test_rails_of_the_recording() -> None:
    rails = {rail.name: rail for rail in view().nodes[0].rails}
    assert (rails["p0a"].mark, rails["p0a"].gid_index, rails["p0a"].mtu, rails["p0a"].share) == ("ok", 3, 9000, 0.25)


@pytest.mark.parametrize(
    ("present", "carrier", "port", "mark"),
    [
        (1, 1, 4, "ok"),
        (1, 1, 1, "fail"),
        (1, 1, None, "unknown"),
        (1, 0, 4, "fail"),
        (1, None, None, "fail"),
        (0, None, None, "fail"),
        (None, None, None, "unknown"),
    ],
)
def test_a_rail_is_judged(present: float | None, carrier: float | None, port: float | None, mark: str) -> None:
    assert judge_rail(present, carrier, port)[0] == mark


@pytest.mark.parametrize("text", [None, "", "{", "up 1\n", "a{b= 1\n"])
def test_what_is_no_scrape_of_ours_is_none(text: str | None) -> None:
    assert parse_samples(text) is None


@settings(max_examples=40)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["state", "since", "hold", "alerts", "incident", "decisions", "at", "left_s", "text"]),
                inner,
                max_size=5,
            ),
        ),
        max_leaves=12,
    )
)
def test_no_document_makes_the_page_fail(document: Any) -> None:
    render_page(
        view(document if isinstance(document, dict) else {"state": document}, scrapes={"head": None, "worker": None})
    )


class TestWriting:
    @pytest.fixture
    def site(self) -> Site:
        return load_case_site().site

    def test_it_is_written_with_the_exit_code_of_the_state(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        latched = view(json.loads(documents.status(state="failed", latched="4 restarts")))
        monkeypatch.setattr(status_page, "read_page", lambda _site: latched)
        told = status_page.write_page(site, tmp_path / "status.html")
        assert told.exit_code == ExitCode.VERDICT_BAD
        assert "4 restarts" in (tmp_path / "status.html").read_text(encoding="utf-8")
        assert told.document()["written"] == str(tmp_path / "status.html")

    @pytest.mark.parametrize(("state", "code"), [("serving", 0), ("starting", 0), ("failed", 1), ("dreaming", 3)])
    def test_what_is_not_known_is_no_success(self, state: str, code: int, tmp_path: Path) -> None:
        assert status_page.WrittenPage(tmp_path, view(json.loads(documents.status(state=state)))).exit_code == code

    def test_a_directory_that_is_not_there_is_said_before_a_node_is_asked(self, site: Site, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is not there"):
            status_page.write_page(site, tmp_path / "no/status.html")

    def test_neither_node_reached_is_no_page(self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lost = {
            role: NodeReading(node=role, reachable=False, error="no route to host", results={})
            for role in ("head", "worker")
        }
        monkeypatch.setattr(status_page, "read_pair", lambda *_: lost)
        with pytest.raises(NoVerdictError, match="no route to host"):
            status_page.write_page(site, tmp_path / "status.html")
        assert list(tmp_path.iterdir()) == []


class TestReading:
    def test_the_probes_only_read_and_what_answers_is_read_over_a_real_port(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The reader's own program asks a stand-in for each of the three services."""
        with serving({"/metrics": scrape("head"), "/status": documents.status()}) as port:
            monkeypatch.setattr(status_page, "PORT", port)
            monkeypatch.setattr(status_page, "SUPERVISOR_URL", f"http://127.0.0.1:{port}")
            site = load_case_site(f"monitoring.prometheus_port={port}").site
            probes = status_page.page_probes(site)
            assert_read_only([probe for asked in probes.values() for probe in asked])
            head, worker = collect(probes["head"]), collect(probes["worker"])
        shown = page_view(page_input("example", {"head": head, "worker": worker}, NOW))
        assert shown.state == "serving"
        assert len(shown.nodes[1].rails) == 4
        assert shown.alerts_problem is not None

    def reading(self, **results: ProbeResult) -> NodeReading:
        return NodeReading(node="head", reachable=True, results={f"page.{k}": v for k, v in results.items()})

    def test_what_was_read_and_why_not(self) -> None:
        fired = {"labels": {"alertname": "RailDown", "severity": "critical"}, "annotations": {"summary": "x"}}
        alerts = {"data": {"alerts": [{**fired, "state": "firing"}, {**fired, "state": "pending"}]}}
        head = self.reading(
            exporter=ProbeResult(id="page.exporter", rc=200, stdout=scrape("head")),
            status=ProbeResult(id="page.status", rc=200, stdout=documents.status()),
            alerts=ProbeResult(id="page.alerts", rc=200, stdout=json.dumps(alerts)),
        )
        worker = NodeReading(node="worker", reachable=False, error="no route to host", results={})
        found = page_input("example", {"head": head, "worker": worker}, NOW)
        assert found.alerts == (FiringAlert("RailDown", "critical", "x"),)
        assert found.status is not None
        assert found.problems == {"worker": "the node was not reached: no route to host"}

    def test_nothing_answers(self) -> None:
        refused = {name: ProbeResult(id=name, error="connection refused") for name in ("exporter", "status", "alerts")}
        reading = self.reading(**refused)
        found = page_input("example", {"head": reading, "worker": reading}, NOW)
        assert set(found.problems) == {"head", "worker", "supervisor", "alerts"}
        assert "connection refused" in found.problems["supervisor"]
        render_page(page_view(found))
