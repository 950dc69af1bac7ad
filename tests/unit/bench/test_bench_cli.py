"""`dspark-ops bench` from the command line to the file, the text and the exit code, over real HTTP on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dspark_ops.bench import control
from dspark_ops.bench.control import RunRequest, plan_of
from dspark_ops.bench.progress import ProgressLine, line
from dspark_ops.bench.records import read_run
from dspark_ops.bench.runner import Progress
from dspark_ops.cli.bench import app
from dspark_ops.errors import ConfigError, DsparkError
from dspark_ops.gates.control import Target
from tests.openai_server.serving import serve
from tests.openai_server.setup import ServerSetup
from tests.unit.bench.made_runs import RATES, made_file

RUNNER = CliRunner()
SHORT = ("--class", "prose", "-c", "1", "--per-block", "2", "--rounds", "1", "--max-tokens", "100", "--idle", "0")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve(ServerSetup(metrics="lean", time_scale=0.1)) as url:
        yield url


def test_a_run_leaves_a_file_and_reports_it(server: str, tmp_path: Path) -> None:
    out, page = tmp_path / "run.jsonl", tmp_path / "run.html"
    words = ["run", "--url", server, *SHORT, "--seed", "3", "--out", str(out), "--html", str(page), "--json"]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "dspark-ops/bench-report/v1"
    (run,) = document["runs"]
    assert run["partial"] is None
    assert run["header"]["servers"][0]["version"]
    assert run["header"]["plan"]["seed"] == 3
    (cell,) = run["arms"][0]["cells"]
    assert cell["figures"]["valid"] == 2
    assert "<svg" in page.read_text()
    assert read_run(out).end is not None
    assert f"measured: {out}" in result.stderr

    text = RUNNER.invoke(app, ["report", str(out)])
    assert text.exit_code == 0
    assert "no headline" in text.stdout
    again = RUNNER.invoke(app, words)
    assert isinstance(again.exception, ConfigError)


def test_two_servers_in_turn(server: str, tmp_path: Path) -> None:
    out = tmp_path / "abba.jsonl"
    words = ["compare", "--abba", server, server, *SHORT, "--out", str(out), "--json"]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["order"], document["paired"]) == ("interleaved", True)
    assert [block.arm for block in read_run(out).blocks] == ["A", "B", "B", "A"]


def test_a_server_that_is_not_there_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    result = RUNNER.invoke(app, ["run", "--url", "http://127.0.0.1:9", *SHORT, "--out", str(out)])
    assert isinstance(result.exception, DsparkError)
    assert int(result.exception.exit_code) == 3
    assert not out.exists()


def test_interrupted_it_names_the_partial_file(server: str, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    words = ["run", "--url", server, "--rounds", "100", "--class", "prose", "--idle", "0", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "dspark_ops", "bench", *words],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until = time.monotonic() + 45
            while not out.exists() or b'"record":"block"' not in out.read_bytes():
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until, "no block in time"
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"bench report {out}" in said
    assert "Traceback" not in said
    result = RUNNER.invoke(app, ["report", str(out)])
    assert result.exit_code == 0
    assert "PARTIAL: interrupted after" in result.stdout


def test_what_cannot_be_run_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    for words in (
        ["run", "--url", "http://127.0.0.1:9", "--class", "poems"],
        ["run", "--url", "http://127.0.0.1:9", "--profile", "endless"],
        ["run", "--url", "http://127.0.0.1:9", "--extra", "[1]"],
        ["run", "--url", "http://127.0.0.1:9", "--extra", '{"temperature": 0}'],
        ["run", "--url", "http://127.0.0.1:9", "--extra", '{"a": [{"api_key": "x"}]}'],
        ["run", "--url", "http://127.0.0.1:9", "--cache", "tepid"],
        ["run", "--url", "http://127.0.0.1:9", "--site", "site.yml"],
        ["compare", "--abba", "http://127.0.0.1:9"],
        ["report", str(tmp_path / "missing.jsonl")],
        ["compare", str(tmp_path), str(tmp_path)],
    ):
        result = RUNNER.invoke(app, words)
        assert isinstance(result.exception, ConfigError), words


def test_a_loss_beyond_what_is_allowed_is_a_bad_verdict(tmp_path: Path) -> None:
    a = str(made_file(tmp_path / "a.jsonl"))
    b = str(made_file(tmp_path / "b.jsonl", rate=lambda _, name, i, __: 0.9 * (RATES[name] + i)))
    assert RUNNER.invoke(app, ["compare", a, b]).exit_code == 0
    assert RUNNER.invoke(app, ["compare", a, b, "--max-loss", "5"]).exit_code == 1
    assert RUNNER.invoke(app, ["compare", a, b, "--max-loss", "15"]).exit_code == 0
    assert RUNNER.invoke(app, ["compare", b, a, "--max-loss", "5"]).exit_code == 0


def test_a_server_that_answers_less_is_not_as_fast(tmp_path: Path) -> None:
    a = str(made_file(tmp_path / "a.jsonl"))
    fails = str(made_file(tmp_path / "b.jsonl", failed=lambda _, i, __: i % 2 == 1))
    result = RUNNER.invoke(app, ["compare", a, fails, "--max-loss", "50"])
    assert result.exit_code == 1
    assert "B is worse: all requests:" in result.stderr
    assert RUNNER.invoke(app, ["compare", fails, a, "--max-loss", "50"]).exit_code == 0
    wrong = str(made_file(tmp_path / "c.jsonl", wrong=lambda _, i, __: i % 2 == 1))
    assert RUNNER.invoke(app, ["compare", a, wrong, "--max-loss", "50"]).exit_code == 1
    assert RUNNER.invoke(app, ["compare", a, wrong]).exit_code == 0


def test_a_class_that_only_one_could_serve_is_no_verdict(tmp_path: Path) -> None:
    a = str(made_file(tmp_path / "a.jsonl"))
    b = str(made_file(tmp_path / "b.jsonl", classes=("prose",)))
    result = RUNNER.invoke(app, ["compare", a, b, "--max-loss", "50"])
    assert result.exit_code == 3
    assert "B has no valid rate there" in result.stderr


def test_nothing_measured_is_no_verdict(tmp_path: Path) -> None:
    path = made_file(tmp_path / "a.jsonl", classes=("prose",), void=lambda _, __, ___: True)
    result = RUNNER.invoke(app, ["report", str(path)])
    assert result.exit_code == 3
    assert "all 2 blocks are void" in result.stdout
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(path.read_bytes()[:50])
    result = RUNNER.invoke(app, ["report", str(empty)])
    assert result.exit_code == 3
    assert "PARTIAL: cut within its first line" in result.stdout


def test_a_rehearsal_is_told_from_a_pair_by_its_site(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for known_text, hardware in (("pong", "rehearsal"), (None, "two GB10")):
        target = Target(name="lab", url=server, model="tiny", known_text=known_text)
        monkeypatch.setattr(control, "reached", lambda _, target=target: nullcontext(target))
        out = tmp_path / f"{hardware}.jsonl"
        result = RUNNER.invoke(app, ["run", "--site", "site.yml", *SHORT, "--out", str(out)])
        assert result.exit_code == 0, result.output
        header = read_run(out).header
        assert header.client["hardware"] == hardware
        assert header.servers[0].base_url == "site lab"
        assert ("a rehearsal: another model on a processor" in result.stdout) == (known_text is not None)


def test_arms_in_turn_have_as_many_of_either_order() -> None:
    plan = plan_of(RunRequest(abba=("http://a", "http://b"), plan={"rounds": 3}))
    assert (plan.arms, plan.rounds) == (("A", "B"), 4)
    assert plan_of(RunRequest(abba=("http://a", "http://b"))).rounds == 2


def test_the_progress_says_the_time_left() -> None:
    state = Progress("prose, 1 streams, cold, 4 requests", 3, 12, 60.0, 185.0)
    assert line(state) == "[######..................]  3 of 12  3 min 5 s left  prose, 1 streams, cold, 4 requests"
    written: list[str] = []
    moments = iter([0.0, 1.0, 2.0, 13.0])
    shown = ProgressLine(written.append, in_place=False, clock=lambda: next(moments))
    for done in (0, 0, 1, 1):
        shown.say(Progress("x", done, 2, 0.0, None))
    # The first, a block that was done, and one after ten seconds.
    assert len(written) == 3
