"""The status port: reads only, on loopback. HAProxy asks /route, people and programs /status, Prometheus /metrics."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable
from typing import Any

from dspark_ops.supervise.core.model import STATES

_MOST_CLIENTS = 32
_CLIENT_S = 5.0


class StatusPort:
    """Answers from what the loop published last; it never asks anything itself.

    status: the document of `GET /status`. route: the status of `GET /route`. port: 0 takes a free one.
    """

    def __init__(self, port: int, status: Callable[[], dict[str, Any]], route: Callable[[], int]) -> None:
        """Raises: OSError, somebody else has the port."""

        class Handler(_Handler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/route":
                    code = route()
                    words = {200: "local", 404: "draining"}.get(code, "not local")
                    self.answer(code, "text/plain", words + "\n")
                elif path == "/status":
                    self.answer(200, "application/json", json.dumps(status()) + "\n")
                elif path == "/metrics":
                    text = exposition(status(), route())
                    self.answer(200, "text/plain; version=0.0.4; charset=utf-8", text)
                else:
                    self.answer(404, "text/plain", "known here: /status, /route, /metrics\n")

            def do_HEAD(self) -> None:
                self.do_GET()

        self._server = _Server(("127.0.0.1", port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.5,), name="status", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """At most so many clients at once; one more is turned away, so that nobody can take all the threads."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not our concern."""

    def server_bind(self) -> None:
        # HTTPServer looks its own name up, which may take long where no DNS answers.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _CLIENT_S
    server_version = "dspark-supervisor"
    sys_version = ""

    def answer(self, code: int, kind: str, text: str) -> None:
        raw = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """A check every second is no news."""


def exposition(status: dict[str, Any], route: int) -> str:
    """The text format of Prometheus. What is not known has no sample."""
    lines: list[str] = []

    def gauge(name: str, text: str, *samples: tuple[str, float | None]) -> None:
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines.extend((f"# HELP {name} {text}", f"# TYPE {name} gauge"))
            lines.extend(f"{name}{labels} {float(value):.15g}" for labels, value in known)

    now = status["state"]
    gauge(
        "dspark_supervisor_state",
        "1 for the state that the pair is in.",
        *((f'{{state="{state}"}}', 1.0 if state == now else 0.0) for state in STATES),
    )
    gauge("dspark_supervisor_state_since_timestamp_seconds", "When the state was entered.", ("", status["since"]))
    gauge("dspark_supervisor_step_age_seconds", "Since the last decision.", ("", status["step_age_s"]))
    gauge("dspark_supervisor_held", "1 while somebody holds it.", ("", float(status["hold"] is not None)))
    gauge("dspark_supervisor_latched", "1 when it waits for a person.", ("", float(status["latched"] is not None)))
    gauge("dspark_supervisor_route", "The HTTP status of /route.", ("", float(route)))
    gauge("dspark_supervisor_epoch_number", "How many starts there were.", ("", status["number"]))
    gauge("dspark_supervisor_state_saved", "0 when the state cannot be written.", ("", float(status["state_saved"])))
    incident = status["incident"] or {}
    gauge("dspark_supervisor_last_detect_seconds", "Of the last incident.", ("", incident.get("detect_s")))
    gauge("dspark_supervisor_last_recover_seconds", "Of the last incident.", ("", incident.get("recover_s")))
    return "\n".join(lines) + "\n"
