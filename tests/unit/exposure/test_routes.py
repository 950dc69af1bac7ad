"""The route audit against a server on the loopback: what counts as closed, and what it never sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure.routes import (
    KNOWN,
    Route,
    audit_routes,
    conclude,
    disguises,
    judge_answer,
    load_routes,
    routes_in,
    text,
)

Gate = Callable[[str, str], int]


@contextmanager
def server(gate: Gate) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    """Answers what gate(method, path) says; yields its address and what it was asked."""
    asked: list[tuple[str, str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, dict(self.headers)))
            self.send_response(gate(self.command, self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_address[1]}", asked
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    paths = {
        "/health": {"get": {}},
        "/metrics": {"get": {}},
        "/pause": {"post": {}},
        "/v1/responses/{response_id}": {"get": {}, "delete": {}, "parameters": []},
    }
    path.write_text(json.dumps({"openapi": "3.1.0", "paths": paths}))
    return path


def closed(_method: str, path: str) -> int:
    return 200 if path == "/health" else 401


def test_all_routes_closed_but_the_health_route_is_good(document: Path) -> None:
    with server(closed) as (url, asked):
        found = audit_routes(url, (document,), health_route="/health")
    assert found.exit_code == ExitCode.OK, found.message
    assert ("DELETE", "/v1/responses/x") in {(method, path) for method, path, _ in asked}
    sent = {name.lower() for *_, headers in asked for name in headers}
    assert sent & {"authorization", "x-api-key", "cookie"} == set()


def test_a_health_route_that_the_site_does_not_name_is_open(document: Path) -> None:
    with server(closed) as (url, _):
        found = audit_routes(url, (document,), health_route=None)
    assert found.exit_code == ExitCode.VERDICT_BAD
    assert "GET /health with 200" in found.message
    assert "open: GET /health: 200" in text(found)


@pytest.mark.parametrize("status", [200, 204, 301, 307, 400, 403, 405, 422, 500, 503])
def test_every_answer_but_401_and_404_counts_as_open(document: Path, status: int) -> None:
    """A 422 or 405 means that the request came through to the server behind."""
    with server(lambda _, path: status if path == "/metrics" else 401) as (url, _):
        assert audit_routes(url, (document,), health_route=None).exit_code == ExitCode.VERDICT_BAD


def test_a_route_that_acts_is_not_asked_to_act_once_it_is_seen_to_be_open(document: Path) -> None:
    """405 to GET is an open POST: to POST it would pause the engine."""
    with server(lambda method, path: (405 if method == "GET" else 200) if path == "/pause" else 401) as (url, asked):
        found = audit_routes(url, (document,), health_route=None)
    assert found.exit_code == ExitCode.VERDICT_BAD
    assert ("POST", "/pause") not in {(method, path) for method, path, _ in asked}


def test_a_gate_that_only_looks_at_get_is_found_out(document: Path) -> None:
    with server(lambda method, _: 401 if method == "GET" else 200) as (url, _):
        found = audit_routes(url, (document,), health_route=None)
    assert {item.route.method for item in found.answers if item.verdict == "open"} == {"POST", "DELETE"}


def test_a_path_in_disguise_that_passes_is_found_out(document: Path) -> None:
    with server(lambda _, path: 200 if path == "/v1/../metrics" else 401) as (url, _):
        found = audit_routes(url, (document,), health_route=None)
    assert [item.target for item in found.answers if item.verdict == "open"] == ["/v1/../metrics"]


def test_a_path_in_disguise_may_be_refused_as_malformed(document: Path) -> None:
    spelt = {word for path in ("/health", "/metrics", "/v1/responses/x") for word in disguises(path)}
    spelt = {word for word in spelt if not word.startswith("//")}  # Python's own server takes one of them away
    with server(lambda _, path: 400 if path in spelt else 404) as (url, asked):
        assert audit_routes(url, (document,), health_route=None).exit_code == ExitCode.OK
    assert spelt <= {path for _, path, _ in asked}


def test_nothing_that_answers_is_no_verdict(document: Path) -> None:
    with server(closed) as (url, _):
        pass
    found = audit_routes(url, (document,), health_route=None)
    assert found.exit_code == ExitCode.NO_VERDICT
    assert "nothing answered" in found.message


def test_what_is_no_list_of_routes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no route"):
        routes_in({"paths": {}}, "x")
    (tmp_path / "x.json").write_text("no")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        load_routes([tmp_path / "x.json"])
    with pytest.raises(ConfigError, match="is no address"):
        audit_routes("spark-head:8443", (), health_route=None)


def test_the_known_routes_hold_those_that_no_key_of_the_engine_guards() -> None:
    known = {(route.method, route.path) for route in load_routes(())}
    assert len(list(KNOWN.glob("*.json"))) == 2
    assert {
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/invocations"),
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("GET", "/load"),
        ("POST", "/collective_rpc"),
        ("POST", "/sleep"),
        ("POST", "/reset_prefix_cache"),
        ("POST", "/pause"),
        ("POST", "/scale_elastic_ep"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/key/generate"),
    } <= known


def test_one_that_gets_no_answer_is_no_verdict() -> None:
    """A route that streams may wait with its headers: who waits there was let in."""
    told = judge_answer(Route(method="GET", path="/a", document="d"), "/a", "plain", 401, None, None)
    waiting = judge_answer(Route(method="GET", path="/b", document="d"), "/b", "plain", None, "timed out", None)
    assert conclude("u", ("d",), (told,)).exit_code == 0
    found = conclude("u", ("d",), (told, waiting))
    assert found.exit_code == 3
    assert "/b: timed out" in found.message
    assert "unknown: GET /b" in text(found)
