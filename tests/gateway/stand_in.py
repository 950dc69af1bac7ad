"""Stand-ins on loopback: an engine or a cloud that can die and come back, and the supervisor's status port."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.free_ports import free_port
from tests.gateway.door import Door
from tests.openai_server.answers import Solver
from tests.openai_server.app import make_app
from tests.openai_server.server import Server
from tests.openai_server.setup import ServerSetup

_WAIT_S = 60.0


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = _WAIT_S) -> None:
    """Wait for it; AssertionError that names it where it does not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"within {timeout_s:g} s it was not seen that {what}"
        time.sleep(0.02)


class StandIn:
    """One OpenAI-compatible server of tests/openai_server behind a door, on a port that stays its own.

    `die` refuses connections and cuts those that run; `revive` listens again, with all that it knew.
    """

    def __init__(self, setup: ServerSetup, *, solver: Solver | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self._app = make_app(setup, solver=solver)
        self._loop = asyncio.new_event_loop()
        self._peers: dict[Any, asyncio.Transport] = {}
        self.door = Door(self._app, self._cut, lambda scope: scope["client"] in self._peers)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._uvicorn: uvicorn.Server | None = None
        self._serving: Any = None
        self._thread.start()
        self.revive()

    @property
    def server(self) -> Server:
        """The engine behind the door."""
        found: Server = self._app.state.server
        return found

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._peers)

    def die(self) -> None:
        """Nobody listens any more, and every connection is cut."""
        if self._uvicorn is None:
            return
        self._uvicorn.should_exit = True
        self._uvicorn.force_exit = True
        self._loop.call_soon_threadsafe(self._cut_all)
        self._serving.result(_WAIT_S)
        self._uvicorn = None

    def revive(self) -> None:
        """Listen (again)."""
        if self._uvicorn is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        config = uvicorn.Config(
            self.door,
            http=self._protocol(),
            log_level="critical",
            lifespan="off",
            ws="none",
            access_log=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._serving = asyncio.run_coroutine_threadsafe(self._uvicorn.serve(sockets=[listener]), self._loop)
        wait_until(lambda: self._uvicorn is not None and self._uvicorn.started, "a stand-in has started")

    def close(self) -> None:
        """The end."""
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WAIT_S)

    def reset(self) -> None:
        """As new: alive, no trouble, nothing written down."""
        self.revive()
        self.door.reset()

    def _protocol(self) -> type[asyncio.Protocol]:
        peers = self._peers

        class Known(H11Protocol):
            """A connection that the door can find by the client's address."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                peers[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                peers.pop(self.client, None)
                super().connection_lost(exc)

        return Known

    def _cut(self, scope: Scope) -> None:
        found = self._peers.get(scope["client"])
        if found is not None:
            found.abort()

    def _cut_all(self) -> None:
        for transport in list(self._peers.values()):
            with suppress(RuntimeError):
                transport.abort()


class StatusPort:
    """The supervisor's `GET /route`: 200 the local engine may serve, 404 draining, 503 not. `checks`: times asked.

    failing: so many of the next checks are answered with 500, as by a supervisor that is starting.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.route = 200
        self.checks = 0
        self.failing = 0
        self._server: ThreadingHTTPServer | None = None
        self.revive()

    def revive(self) -> None:
        """Answer (again)."""
        if self._server is not None:
            return
        status = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status.checks += 1
                code = status.route if self.path.split("?")[0] == "/route" else 404
                if status.failing > 0:
                    status.failing, code = status.failing - 1, 500
                body = b'{"schema": "dspark-ops/route/v1"}\n'
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                with suppress(ConnectionError):  # a check needs only the status, and hangs up
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

        class Listener(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Listener(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def die(self) -> None:
        """Nobody answers any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        """The end."""
        self.die()

    def reset(self) -> None:
        """Answering 200."""
        self.revive()
        self.failing = 0
        self.route = 200
