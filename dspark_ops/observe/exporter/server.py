"""The HTTP side: GET /metrics on the configured addresses, and nothing else. Nothing is written over it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable
from typing import Any

from dspark_ops.observe.exporter.scrape import Exposition

# Linux: bind before the address is there, so that the fabric may come up after the exporter (ip(7)).
_IP_FREEBIND = 15
_CONNECTION_S = 5.0
_MOST_AT_ONCE = 8

Log = Callable[[str], None]


class Server(http.server.ThreadingHTTPServer):
    """One address. More than eight connections at once are closed at once, and a slow one after 5 s."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], exposition: Exposition, log: Log) -> None:
        self.exposition = exposition
        self.log = log
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        # Not HTTPServer's: it asks for the name of the address, and a resolver may take its time.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that went away is nobody's fault."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    server_version = "dspark-exporter"
    sys_version = ""
    timeout = _CONNECTION_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="there is /metrics")
            return
        body, content_type = self.server.exposition.render(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        """Scrapes are not logged."""


def serve(addresses: tuple[tuple[str, int], ...], exposition: Exposition, log: Log) -> list[Server]:
    """Listen on each address, each in a thread.

    Raises:
        OSError: an address is taken.
    """
    servers: list[Server] = []
    try:
        for address in addresses:
            servers.append(Server(address, exposition, log))  # noqa: PERF401 - those before a failure are closed
    except OSError:
        for server in servers:
            server.server_close()
        raise
    for server in servers:
        threading.Thread(target=server.serve_forever, name=f"http-{server.server_name}", daemon=True).start()
    return servers
