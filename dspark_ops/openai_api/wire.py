"""How requests get to a server and bodies back: address, key, certificates, and what a broken connection is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import httpx

from dspark_ops.errors import ConfigError
from dspark_ops.openai_api.model import FailureKind
from dspark_ops.openai_api.stream import limited


def base_of(base_url: str) -> str:
    """scheme://host:port and path, without the API's own prefix. Raises ConfigError for any other address."""
    try:
        url = httpx.URL(base_url)
        port = url.port
    except (httpx.InvalidURL, ValueError, TypeError):
        raise ConfigError("the address of the API is not a URL", hint="as http://127.0.0.1:8000") from None
    known = url.scheme in ("http", "https") and url.host and (port is None or 0 < port < 1 << 16)
    if not known or url.userinfo or url.query or url.fragment:
        raise ConfigError(
            "the address of the API is not http://HOST:PORT or https://HOST:PORT",
            hint="a key goes into the environment, never into the address",
        )
    host = f"[{url.host}]" if ":" in url.host else url.host
    path = url.path.rstrip("/").removesuffix("/v1")
    return f"{url.scheme}://{host}{'' if port is None else f':{port}'}{path}"


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries a key. Raises ConfigError, without the key in it, where none can."""
    if not api_key:
        return {}
    if not all("!" <= character <= "~" for character in api_key):
        raise ConfigError("the API key has a character that no HTTP header can carry", hint="a stray line end, perhaps")
    return {"Authorization": f"Bearer {api_key}"}


def tls_context(base: str, ca: Path | None) -> ssl.SSLContext:
    """Whom to trust: the certificates of a PEM file, else the system's. Raises ConfigError for a file without any."""
    if not base.startswith("https:"):
        # Trusts nobody and is never used; reading the system's certificates would take longer than a request.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca}: not certificates in PEM: {error.strerror or error}") from error


def kind_of(error: Exception) -> FailureKind:
    """What kind of failure an exception of the transport is."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
        return "connect"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    # httpcore and h11 use one class for a peer that is gone and for one that does not speak HTTP.
    if isinstance(error, httpx.RemoteProtocolError) and not any(
        part in str(error) for part in ("disconnected", "closed connection", "Connection closed")
    ):
        return "malformed"
    return "cut"


def said_by(error: Exception) -> str:
    """What an exception of the transport says; some say nothing but what they are."""
    return str(error) or type(error).__name__


async def raw_pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes; a generator that can be closed."""
    if response.is_stream_consumed:  # a transport in place of the network may give it whole
        yield response.content
        return
    async for piece in response.aiter_raw():
        yield piece


async def whole_body(response: httpx.Response) -> bytes:
    """All of it; BodyTooLongError where it is too much."""
    async with aclosing(raw_pieces(response)) as raw, aclosing(limited(raw)) as pieces:
        return b"".join([piece async for piece in pieces])


async def begin_of_body(response: httpx.Response, limit: int) -> bytes:
    """The first `limit` bytes of a body, or what came of them before the connection broke."""
    found = bytearray()
    try:
        async with aclosing(raw_pieces(response)) as raw:
            async for piece in raw:
                found += piece
                if len(found) >= limit:
                    break
    except (httpx.HTTPError, OSError):
        pass
    return bytes(found[:limit])
