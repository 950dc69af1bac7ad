"""A Docker Engine that hangs holds a reading up once and not once a question; one that is slow is waited for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dspark_ops.facts.docker_engine import ENGINE_TIMEOUT_S, read_engine
from dspark_ops.transport import collector
from dspark_ops.transport.base import Command, LogScan, NodeReading
from tests.unit.transport.test_collector import collect


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client that does what its first word says; found by the words that this process runs it with."""
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\ncase $1 in hang) exec sleep 30;; slow) sleep 0.8;; esac\necho "{}"\n')
    program.chmod(0o755)
    started = collector.subprocess.Popen

    def start(argv: list[str], **options: object) -> object:
        words = [str(program) if word == "docker" else word for word in argv]
        return started(words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(collector.subprocess, "Popen", start)
    return program


def asked(*words: str, timeout_s: float = 20.0) -> dict[str, object]:
    return Command(" ".join(words), words, timeout_s=timeout_s).wire()


def test_after_one_that_hangs_the_others_fail_at_once(docker: Path) -> None:
    engine = collector.Engine()
    from concurrent.futures import ThreadPoolExecutor

    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(collector.run, asked("docker", "hang", timeout_s=1.2), False, engine)
        side = pool.submit(collector.run, asked("docker", "hang", "too"), False, engine)
        scan = LogScan("log", ("docker", "hang"), (("a", "words", "words"),), ("docker", "hang"), timeout_s=20.0)
        log = pool.submit(collector.run, scan.wire(), False, engine)
        answers = [task.result() for task in (first, side, log)]
    later = collector.run(asked("docker", "info"), False, engine)
    assert time.monotonic() - began < 15.0, "somebody waited for its own 20 s"
    assert answers[0]["error"] == "no answer within 1.2 s: docker hang"
    assert [a["error"] for a in (*answers[1:], later)] == ["the Docker Engine did not answer within 1.2 s"] * 3
    assert "rc" in collector.run(asked("true"), False, engine), "other programs do not ask the Engine"


def test_one_that_is_slow_is_waited_for(docker: Path) -> None:
    engine = collector.Engine()
    answer = collector.run(asked("docker", "slow", timeout_s=20.0), False, engine)
    assert answer["stdout"] == "{}\n"
    assert engine.problem() is None


def test_another_program_that_hangs_says_nothing_of_the_engine(docker: Path) -> None:
    engine = collector.Engine()
    assert "no answer" in collector.run(asked("sleep", "5", timeout_s=0.2), False, engine)["error"]
    assert engine.problem() is None
    assert collector.run(asked("docker", "info"), False, engine)["rc"] == 0


def test_an_engine_under_load_has_more_than_four_seconds() -> None:
    assert 4.0 < ENGINE_TIMEOUT_S <= 5.5


def test_what_fails_at_once_is_an_engine_that_does_not_answer() -> None:
    said = {"id": "docker.info", "error": "the Docker Engine did not answer within 5 s"}
    reading = NodeReading.model_validate({"node": "head", "reachable": True, "results": {"docker.info": said}})
    engine = read_engine(reading)
    assert engine is not None
    assert (engine.answers, engine.error) == (False, said["error"])


@pytest.mark.parametrize(
    ("size", "cut"), [((1 << 20) - 1, False), (1 << 20, False), ((1 << 20) + 1, True), (3 << 20, True)]
)
def test_an_output_that_is_cut_says_so(size: int, cut: bool) -> None:
    result = collect([Command("a", ("head", "-c", str(size), "/dev/zero"))]).get("a")
    assert result.cut is cut
    assert len(result.stdout or "") == min(size, 1 << 20)
