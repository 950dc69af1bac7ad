"""`kv plan` as a user calls it: exit codes, one document, and what the text must say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.kv.release import parse_answer
from tests.unit.kv.conftest import EXAMPLE, LOGS
from tests.unit.kv.test_bootlog import gpu_log


def kv(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dspark_ops", "kv", "plan", "--site", str(EXAMPLE), *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_a_plan_names_the_record_the_tokens_and_the_levers() -> None:
    done = kv("--memory-gib", "12", "--no-async")
    assert done.returncode == 0, done.stderr
    for words in ("1,809,462", "1,002,240 bytes", "7,450 blocks", "1.73 requests of 1,048,576", "51041"):
        assert words in done.stdout
    assert "the seed's nvfp4_ds_mla: FP8 in a 584-byte envelope" in done.stdout
    assert "nvfp4-384: NVFP4, 384 bytes; not carried by this build" in done.stdout


def test_the_document_is_alone_on_stdout_and_has_every_lever() -> None:
    done = kv("--memory-bytes", "21316272128", "--no-async", "--record", "alias-584", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "dspark-ops/kv-plan/v1"
    assert document["capacity"]["tokens"] == 3_027_217
    own = [row for row in document["levers"] if row["record"] == "alias-584" and row["in_flight_tokens"] == 8192]
    assert own[0]["gain"] == 1.0
    assert {row["in_flight_tokens"] for row in document["levers"]} == {16384, 8192, 4096, 2048}
    shorter = [row for row in document["levers"] if row["max_model_len"] == 262_144]
    assert shorter[0]["tokens"] < 3_027_217
    assert shorter[0]["gain"] is None
    assert shorter[0]["concurrency_1m"] == pytest.approx(document["concurrency_1m"])


def test_without_a_pool_it_is_a_usage_error() -> None:
    done = kv()
    assert done.returncode == 2
    assert "--available-gib" in done.stderr
    assert done.stdout == ""


def test_a_pool_too_small_for_one_request_is_bad() -> None:
    done = kv("--memory-gib", "5", "--no-async")
    assert done.returncode == 1
    assert "vLLM would not start" in done.stdout
    assert "the longest that would is" in done.stdout


def test_a_log_that_agrees_is_ok_and_brings_its_own_memory() -> None:
    done = kv("--no-async", "--boot-log", "-", stdin=gpu_log(1_809_462))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: the boot has 1,809,462 tokens" in done.stdout


def test_a_log_of_doubled_flight_is_explained() -> None:
    done = kv("--no-async", "--memory-gib", "12", "--boot-log", "-", stdin=gpu_log(1_250_741))
    assert done.returncode == 1
    assert "would be explained by: asynchronous scheduling on (two batches in flight)" in done.stdout


def test_a_log_without_a_figure_is_no_verdict() -> None:
    done = kv("--memory-gib", "12", "--boot-log", "-", stdin="INFO nothing of use\n")
    assert done.returncode == 3
    assert "GPU KV cache size" in done.stderr


def test_a_real_log_of_the_tiny_model_agrees() -> None:
    words = ("--set", "profile=rehearsal", "--config", str(LOGS / "config.json"), "--set", "serve.max_model_len=4096")
    done = kv(*words, "--boot-log", str(LOGS / "fixed.log"))
    # The log is of one rank, the site has two: the difference has a name.
    assert done.returncode == 1
    assert "tensor parallelism 1 instead of 2" in done.stdout


def test_an_absent_log_and_an_idle_image_are_usage_errors() -> None:
    assert kv("--memory-gib", "12", "--boot-log", "/nonexistent/boot.log").returncode == 2
    assert kv("--memory-gib", "12", "--image", "x:1").returncode == 2


def test_an_engine_that_cannot_be_asked_is_said_beside_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    done = kv("--memory-gib", "12", "--no-async", "--engine")
    assert done.returncode == 3
    assert "1,809,462" in done.stdout
    assert "the release's own planner was not asked" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"vllm": "0.32.0"}',
        '{"vllm": "0.32.0", "results": []}',
        '{"vllm": "0.32.0", "results": [{"error": "ValueError: no"}]}',
        '{"vllm": "0.32.0", "results": [{"tokens": 1}]}',
    ],
)
def test_an_answer_that_is_none_is_no_verdict(text: str) -> None:
    with pytest.raises(NoVerdictError):
        parse_answer(text, 1)
