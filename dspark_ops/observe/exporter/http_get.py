"""One bounded GET of a service of this node. No proxy, no redirect: the address is the node's own."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from dspark_ops.observe.exporter.polling import SourceError

#: Gets a URL's body as text, or raises SourceError.
Get = Callable[[str], str]

TIMEOUT_S = 5.0
MAX_BYTES = 4 << 20


def get(url: str, headers: Mapping[str, str] | None = None) -> str:
    """The body of an answer with status 200, within 5 s from first to last byte and 4 MiB.

    Raises:
        SourceError: no such answer.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_S)
    until = time.monotonic() + TIMEOUT_S
    try:
        connection.request("GET", parts.path or "/", headers=dict(headers or {}))
        answer = connection.getresponse()
        if answer.status != 200:
            raise SourceError(f"{url} answered {answer.status}, expected 200")
        body = b""
        while chunk := answer.read1(65536):
            body += chunk
            if len(body) > MAX_BYTES or time.monotonic() > until:
                raise SourceError(f"{url} did not end within {TIMEOUT_S:g} s and {MAX_BYTES} bytes")
        return body.decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        raise SourceError(f"{url}: {type(error).__name__}: {error}") from None
    finally:
        connection.close()
