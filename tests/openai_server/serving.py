"""The server on a loopback port, or inside the process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from tests.openai_server.app import make_app
from tests.openai_server.setup import ServerSetup
from tests.openai_server.transport import StreamingAsgiTransport

_START_S = 30.0


@contextmanager
def serve(setup: ServerSetup | Starlette) -> Iterator[str]:
    """Serve over real HTTP by uvicorn in a thread; gives the base URL, as `http://127.0.0.1:40123`.

    Give an application of `make_app` to reach its `app.state.server` meanwhile (`learn` may be called at any time).
    """
    app = make_app(setup) if isinstance(setup, ServerSetup) else setup
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", ws="none", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + _START_S
        while not server.started:
            if time.monotonic() > end or not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def asgi_transport(setup: ServerSetup | Starlette) -> StreamingAsgiTransport:
    """The transport for an httpx.AsyncClient (or ApiClient) in this process; chunks come as they are sent."""
    return StreamingAsgiTransport(make_app(setup) if isinstance(setup, ServerSetup) else setup)
