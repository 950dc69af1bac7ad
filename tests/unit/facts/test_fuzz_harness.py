"""The fuzz harness: a small run of the real one, what it calls a failure, and what was once found with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from dspark_ops.facts.gpu import parse_compute_apps
from dspark_ops.facts.listeners import parse_listeners
from dspark_ops.facts.nccl_log import parse_nccl_log
from dspark_ops.facts.processes import parse_users
from dspark_ops.facts.rank import parse_top
from dspark_ops.facts.rdma import cage_of
from dspark_ops.facts.rdma_tools import parse_ibdev2netdev, parse_rdma_link
from dspark_ops.facts.system import parse_key_values
from dspark_ops.facts.weights import parse_config
from dspark_ops.kv.bootlog import parse_boot_log
from dspark_ops.transport import collector
from dspark_ops.transport.base import ProbeResult
from tests.fuzz import harness, mutators, run
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import every_parser

INPUTS = 2_000
MANY_DIGITS = "9" * 5000


class Number(BaseModel):
    """A fact of the tests."""

    value: float


def small(function: object) -> Parser:
    return Parser("small", function, texts=("text",), seeds=[{"text": "one 1\ntwo 2\nthree 3\n"}])  # type: ignore[arg-type]


def test_two_thousand_inputs_find_nothing() -> None:
    parsers, strange = every_parser()
    assert not strange
    assert len(parsers) > 100
    found = run.Run(parsers, seed=int(time.time()), state=None)
    found.go(INPUTS, seconds=20)
    assert not [run.told(failure) for failure in found.failures.values()]


@pytest.mark.parametrize(
    ("parse", "error"),
    [
        (lambda text: int(text), "ValueError"),
        (lambda **_: object(), "UntypedError"),
        (lambda **_: (Number(value=float("nan")),), "UntypedError"),
        (lambda **_: [0 for _ in iter(int, 1)], "HangError"),
    ],
)
def test_what_a_failure_is(parse: object, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "LIMIT_S", 0.05)
    failure = harness.attempt(small(parse), {"text": "x"})
    assert failure is not None
    assert failure.error.startswith(error)


def test_a_failing_input_is_made_small() -> None:
    def picky(text: str) -> None:
        if "needle" in text:
            raise KeyError(text)

    parser = small(picky)
    failure = harness.attempt(parser, {"text": "some hay\nmore needles\nhay\n" * 30})
    assert failure is not None
    assert harness.minimised(parser, failure).pieces == {"text": "needle"}


def test_an_input_is_known_by_its_number() -> None:
    parser = every_parser()[0][0]
    assert harness.input_of(parser, 1, 5) == harness.input_of(parser, 1, 5)
    assert [harness.input_of(parser, 1, n) for n in range(9)] != [harness.input_of(parser, 2, n) for n in range(9)]


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    fed: list[str] = []
    parser = small(lambda text: fed.append(text))
    for inputs in (20, 50):
        run.Run([parser], 3, tmp_path / "state").go(inputs, None)
    assert len(fed) == 50
    assert json.loads((tmp_path / "state").read_text())["done"] == {"small": 50}
    twice: list[str] = []
    run.Run([small(lambda text: twice.append(text))], 3, None).go(50, None)
    assert twice == fed


@pytest.mark.parametrize("change", [change for _, change in mutators.MUTATORS])
def test_every_mutator_takes_any_text(change: object) -> None:
    for number, text in enumerate(["", "a", "\n", "1.5 GiB\n", '{"a": [1, {"b": null}]}', "[]", "x y\n" * 50]):
        assert isinstance(change(Random(number), text), str)  # type: ignore[operator]  # noqa: S311


def test_numbers_beyond_what_python_converts_are_not_seen() -> None:
    assert parse_compute_apps(f"{MANY_DIGITS}, python, 5 MiB\n12, python, {MANY_DIGITS} MiB\n") is not None
    assert parse_top(f"PID\n{MANY_DIGITS}\n7\n") == (7,)
    assert cage_of(f"p{MANY_DIGITS}", "0000:01:00.1") == 1
    assert parse_listeners(f"LISTEN 0 5 1.2.3.4:{MANY_DIGITS} *:*") == ()
    (open_port,) = parse_listeners(f'LISTEN 0 5 1.2.3.4:80 *:* users:(("x",pid={MANY_DIGITS},fd=3))') or ()
    assert open_port.pid is None
    assert parse_users(f"a:x:{MANY_DIGITS}:1\nb:x:7:7\n") == {7: "b"}
    assert parse_rdma_link(f"link rocep1s0f0/{MANY_DIGITS} state ACTIVE") is None
    assert parse_ibdev2netdev(f"rocep1s0f0 port {MANY_DIGITS} ==> enp1s0f0np0 (Up)") is None
    assert parse_nccl_log(f"NET/IB : Using [0]rocep1s0f0:{MANY_DIGITS}/RoCE") is not None
    assert parse_boot_log(f"GPU KV cache size: {MANY_DIGITS} tokens") is None


def test_a_scale_that_no_float_holds_scales_nothing() -> None:
    scaling = f'{{"original_max_position_embeddings": 65536, "factor": {"9" * 400}}}'
    config = parse_config(f'{{"max_position_embeddings": 4096, "rope_scaling": {scaling}}}')
    assert config is not None
    assert config.context_tokens == 4096


def test_blank_lines_without_end_are_read_in_a_moment() -> None:
    began = time.process_time()
    assert parse_key_values("\n" * 50_000 + "DGX_NAME=x") == [("DGX_NAME", "x")]
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("/etc/\udcff.conf", "/etc/\ufffd.conf"),
        (r'{"a": "\ud800"}', r'{"a": "\ufffd"}'),
        (r'{"a": "\udc00x"}', r'{"a": "\ufffdx"}'),
        (r'{"a": "\ud83e\udd80"}', r'{"a": "\ud83e\udd80"}'),
        ("plain \\u0041 🦀", "plain \\u0041 🦀"),
    ],
)
def test_half_a_surrogate_pair_does_not_pass_the_border(sent: str, kept: str) -> None:
    result = ProbeResult(id="x", error=sent, stdout=sent, stderr=sent, files={sent: sent})
    assert (result.error, result.stdout, result.stderr, result.files) == (kept, kept, kept, {kept: kept})
    assert result.model_dump_json()


_HUNDRED_MB = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from dspark_ops.transport import collector
emit = (
    "import sys\\n"
    "line = b'2026-11-27T10:00:%02d line %d of the engine, nothing to see\\\\n'\\n"
    "block = b''.join(line % (i % 60, i) for i in range(20000))\\n"
    "[sys.stdout.buffer.write(block) for _ in range(100_000_000 // len(block) + 1)]\\n"
    "sys.stdout.buffer.write(b'x' * 5_000_000 + b'\\\\n2026-11-27T11:00:00 CUDA out of memory\\\\n')"
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
probe = {"id": "log", "kind": sys.argv[2], "argv": [sys.executable, "-c", emit], "tail_argv": [], "root": False,
         "marks": [["oom", "out of memory", "CUDA out of memory"]], "keep": 6, "max_lines": 200,
         "timeout_s": 60, "max_bytes": 1 << 30}
answer = collector.run(probe, False)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(json.dumps({"grown_mib": grown, "answer": answer}))
"""


def _read_hundred_megabytes(kind: str) -> dict[str, Any]:
    argv = [sys.executable, "-c", _HUNDRED_MB, str(Path(__file__).parents[3]), kind]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=55)
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["grown_mib"] < 64
    return dict(said["answer"])


def test_a_hundred_megabytes_of_log_are_scanned_in_bounded_memory() -> None:
    answer = json.loads(_read_hundred_megabytes("log_scan")["stdout"])
    assert answer["bytes"] > 100_000_000
    assert answer["cut"] is None
    assert answer["marks"]["oom"]["count"] == 1


def test_of_a_program_that_prints_a_hundred_megabytes_the_beginning_is_kept() -> None:
    answer = _read_hundred_megabytes("command")
    assert answer["rc"] == 0
    assert len(answer["stdout"]) == 1 << 20


def test_a_program_that_prints_without_end_is_ended_in_time() -> None:
    began = time.monotonic()
    probe = {"id": "x", "kind": "command", "argv": ["yes"], "root": False, "timeout_s": 0.3}
    assert "no answer within 0.3 s" in collector.run(probe, sudo=False)["error"]
    assert time.monotonic() - began < 30


def test_both_outputs_and_the_exit_code_of_a_program_come_back() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    answer = collector.run_command({"argv": [sys.executable, "-c", code], "root": False, "timeout_s": 20}, sudo=False)
    assert answer == {"rc": 3, "stdout": "out\n", "stderr": "err\n", "cut": False}
