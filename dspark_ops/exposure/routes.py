"""`exposure routes`: every route of the engine and the gateway, asked from outside without a key."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from dspark_ops.config.models import Site
from dspark_ops.errors import ConfigError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.exposure.policy import gateway_port
from dspark_ops.transport.ssh import resolve_target

#: What a closed route may answer: no key, or no such thing.
CLOSED = frozenset({401, 404})
#: A path that is no path may also be refused as one.
CLOSED_DISGUISED = CLOSED | {400}
KNOWN = Path(__file__).with_name("known_routes")
_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_TIMEOUT_S = 10.0
Kind = Literal["plain", "disguised"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Route(_Frozen):
    """One route of a document. path: as the document has it, with its parameters in braces."""

    method: str
    path: str
    document: str

    @property
    def asked(self) -> str:
        """The path with a word for each parameter."""
        return re.sub(r"\{[^{}]*\}", "x", self.path)


class Answer(_Frozen):
    """What one request got. status None: no HTTP answer, error says why. closed: nobody is served without a key.

    unknown: no answer; who was let in may be waiting for one as well.
    health: the route is the one that the site lets answer.
    """

    route: Route
    target: str
    kind: Kind
    status: int | None
    error: str | None = None
    health: bool = False
    verdict: Literal["closed", "open", "health", "unknown"]


class RouteAudit(_Frozen):
    """The document of `exposure routes`."""

    schema_id: Literal["dspark-ops/route-audit/v1"] = "dspark-ops/route-audit/v1"
    url: str
    documents: tuple[str, ...]
    answers: tuple[Answer, ...]
    exit_code: int
    message: str


def routes_in(document: Any, name: str) -> tuple[Route, ...]:
    """The routes of an OpenAPI document, or of our own recorded lists of method and path.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(document, Mapping) and isinstance(document.get("routes"), list):
        pairs = [tuple(item) for item in document["routes"] if isinstance(item, list) and len(item) == 2]
    elif isinstance(document, Mapping) and isinstance(document.get("paths"), Mapping):
        pairs = [
            (method.upper(), path)
            for path, methods in document["paths"].items()
            if isinstance(methods, Mapping)
            for method in methods
            if method.lower() in _METHODS
        ]
    else:
        pairs = []
    found = [(str(method).upper(), str(path)) for method, path in pairs if str(path).startswith("/")]
    if not found:
        raise ConfigError(
            f"{name} names no route", hint="expected an OpenAPI document (its `paths`), as GET /openapi.json gives it"
        )
    return tuple(Route(method=method, path=path, document=name) for method, path in dict.fromkeys(found))


def load_routes(files: Iterable[Path]) -> tuple[Route, ...]:
    """The routes of these documents; of all that are known where none is given.

    Raises:
        ConfigError: a file cannot be read, is no JSON, or names no route.
    """
    found: list[Route] = []
    for path in tuple(files) or sorted(KNOWN.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}", hint="name an OpenAPI document") from error
        found += routes_in(document, path.stem)
    return tuple(found)


def disguises(path: str) -> tuple[str, ...]:
    """Other spellings of a path that a gate and a server may read differently."""
    return (f"/{path}", f"/v1/..{path}", f"/v1/%2e%2e{path}", f"/%{ord(path[1]):02x}{path[2:]}" if path[1:] else "/%2f")


def judge_answer(
    route: Route, target: str, kind: Kind, status: int | None, error: str | None, health_route: str | None
) -> Answer:
    """The verdict over one answer. No answer at all is no verdict: a route that waits has let somebody in."""
    health = kind == "plain" and route.path == health_route and route.method in ("GET", "HEAD")
    closed = status in (CLOSED if kind == "plain" else CLOSED_DISGUISED)
    return Answer(
        route=route,
        target=target,
        kind=kind,
        status=status,
        error=error,
        health=health,
        verdict="unknown" if status is None else "closed" if closed else "health" if health else "open",
    )


def audit_routes(
    url: str, documents: tuple[Path, ...], *, health_route: str | None, ca: Path | None = None
) -> RouteAudit:
    """Ask every route; no key is sent, and nothing that a key would protect.

    A route that changes something is asked with GET first: where that passes, it is open, and is not asked further.

    Raises:
        ConfigError: a document cannot be read, or the address is none.
    """
    routes = load_routes(documents)
    asker = _Asker(url, ca)
    with ThreadPoolExecutor(max_workers=8) as pool:
        plain = list(pool.map(lambda route: _ask_plain(asker, route, health_route), routes))
        paths = [route for route in dict.fromkeys(routes) if route.method == "GET" and route.path != health_route]
        pairs = [(route, target) for route in paths for target in disguises(route.asked)]
        hidden = list(pool.map(lambda pair: _ask_disguised(asker, pair[0], pair[1], health_route), pairs))
    return conclude(url, tuple(dict.fromkeys(route.document for route in routes)), (*plain, *hidden))


def conclude(url: str, documents: tuple[str, ...], answers: tuple[Answer, ...]) -> RouteAudit:
    """The exit code and one sentence over all answers."""
    opened = [item for item in answers if item.verdict == "open"]
    answered = [item for item in answers if item.status is not None]
    silent = [item for item in answers if item.status is None]
    if opened:
        code, first = ExitCode.VERDICT_BAD, opened[0]
        message = (
            f"{len(opened)} of {len(answers)} requests without a key were let in, first {first.route.method} "
            f"{first.target} with {first.status}"
        )
    elif not answered:
        code, message = ExitCode.NO_VERDICT, f"nothing answered at {url}: {answers[0].error if answers else 'no route'}"
    elif silent:
        code, first = ExitCode.NO_VERDICT, silent[0]
        message = (
            f"{len(silent)} of {len(answers)} requests without a key got no answer, first {first.route.method} "
            f"{first.target}: {first.error}"
        )
    else:
        code, message = ExitCode.OK, f"{len(answers)} requests without a key, none let in"
    return RouteAudit(url=url, documents=documents, answers=answers, exit_code=int(code), message=message)


def text(audit: RouteAudit) -> str:
    """For people: how many answered what, and each one that was let in."""
    counts: dict[str, int] = {}
    for item in audit.answers:
        word = str(item.status) if item.status is not None else "no answer"
        counts[word] = counts.get(word, 0) + 1
    lines = [f"{audit.url}, routes of {', '.join(audit.documents)}"]
    lines += [f"  {count:5} x {word}" for word, count in sorted(counts.items())]
    lines += [
        f"  {item.verdict}: {item.route.method} {item.target}: {item.status}"
        for item in audit.answers
        if item.verdict != "closed"
    ]
    return "\n".join([*lines, audit.message])


def url_of(site: Site) -> str:
    """Where clients find the gateway: the head's own address, never its loopback."""
    target = resolve_target(site.nodes.head.host, site.ssh.config, site.ssh.connect_timeout_s)
    host = f"[{target.hostname}]" if ":" in target.hostname else target.hostname
    return f"https://{host}:{gateway_port(site)}"


def _ask_plain(asker: _Asker, route: Route, health_route: str | None) -> Answer:
    status, error = asker.ask("GET", route.asked)
    passes = status is not None and status not in CLOSED
    if route.method != "GET" and not passes and status is not None:
        status, error = asker.ask(route.method, route.asked)
    return judge_answer(route, route.asked, "plain", status, error, health_route)


def _ask_disguised(asker: _Asker, route: Route, target: str, health_route: str | None) -> Answer:
    status, error = asker.ask("GET", target)
    return judge_answer(route, target, "disguised", status, error, health_route)


class _Asker:
    """Sends one request a connection, exactly as spelled; redirects are not followed, proxies not used."""

    def __init__(self, url: str, ca: Path | None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
            raise ConfigError(f"{url} is no address to ask", hint="expected as https://spark-head.lan:8443, no path")
        self.host, self.port = parts.hostname, port or (443 if parts.scheme == "https" else 80)
        self.context = _tls(ca) if parts.scheme == "https" else None

    def ask(self, method: str, target: str) -> tuple[int | None, str | None]:
        """The status, or None and the error's words."""
        connection = (
            http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT_S, context=self.context)
            if self.context is not None
            else http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_S)
        )
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            connection.request(method, target, body=body, headers=headers)
            return connection.getresponse().status, None
        except (OSError, http.client.HTTPException) as error:
            return None, f"{type(error).__name__}: {error}"
        finally:
            connection.close()


def _tls(ca: Path | None) -> ssl.SSLContext:
    """Without certificates of the caller's any is taken: what is asked for is a refusal, and nothing secret is sent."""
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca} holds no certificates: {error}", hint="name a file of PEM certificates") from error
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
