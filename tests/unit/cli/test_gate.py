"""`dspark-ops gate` as a user and a deploy call it: over real HTTP, with its exit codes, files and one document."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.config.models import GateSite
from dspark_ops.gates.record import read_run
from dspark_ops.releases.gate import command_of, run_program
from tests.openai_server.answers import Solution, call_of
from tests.openai_server.app import Lies, ServerSetup, make_app
from tests.openai_server.serving import serve

pytestmark = pytest.mark.timeout(300)

TEXT = "The quick brown fox jumps over the lazy dog."
SETUP = ServerSetup(model="tiny", context_length=4096, prefill_rate=20000.0, decode_step_s=0.02)


def rehearsed(body: dict[str, Any]) -> Solution:
    """What the rehearsal's model says, as its profile knows it: a call, a text without end, or one sentence."""
    known = load_profile("rehearsal").known
    assert known.call is not None
    assert known.long is not None
    if body.get("tools"):
        return Solution(tool_calls=(call_of(known.call.model_dump()),))
    if body["messages"][-1]["content"] == known.long.prompt:
        return Solution(known.long.text, finish="length")
    return Solution(TEXT)


def server(setup: ServerSetup = SETUP, text: str = TEXT) -> object:
    """A model that says one text whatever it is asked, as the rehearsal's does."""
    return serve(make_app(setup, solver=lambda _body: Solution(text)))


@pytest.fixture
def url() -> Iterator[str]:
    with server() as base:  # type: ignore[attr-defined]
        yield base


def gate(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DSPARK")}
    return subprocess.run(
        [sys.executable, "-m", "dspark_ops", "gate", *words],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
        env=kept | {"XDG_STATE_HOME": str(cwd / "state")} | environ,
    )


def test_smoke_passes_and_leaves_document_junit_and_folder(url: str, tmp_path: Path) -> None:
    out, junit = tmp_path / "run", tmp_path / "gate.xml"
    words = ("--url", url, "--known-text", TEXT, "--json", "--junit", str(junit), "--out", str(out))
    done = gate("smoke", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["verb"], document["exit_code"], document["verdict"]) == ("gate smoke", 0, "ready")
    assert "0 of 10 cold requests were bad: at most 25.9 %" in document["message"]
    findings = {finding["id"]: finding["status"] for finding in document["findings"]}
    assert findings == {"gate.verdict": "ok", "gate.prompts": "ok", "gate.tools": "ok", "gate.oracles": "ok"}
    assert ET.parse(junit).getroot().get("failures") == "0"  # noqa: S314 - our own file
    kinds = [entry["record"] for entry in read_run(out)]
    assert (kinds[0], kinds[-1]) == ("header", "end")
    assert json.loads((out / "gate.json").read_text())["verdict"] == "pass"


def test_a_wrong_text_is_a_bad_verdict_that_names_it(tmp_path: Path) -> None:
    with server(text="The quick brown fox jumps over the hazy dog.") as base:  # type: ignore[attr-defined]
        done = gate("smoke", "--url", base, "--known-text", TEXT, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "the gate did not pass: 10 of 10 cold requests were bad" in done.stdout
    assert "read the bad answers in" in done.stdout


def test_a_key_that_the_server_says_is_shown_nowhere(tmp_path: Path) -> None:
    key = "Zx81veryOwnKey77"
    out = tmp_path / "run"
    with server(text=f"Your key is {key}.") as base:  # type: ignore[attr-defined]
        words = ("--url", base, "--known-text", TEXT, "--out", str(out), "--json")
        done = gate("smoke", *words, cwd=tmp_path, DSPARK_API_KEY=key)
    assert done.returncode == 1, done.stderr
    assert "Your key is" in done.stdout
    said = done.stdout + done.stderr + (out / "gate.json").read_text() + (out / "run.jsonl").read_text()
    assert key not in said


def test_warm_served_as_cold_is_void_with_exit_three(tmp_path: Path) -> None:
    with server(SETUP.model_copy(update={"lies": Lies(always_warm=True)})) as base:  # type: ignore[attr-defined]
        done = gate("smoke", "--url", base, "--known-text", TEXT, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the gate is void, no verdict" in done.stdout


def test_the_address_of_a_deploy_is_enough_and_wins_over_a_site_file(url: str, tmp_path: Path) -> None:
    """As a site's gate program: the folder has a site.yml, the API is in the environment."""
    (tmp_path / "site.yml").write_text("no site at all")
    done = gate("smoke", "--known-text", TEXT, cwd=tmp_path, DSPARK_API_URL=url, DSPARK_MODEL="tiny")
    assert done.returncode == 0, done.stderr


def test_our_own_gate_runs_as_the_sites_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    profile = load_profile("rehearsal")
    command = command_of(GateSite(builtin="smoke"), profile)
    # It runs in the site's folder, whose files are no modules of ours.
    (tmp_path / "typer.py").write_text("raise SystemExit(77)")
    with serve(make_app(SETUP, solver=rehearsed)) as url:
        environment = {"DSPARK_API_URL": url, "DSPARK_MODEL": "tiny", "DSPARK_RELEASE": "r-1"}
        good = run_program(command, 200, environment, lambda _line: None, folder=tmp_path)
        assert (good.outcome, good.rc) == ("passed", 0), good.tail
        bad = run_program(command, 200, environment | {"DSPARK_MODEL": "other"}, lambda _line: None, folder=tmp_path)
        assert (bad.outcome, bad.rc) == ("failed", 3)
    # A model that says its sentence only, and makes no call, is not what the profile knows.
    with server() as url:  # type: ignore[attr-defined]
        wrong = run_program(command, 200, environment | {"DSPARK_API_URL": url}, lambda _line: None, folder=tmp_path)
    assert (wrong.outcome, wrong.rc) == ("failed", 1), wrong.tail


def test_a_model_that_is_not_rehearsed_is_asked_an_agents_questions() -> None:
    assert "--known-text" not in command_of(GateSite(builtin="release"), load_profile("current"))
    assert command_of(GateSite(command=("/bin/true",)), load_profile("current")) == ("/bin/true",)


def test_a_run_that_was_killed_can_be_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with server(SETUP.model_copy(update={"decode_step_s": 0.1})) as base:  # type: ignore[attr-defined]
        words = ("gate", "smoke", "--url", base, "--known-text", TEXT, "--out", str(out))
        process = subprocess.Popen(
            [sys.executable, "-m", "dspark_ops", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
        )
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if (out / "run.jsonl").exists() and '"burst"' in (out / "run.jsonl").read_text():
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -9
    kinds = [entry["record"] for entry in read_run(out)]
    assert kinds[0] == "header"
    assert "burst" in kinds
    assert "end" not in kinds


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("smoke",), 2, "nobody to ask"),
        (("smoke", "--url", "http://127.0.0.1:9", "--site", "site.yml"), 2, "both given"),
        (("smoke", "--url", "http://127.0.0.1:9"), 3, "does not say which models it serves"),
        (("smoke", "--url", "nonsense"), 2, "not"),
        (("certify", "--url", "http://127.0.0.1:9"), 2, "--out"),
        (("smoke", "--url", "http://127.0.0.1:9", "--known-call", '{"name": "f", "arguments": {}}'), 2, "known text"),
        (("smoke", "--url", "http://127.0.0.1:9", "--extra", "{"), 2, "no JSON"),
        (("diff", "--url", "http://127.0.0.1:9", "--warm-cold", "--against-run", "x"), 2, "one pair of ways"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(words: tuple[str, ...], code: int, part: str, tmp_path: Path) -> None:
    done = gate(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert part in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_imports_neither_http_nor_statistics() -> None:
    code = (
        "import sys; sys.argv = ['dspark-ops', 'gate', 'release', '--help']\n"
        "from dspark_ops.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'httpx', 'scipy', 'numpy', 'jsonschema'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
