"""The program that runs on a node, run here as it runs there: fed to python3 on standard input."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import pytest

from dspark_ops.transport.base import Command, Files, Filesystem, ForEach, Http, Links, NodeReading, Probe
from dspark_ops.transport.ssh import _parse_answer


def collect(probes: Sequence[Probe]) -> NodeReading:
    payload = base64.b64encode(json.dumps([p.wire() for p in probes]).encode()).decode()
    source = resources.files("dspark_ops.transport").joinpath("collector.py").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-"],
        input=f"{source}\nmain({payload!r})\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return _parse_answer("here", done.returncode, done.stdout, done.stderr, 0.0, 9e12, 0.1)


class _Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/health" else 200)
        self.end_headers()
        self.wfile.write(b"dead" if self.path == "/health" else b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_commands_report_exit_code_output_and_what_never_ran() -> None:
    reading = collect(
        [
            Command("ok", ("uname", "-s")),
            Command("bad", ("ls", "/nonexistent-dir")),
            Command("none", ("no-such-program-here",)),
            Command("slow", ("sleep", "5"), timeout_s=0.2),
        ]
    )
    assert reading.reachable
    assert reading.get("ok").text() == "Linux\n"
    assert reading.get("bad").rc not in (None, 0)
    assert reading.get("bad").text() is None
    assert "no such program" in (reading.get("none").error or "")
    assert "0.2 s" in (reading.get("slow").error or "")
    assert reading.get("slow").rc is None


def test_an_argument_is_never_a_shell_word(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    reading = collect([Command("c", ("uname", "-s", f"; touch {victim}"))])
    assert reading.get("c").rc != 0
    assert not victim.exists()


def test_files_links_and_file_systems(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("x" * 100)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    reading = collect(
        [
            Files("f", (f"{tmp_path}/[ab]", f"{tmp_path}/missing"), max_bytes=10),
            Links("l", (f"{tmp_path}/link",)),
            Filesystem("d", f"{tmp_path}/not/yet/there"),
        ]
    )
    assert reading.get("f").files == {f"{tmp_path}/a": "one", f"{tmp_path}/b": "x" * 10}
    assert reading.get("l").files == {f"{tmp_path}/link": str((tmp_path / "a").resolve())}
    numbers = reading.get("d").numbers
    assert numbers is not None
    assert 0 < numbers["free_bytes"] <= numbers["total_bytes"]


def test_http_keeps_a_bad_status_and_a_refused_connection_apart(api: str) -> None:
    reading = collect(
        [
            Http("health", f"{api}/health"),
            Http("post", f"{api}/x", body={"a": [1]}),
            Http("refused", "http://127.0.0.1:1/health", timeout_s=1),
        ]
    )
    assert (reading.get("health").rc, reading.get("health").ok) == (503, False)
    assert json.loads(reading.get("post").stdout or "") == {"a": [1]}
    assert reading.get("refused").rc is None
    assert "refused" in (reading.get("refused").error or "").lower()


def test_bytes_that_are_no_text_do_not_break_the_answer(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x00\x1e\n")
    reading = collect([Files("f", (f"{tmp_path}/raw",))])
    assert reading.reachable
    assert "\x1e" in (reading.get("f").files or {})[f"{tmp_path}/raw"]


@pytest.mark.parametrize("noise", ["", "motd line\n", "\x1edspark-ops {broken\n"])
def test_an_answer_that_is_none_says_so(noise: str) -> None:
    reading = _parse_answer("node", 127, noise, "sh: 1: python3: not found", 0.0, 1.0, 0.1)
    assert not reading.reachable
    assert reading.error
    assert reading.get("anything").error == "node not reached"


def test_a_program_runs_once_per_name_that_is_found_on_the_node(tmp_path: Path) -> None:
    long = "operator-of-the-second-pair"  # a network device has 15 letters, a user's home has up to 32
    for name in ("enp1s0f0np0", "-rf", "enP2p1s0f0np0", long):
        (tmp_path / "net" / name).mkdir(parents=True)
    (tmp_path / "parent").write_text("enp1s0f1np1\n")
    probe = ForEach(
        "echo", ("echo", "port", "{}"), links=(f"{tmp_path}/net/*",), contents=(f"{tmp_path}/parent", "/nowhere/*")
    )
    files = collect([probe]).get("echo").files
    # A name that a program could take for an option is not passed on.
    assert files == {name: f"port {name}\n" for name in ("enP2p1s0f0np0", "enp1s0f0np0", "enp1s0f1np1", long)}


def test_late_probes_see_what_the_others_left(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    late = Command("late", ("cat", str(mark)), late=True)
    first = Command("first", ("bash", "-c", f"sleep 0.3; echo done > {mark}"))
    assert collect([late, first]).get("late").stdout == "done\n"
