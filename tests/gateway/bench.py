"""The gateway as a site would have it, on loopback: rendered by the product, run by the real HAProxy and LiteLLM.

Different from a node only in ports, directories and times: the shim asks the status port five times a second, not
once, so that three failed checks take 0.6 s.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import secrets
import signal
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import httpx

from dspark_ops.config.gateway import CloudSite, GatewaySite
from dspark_ops.gateway.clients import Client, key_hash, new_key
from dspark_ops.gateway.program import zipapp
from dspark_ops.gateway.render import CONFIGURATION, edge_secret, render_all
from dspark_ops.gateway.settings import GatewaySettings, Places
from tests.free_ports import free_port
from tests.gateway import programs
from tests.gateway.asking import Answer, chat
from tests.gateway.certificate import self_signed
from tests.gateway.stand_in import StandIn, StatusPort, wait_until
from tests.openai_server.answers import Call, Solution, Solver
from tests.openai_server.setup import KnownRate, ServerSetup

#: All words of an answer of the engine, and of one of the cloud.
LOCAL_WORD, CLOUD_WORD = "quay", "meadow"
_WORDS = 12
_RATE = KnownRate(ttft_s=0.005, step_s=0.002)
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
_START_S = 300.0
#: Prints (method, path) of each route of LiteLLM's application: those of its OpenAPI list, and those that hide from it.
_ROUTES = """
import json
from litellm.proxy.proxy_server import app

def walk(routes):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from walk(inner.routes)
        elif hasattr(route, "path"):
            yield from ((method, route.path) for method in getattr(route, "methods", None) or ("GET", "POST"))

listed = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
print()
print(json.dumps(sorted(listed | set(walk(app.routes)))))
"""


def _solver(word: str) -> Solver:
    def solved(body: dict[str, Any]) -> Solution:
        if body.get("tools"):
            return Solution(tool_calls=(Call("weather", '{"city": "Bergen"}'),))
        return Solution(" ".join([word] * _WORDS))

    return solved


def only_words_of(word: str, answer: Answer) -> None:
    """The answer has a text, and all of it is one backend's."""
    assert set(answer.text.split()) == {word}, answer.raw


class Bench:
    """Both programs and all that they talk to. cloud, site: fields in place of the bench's own. minute_s: over how long
    the edge counts the requests of a client."""

    local_limit, cloud_limit = 1_048_576, 200_000
    model, local_only_model, cloud_model = "deepseek-v4-flash", "deepseek-v4-flash-local", "vendor/flash"
    inner_models = ("dspark-first", "dspark-local", "dspark-cloud")

    def __init__(
        self,
        root: Path,
        *,
        cloud: dict[str, Any] | None = None,
        site: dict[str, Any] | None = None,
        minute_s: int = 60,
    ) -> None:
        self._root = root
        self._minute_s = minute_s
        self._given_cloud, self._given_site = cloud or {}, site or {}
        self._held = ExitStack()
        self._numbers = itertools.count()
        self._litellm: subprocess.Popen[bytes] | None = None
        self._haproxy: subprocess.Popen[bytes] | None = None
        self.key, self.private_key = new_key(), new_key()
        self.router_key, self.cloud_key = "rk-" + secrets.token_hex(24), "ck-" + secrets.token_hex(24)
        self.rendered: dict[str, str] = {}
        #: Answers without the headers that name backend and reason.
        self.unlabelled: list[str] = []

    # --- what tests ask of it

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every key there is."""
        return self.key, self.private_key, self.router_key, self.cloud_key

    @property
    def inner_keys(self) -> tuple[str, ...]:
        """Keys that work behind the edge, and must not in front of it."""
        return self.router_key, self.cloud_key

    def chat(self, text: str = "hello", **more: Any) -> dict[str, Any]:
        """A request that was never asked before: the same prompt again and again is a loop to the gateway."""
        return chat(f"{text} {next(self._numbers)}", **{"model": self.model} | more)

    def with_tools(self, **more: Any) -> dict[str, Any]:
        """A request that is answered by a call."""
        return self.chat("what is the weather in Bergen?", tools=_TOOLS, **more)

    def new_client(self, key: str | None = "") -> httpx.Client:
        """A client of its own connections; with alice's key where none is named."""
        shown = self.key if key == "" else key
        headers = {} if shown is None else {"authorization": f"Bearer {shown}"}
        hooks = {"response": [self._labelled]}
        return httpx.Client(base_url=self.edge_url, headers=headers, verify=self._trust, timeout=120, event_hooks=hooks)

    def _labelled(self, response: httpx.Response) -> None:
        """Every answer names its backend and the reason, whoever made it."""
        if not (response.headers.get("x-dspark-backend") and response.headers.get("x-dspark-reason")):
            self.unlabelled.append(f"{response.request.method} {response.request.url.path}: {response.status_code}")

    def raw_status(self, method: str, path: str, *, key: str | None = None, host: str | None = None) -> int:
        """The status of a request whose path is sent as it stands."""
        line = http.client.HTTPSConnection("localhost", self.edge_port, context=self._trust, timeout=30)
        try:
            line.putrequest(method, path, skip_host=host is not None)
            if host is not None:
                line.putheader("Host", host)
            if key is not None:
                line.putheader("Authorization", f"Bearer {key}")
            if method == "POST":
                line.putheader("Content-Length", "2")
            line.endheaders(b"{}" if method == "POST" else None)
            return line.getresponse().status
        finally:
            line.close()

    def litellm_routes(self) -> list[tuple[str, str]]:
        """(method, path) of every route that LiteLLM's application has, whether or not the router serves it."""
        done = subprocess.run(
            [str(self._venv / "bin/python"), "-I", "-c", _ROUTES],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self._root / "state")},
        )
        return [(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])]

    def set_route(self, code: int) -> None:
        """The supervisor says so, and the shim has seen it."""
        self.status.route = code
        self.wait_shim(up=code == 200)

    def wait_shim(self, *, up: bool) -> None:
        """Until the shim passes requests on, or does not."""
        url = f"http://127.0.0.1:{self.shim_port}"

        def passes() -> bool | None:
            try:
                found = httpx.post(f"{url}/tokenize", json={}, headers={"x-bench-probe": "1"})
            except httpx.RemoteProtocolError:
                return None  # what runs at the moment of going down is cut, this too
            return found.status_code != 503

        wait_until(lambda: passes() is up, f"the shim is {'up' if up else 'down'}")

    def reset(self) -> None:
        """All alive, no trouble, nothing written down."""
        self.local.reset()
        self.cloud.reset()
        self.status.reset()
        self.wait_shim(up=True)
        wait_until(lambda: self.local.door.running + self.cloud.door.running == 0, "what ran before has ended")
        self.local.reset()
        self.cloud.reset()

    def empty_books(self) -> None:
        """Nothing was spent."""
        (self._root / "state/ledger.json").unlink(missing_ok=True)

    def spent_micro_usd(self) -> int:
        """What the books say now, in millionths of a USD."""
        return sum(json.loads((self._root / "state/ledger.json").read_text())["minutes"].values())

    def age_books(self, *, minutes: int) -> None:
        """All that was spent, was so much earlier."""
        path = self._root / "state/ledger.json"
        books = json.loads(path.read_text())
        books["minutes"] = {str(int(at) - minutes): spent for at, spent in books["minutes"].items()}
        books["prompts"] = {}
        path.write_text(json.dumps(books))

    def spoil_books(self) -> None:
        """The file is there and is no ledger."""
        (self._root / "state/ledger.json").write_text('{"schema": ')

    def logs(self) -> str:
        """All that both programs wrote since they started."""
        return "".join((self._root / name).read_text(errors="replace") for name in ("haproxy.log", "litellm.log"))

    def pids(self) -> list[int]:
        """Process ids of both programs."""
        return [p.pid for p in (self._haproxy, self._litellm) if p is not None and p.poll() is None]

    # --- start and stop

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()

    def _start(self) -> None:
        self._haproxy_program, self._venv = programs.haproxy(), programs.environment()
        local = ServerSetup(
            model=self.model, context_length=self.local_limit, known_rate=_RATE, prose_tokens=_WORDS, metrics="lean"
        )
        cloud = local.model_copy(
            update={"model": self.cloud_model, "context_length": self.cloud_limit, "api_key": self.cloud_key}
        )
        self.local = StandIn(local, solver=_solver(LOCAL_WORD))
        self._held.callback(self.local.close)
        self.cloud = StandIn(cloud, solver=_solver(CLOUD_WORD))
        self._held.callback(self.cloud.close)
        self.status = StatusPort()
        self._held.callback(self.status.close)
        self.edge_port, self.router_port, self.shim_port = free_port(), free_port(), free_port()
        self.edge_url, self.router_url = f"https://localhost:{self.edge_port}", f"http://127.0.0.1:{self.router_port}"
        self._write()
        self.ca = self._root / "ca.pem"
        self._trust = ssl.create_default_context(cafile=str(self.ca))
        self.start_haproxy()
        self._held.callback(self.stop_haproxy)
        self._held.callback(self.stop_litellm)
        self.start_litellm()
        self.client = self._held.enter_context(self.new_client())

    def _settings(self) -> GatewaySettings:
        cloud = CloudSite.model_validate(
            {
                "base_url": f"{self.cloud.url}/v1",
                "model": self.cloud_model,
                "key_file": self._root / "unused",
                "max_context": self.cloud_limit,
                "input_usd_per_million": 0.15,
                "output_usd_per_million": 0.3,
                "day_usd": 1000.0,
                "hour_usd": 1000.0,
                **self._given_cloud,
            }
        )
        site = GatewaySite.model_validate(
            {
                "address": "127.0.0.1",
                "port": self.edge_port,
                "router_port": self.router_port,
                "shim_port": self.shim_port,
                "rate_per_minute": 100_000,
                "concurrent": 1000,
                "cloud": cloud,
                **self._given_site,
            }
        )
        self.body_cap = site.body_mib << 20
        clients = (
            Client(name="alice", key_sha256=key_hash(self.key)),
            Client(name="private", key_sha256=key_hash(self.private_key), local_only=True),
        )
        return GatewaySettings(site, self.model, self.local_limit, clients)

    def _write(self) -> None:
        root = self._root
        for name in ("configuration", "state", "credentials"):
            (root / name).mkdir(mode=0o700)
        places = Places(
            configuration=PurePosixPath(root / "configuration"),
            state=PurePosixPath(root / "state"),
            credentials=PurePosixPath(root / "credentials"),
            program=PurePosixPath(root / "gateway.pyz"),
            venv=PurePosixPath(self._venv),
            haproxy=PurePosixPath(self._haproxy_program),
            engine_port=self.local.port,
            status_port=self.status.port,
        )
        self.rendered = render_all(self._settings(), places)
        sooner = {
            "shim.cfg": (" inter 1s ", " inter 200ms "),
            "edge.cfg": ("gpc0_rate(60s)", f"gpc0_rate({self._minute_s}s)"),
        }
        for name in CONFIGURATION:
            text = self.rendered[name]
            if name in sooner:
                assert text.count(sooner[name][0]) == 1, f"{name} is rendered in other words than this bench knows"
                text = text.replace(*sooner[name])
            (root / "configuration" / name).write_text(text)
        (root / "gateway.pyz").write_bytes(zipapp())
        certificate, key = self_signed("localhost")
        (root / "ca.pem").write_bytes(certificate)
        for name, content in (
            ("tls.pem", certificate + key),
            ("edge-secret.cfg", edge_secret(self.router_key).encode()),
            ("router_key", self.router_key.encode()),
            ("cloud_key", self.cloud_key.encode()),
        ):
            path = root / "credentials" / name
            path.touch(mode=0o600)
            path.write_bytes(content)

    def _run(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(self._root / "credentials")}
        environment |= {"HOME": str(self._root / "state"), "LANG": "C.UTF-8"}
        with (self._root / log).open("ab") as out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=self._root
            )

    def start_haproxy(self) -> None:
        """Edge and shim, one process, as the unit starts it."""
        folder = self._root / "configuration"
        files = (self._root / "credentials/edge-secret.cfg", folder / "edge.cfg", folder / "shim.cfg")
        command = [str(self._haproxy_program), "-db", *(part for file in files for part in ("-f", str(file)))]
        self._haproxy = self._run(command, "haproxy.log")
        self._until_open(self.edge_port, self._haproxy, "haproxy.log")

    def start_litellm(self) -> None:
        """The router, as the unit starts it, until the edge passes requests on to it."""
        command = [str(self._venv / "bin/python"), "-I", str(self._root / "gateway.pyz")]
        self._litellm = self._run([*command, str(self._root / "configuration/policy.json")], "litellm.log")
        self._until_open(self.router_port, self._litellm, "litellm.log")

        def reached() -> bool:
            with self.new_client() as client:
                return client.get("/v1/models").status_code == 200

        wait_until(reached, "the edge reaches the router", timeout_s=_START_S)

    def _until_open(self, port: int, process: subprocess.Popen[bytes], log: str) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError(
                    f"{log}: ended with {process.returncode}:\n{(self._root / log).read_text()[-4000:]}"
                )
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=5).connect()
            except OSError:
                return False
            return True

        wait_until(answers, f"{log}: port {port} is open", timeout_s=_START_S)

    def stop_litellm(self) -> None:
        """As systemd does."""
        _stop(self._litellm)

    def stop_haproxy(self) -> None:
        """As systemd does."""
        _stop(self._haproxy)


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
