"""A client of the gateway from outside the pair: TLS by the certificate that was made on the head, paths as spelled."""

from __future__ import annotations

import http.client
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.asking import Answer, asked, chat

#: What the scripted model answers, and every word of the stand-in cloud's answers.
LOCAL_TEXT, CLOUD_WORD = "The quick brown fox jumps over the lazy dog.", "meadow"
_TIMEOUT_S = 60.0
#: The edge takes 240 requests a minute of a client.
_PAUSE_S = 0.5


@dataclass(frozen=True)
class Edge:
    """The head's own address and port, and the certificate that a client is given."""

    address: str
    port: int
    ca: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    @contextmanager
    def client(self, key: str) -> Iterator[httpx.Client]:
        """Connections of a client with a key. No proxy of this machine's is asked."""
        with httpx.Client(
            base_url=f"https://{self.address}:{self.port}",
            headers={"authorization": f"Bearer {key}"},
            verify=self.trust,
            timeout=_TIMEOUT_S,
            trust_env=False,
        ) as made:
            yield made

    def status(self, line: str, *, key: str | None = None, headers: str = "", body: bytes = b"") -> int | None:
        """The status of a request whose first line and headers are sent as they stand; None: closed without one."""
        named = "" if "\r\nHost:" in "\r\n" + headers or line.endswith("HTTP/1.0") else f"Host: {self.address}\r\n"
        bearer = "" if key is None else f"Authorization: Bearer {key}\r\n"
        length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
        text = f"{line}\r\n{named}{bearer}{length}{headers}\r\n".encode("latin-1")
        with (
            socket.create_connection((self.address, self.port), timeout=_TIMEOUT_S) as plain,
            self.trust.wrap_socket(plain, server_hostname=self.address) as secured,
        ):
            secured.sendall(text + body)
            answer = http.client.HTTPResponse(secured, method=line.split(" ", 1)[0])
            try:
                answer.begin()
            except (http.client.HTTPException, ConnectionError):
                return None
            return answer.status


def question(number: int = 0, **more: Any) -> dict[str, Any]:
    """A request that both backends answer in a few tokens. number: the same prompt again and again is a loop."""
    body = {"model": "dspark-rehearsal", "temperature": 0, "max_tokens": 32} | more
    return chat(f"hello {number}", chat_template_kwargs={"thinking": False}, **body)


def belongs_to_one(answer: Answer) -> str | None:
    """What is wrong with an answer of 200; None where it is of the backend that it names, and of no other."""
    text = answer.text.strip()
    if answer.backend == "local":
        whole = LOCAL_TEXT.startswith(text) if answer.error else text == LOCAL_TEXT
    else:
        whole = answer.backend == "cloud" and set(text.split()) <= {CLOUD_WORD}
    if answer.error and (answer.done or answer.finish is not None):
        return f"a broken stream says that it is whole: {answer.raw!r}"
    return None if whole else f"{answer.backend} is said to have answered {text!r}"


@dataclass
class Asking:
    """What one client heard, in order. failed: asks that got no HTTP answer at all."""

    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def count(self, backend: str, *, since: int = 0) -> int:
        return sum(a.status == 200 and a.backend == backend for a in self.answers[since:])


@contextmanager
def asking(edge: Edge, key: str) -> Iterator[Asking]:
    """Ask one after the other until the block ends, whole answers and streams in turn."""
    heard, stop = Asking(), threading.Event()

    def ask() -> None:
        with edge.client(key) as client:
            for number in itertools.count():
                if stop.is_set():
                    return
                try:
                    heard.answers.append(asked(client, question(number, stream=bool(number % 2))))
                except httpx.HTTPError as error:
                    heard.failed.append(f"{type(error).__name__}: {error}")
                time.sleep(_PAUSE_S)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(2 * _TIMEOUT_S)
