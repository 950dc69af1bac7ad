"""A pair for the daemon to keep: docker and ssh as small programs, the engine as a server in the test's process."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dspark_ops.supervise import zipapp
from tests.free_ports import free_port

PROGRAMS = Path(__file__).parent / "programs"
SITE = "desk"
RELEASE = "r-0123456789ab"
EXPECT = "the quick brown fox"
LABEL = "io.dspark-ops."
_PATIENCE_S = 150.0


class _Handler(http.server.BaseHTTPRequestHandler):
    """A request to the engine, answered as its mode says."""

    engine: Engine

    def do_GET(self) -> None:
        mode = self.engine.mode
        if not self.engine.up():
            self.close_connection = True
        elif self.path == "/health":
            self._say(503 if mode == "dead" else 200, "")
        else:
            running = 1 if mode == "hangs" else 0
            self._say(
                200,
                f'vllm:num_requests_running{{engine="0"}} {running}.0\n'
                f'vllm:num_requests_waiting{{engine="0"}} 0.0\n'
                f'vllm:kv_cache_usage_perc{{engine="0"}} 0.25\n'
                f'vllm:generation_tokens_total{{engine="0"}} {self.engine.tokens}.0\n'
                f'vllm:generation_tokens_created{{engine="0"}} 1.7e9\n',
            )

    def do_POST(self) -> None:
        engine = self.engine
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine.asked.append("stream" if body.get("stream") else "whole")
        while engine.mode == "hangs" and engine.up():
            time.sleep(0.05)
        if not engine.up():
            self.close_connection = True
        elif engine.mode in ("errors", "dead"):
            self._say(500, '{"error": "EngineCore encountered an issue"}')
        else:
            text = "word salad" if engine.mode == "garbles" else f"... {EXPECT} ..."
            engine.tokens += 7
            if body.get("stream"):
                event = json.dumps({"choices": [{"delta": {"content": text}}]})
                self._say(200, f"data: {event}\n\ndata: [DONE]\n\n")
            else:
                self._say(200, json.dumps({"choices": [{"message": {"content": text}}]}))

    def _say(self, code: int, text: str) -> None:
        with contextlib.suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


class Engine:
    """Answers as the engine of the head does while both ranks of one start run; mode says how it misbehaves."""

    def __init__(self, root: Path) -> None:
        self.mode = "ok"
        self.tokens = 0
        self.asked: list[str] = []
        self.handler = type("Handler", (_Handler,), {"engine": self})
        self._root = root
        self._closed = threading.Event()
        self.port = free_port()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def up(self) -> bool:
        """Both ranks run and belong together."""
        epochs = [epoch_of(container(self._root, role)) for role in ("head", "worker")]
        return epochs[0] is not None and epochs[0] == epochs[1]

    def _listen(self) -> None:
        """Have the port while the pair is up, as the engine's own process has."""
        server: http.server.ThreadingHTTPServer | None = None
        while not self._closed.wait(0.02):
            if self.up() == (server is not None):
                continue
            if server is not None:
                server.shutdown()
                server.server_close()
                server = None
            else:
                server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
                server.daemon_threads, server.block_on_close = True, False
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        if server is not None:
            server.shutdown()
            server.server_close()

    def close(self) -> None:
        self._closed.set()
        self._listener.join()


def container(root: Path, role: str) -> dict[str, Any] | None:
    """The state of the one container of a node."""
    try:
        found: dict[str, Any] = json.loads((root / role / "container.json").read_text())
    except FileNotFoundError:
        return None
    return found


def epoch_of(found: dict[str, Any] | None) -> str | None:
    """The start that a running container belongs to."""
    if found is None or not found["State"]["Running"]:
        return None
    return str(found["Config"]["Labels"][f"{LABEL}epoch"])


def rank_document(role: str, release: str = RELEASE) -> dict[str, Any]:
    """A rank's document as `deploy` renders it, without an epoch."""
    labels = {"site": SITE, "role": role, "release": release, "spec": "0" * 64}
    return {
        "name": "dspark-rank",
        "image_id": "sha256:" + "1" * 64,
        "command": ["vllm", "serve", "/models/scripted"],
        "env": {},
        "labels": {LABEL + key: value for key, value in labels.items()},
    }


def config_document(root: Path, engine_port: int, **changes: Any) -> dict[str, Any]:
    """A configuration with times of a test: looks every 1.5 s, and no waiting that nothing needs."""
    settings = {
        "memory_needed_gib": 0.01,
        "probe_s": 1.5,
        "canary_s": 0.3,
        "canary_timeout_s": 2.0,
        "gap_s": 30.0,
        "wedge_window_s": 4.0,
        "wedge_confirm_s": 1.0,
        "engine_dead_s": 0.6,
        "drain_s": 0.5,
        "evidence_limit_s": 60.0,
        "evidence_dead_limit_s": 60.0,
        "stop_grace_s": 2.0,
        "start_limit_s": 300.0,
        "gate_limit_s": 100.0,
        "boot_delay_s": 0.0,
        "backoff_s": [0.0, 0.1],
        "budget": 50,
        **changes.pop("settings", {}),
    }
    document = {
        "schema": "dspark-ops/supervise-config/v1",
        "site": SITE,
        "wanted": "serving",
        "api": {
            "url": f"http://127.0.0.1:{engine_port}",
            "model": "scripted",
            "canary": {"prompt": "say it", "expect": EXPECT, "max_tokens": 32, "thinking": False},
        },
        "worker": {
            "addresses": [
                {"path": "management", "address": "mgmt.worker"},
                {"path": "fabric", "address": "fab.worker"},
            ],
            "user": "root",
            "port": 22,
            "identity": str(root / "key"),
            "known_hosts": str(root / "known_hosts"),
            "host_key_alias": "dspark-worker",
        },
        "ranks": {role: rank_document(role) for role in ("head", "worker")},
        "settings": settings,
        "node_ports": [],
        "status_port": free_port(),
    }
    return {**document, **changes}


class Pair:
    """Two stand-in nodes, their engine, and the daemon as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = Engine(root)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (root / "supervise.pyz").write_bytes(zipapp.build())
        for role in ("head", "worker"):
            (root / role).mkdir()
        self.configure()

    def configure(self, **changes: Any) -> None:
        document = config_document(self.root, self.engine.port, **{"status_port": self.port, **changes})
        (self.root / "supervise.json").write_text(json.dumps(document))

    @property
    def environment(self) -> dict[str, str]:
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        return {"PATH": path, "STAND_IN_DIR": str(self.root), "STAND_IN_NODE": "head", "HOME": str(self.root)}

    def words(self, *verb: str) -> list[str]:
        """The command line of a verb of the packed program."""
        places = ["--config", "supervise.json", "--state-dir", "state", "--run-dir", "run"]
        for index in (1, 3, 5):
            places[index] = str(self.root / places[index])
        return [sys.executable, "-IS", str(self.root / "supervise.pyz"), *places, *verb]

    def start(self, *, stop_at: str = "", **environment: str) -> None:
        """Start the daemon; its own words go to daemon.log. stop_at: see `stop_at`."""
        self.stop_at(stop_at)
        python, options, *words = self.words("run")
        with (self.root / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [python, options, str(PROGRAMS / "stops_at.py"), *words],
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_at(self, state: str) -> None:
        """Let the daemon stand still as soon as this state is on disk, before anything follows; empty: never."""
        path = self.root / "stop-at"
        path.with_suffix(".new").write_text(state)
        path.with_suffix(".new").replace(path)

    def mend(self) -> None:
        """Bring it back to serving, with a configuration of its own choosing, whatever a test left."""
        for left in (
            "head/down",
            "head/hangs",
            "worker/down",
            "cut-mgmt.worker",
            "hangs-mgmt.worker",
            "hangs-fab.worker",
        ):
            (self.root / left).unlink(missing_ok=True)
        self.engine.mode = "ok"
        self.until(
            lambda: self._process is None or self._process.poll() is not None or bool(self.status()), "it answers"
        )
        before = (self.root / "supervise.json").read_text()
        self.configure()
        same = before == (self.root / "supervise.json").read_text()
        if same and self.status().get("state") == "serving" and not self.status()["held"] and self.serves():
            return
        self.kill()
        self.start()
        self.until(lambda: bool(self.status()), "it answers")
        self.ask("resume")
        self.until_serving()

    def kill(self) -> None:
        """End the daemon without a word, as `kill -9` does; what it had begun goes on or dies with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self._process is not None
        return self._process.pid

    def ask(self, *verb: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the packed program, as root does over SSH."""
        return subprocess.run(
            self.words(*verb), env=self.environment, capture_output=True, text=True, timeout=40, check=False
        )

    def saved(self) -> dict[str, Any]:
        """The state on disk, {} when there is none."""
        try:
            found: dict[str, Any] = json.loads((self.root / "state/state.json").read_text())["state"]
        except FileNotFoundError:
            return {}
        return found

    def journal(self) -> list[dict[str, Any]]:
        try:
            text = (self.root / "state/journal.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def calls(self, role: str) -> list[str]:
        """What docker was told to change on a node: verb and epoch."""
        try:
            return (self.root / role / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []

    def epochs(self) -> tuple[str | None, str | None]:
        """Of the running containers of head and worker."""
        return epoch_of(container(self.root, "head")), epoch_of(container(self.root, "worker"))

    def serves(self) -> bool:
        """One whole start runs and the saved state says so."""
        head, worker = self.epochs()
        saved = self.saved()
        return saved.get("state") == "serving" and head is not None and head == worker == saved.get("epoch")

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for it; what: for the failure."""
        deadline = time.monotonic() + _PATIENCE_S
        while not true():
            if time.monotonic() > deadline:
                log = (self.root / "daemon.log").read_text()[-6000:]
                raise AssertionError(f"never: {what}; state {self.saved().get('state')}\n{log}")
            time.sleep(0.03)

    def until_serving(self) -> str:
        """Wait until it serves, and give the epoch."""
        self.until(self.serves, "serving")
        return str(self.epochs()[0])

    def die(self, role: str, code: int = 0) -> None:
        """The rank's process ends by itself, as the engine does: with 0."""
        path = self.root / role / "container.json"
        found = json.loads(path.read_text())
        found["State"] = {**found["State"], "Status": "exited", "Running": False, "ExitCode": code, "Pid": 0}
        path.with_suffix(".die").write_text(json.dumps(found))
        path.with_suffix(".die").replace(path)
        attributes = {**found["Config"]["Labels"], "exitCode": str(code)}
        event = json.dumps({"Action": "die", "Actor": {"ID": found["Id"], "Attributes": attributes}})
        with (self.root / role / "events").open("a") as out:
            out.write(event + "\n")

    def get(self, path: str) -> tuple[int, str]:
        """Ask the status port."""
        return fetch(f"http://127.0.0.1:{self.port}{path}")

    def status(self) -> dict[str, Any]:
        """The status document, {} while nobody answers."""
        try:
            document: dict[str, Any] = json.loads(self.get("/status")[1])
        except OSError:
            return {}
        return document

    def close(self) -> None:
        self.kill()
        self.engine.close()


def fetch(url: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of an answer, whatever the status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def stand_in_pair(root: Path) -> Iterator[Pair]:
    """A pair that is taken down at the end."""
    pair = Pair(root)
    try:
        yield pair
    finally:
        pair.close()
