"""What runs against what was asked: equal where it is, one difference where it is not, "could not tell" otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspark_ops.facts.rank import HIDDEN
from dspark_ops.releases.effective import (
    PROBES,
    compare,
    effective,
    follow_up,
    host_of,
    own_argv,
    parse_environ,
    split_nul,
    why_not,
)
from dspark_ops.releases.model import Difference
from dspark_ops.transport.base import Command, Files, NodeReading, ProbeResult
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.releases.releases import CONTAINER, IMAGE, MAIN_PID, document, inspect_text, reading, whole_reading

ASKED = document("head")
ARGV = ["/usr/bin/python3", "/usr/local/bin/vllm", *ASKED["command"][1:]]
ENV = {"PATH": "/opt/bin:/bin", "HOSTNAME": "spark-head", **ASKED["env"], "LANG": "C.UTF-8", "HOME": "/root"}


def differences(argv: list[str], env: dict[str, str], asked: dict[str, Any] = ASKED) -> list[Difference]:
    found = effective({"head": whole_reading("head", argv, env)})
    assert found["head"] is not None
    return list(compare({"head": asked}, found))


def test_what_was_asked_for_and_runs_has_no_difference() -> None:
    assert differences(ARGV, ENV) == []


def test_the_processes_are_listed_with_the_titles_they_gave_themselves() -> None:
    found = effective({"head": whole_reading("head", ARGV, ENV)})["head"]
    assert found is not None
    assert [(p.pid, p.title) for p in found.processes][1] == (4800, "VLLM::EngineCore")
    assert found.container == CONTAINER
    assert found.image_id == IMAGE
    assert found.epoch == "e1"


@pytest.mark.parametrize(
    ("argv", "first"),
    [
        ([*ARGV, "--enforce-eager"], ("5", None, "--enforce-eager")),
        (ARGV[:-1], ("4", "--node-rank=0", None)),
        ([*ARGV[:4], "--max-num-seqs=8", *ARGV[5:]], ("3", "--max-num-seqs=4", "--max-num-seqs=8")),
        ([*ARGV[:4], ARGV[5], ARGV[4]], ("3", "--max-num-seqs=4", "--node-rank=0")),
        (["/bin/sh", "-c", "vllm serve"], ("0", "vllm", "/bin/sh")),
    ],
)
def test_every_other_argument_list_differs(argv: list[str], first: tuple[str, str | None, str | None]) -> None:
    found = differences(argv, ENV)
    assert {(d.role, d.what) for d in found} == {("head", "argv")}
    assert (found[0].name, found[0].asked, found[0].effective) == first


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({**ENV, "NCCL_DEBUG": "INFO"}, ("NCCL_DEBUG", "WARN", "INFO")),
        ({k: v for k, v in ENV.items() if k != "NCCL_DEBUG"}, ("NCCL_DEBUG", "WARN", None)),
        ({k: v for k, v in ENV.items() if k != "EMPTY"}, ("EMPTY", "", None)),
        ({**ENV, "EMPTY": "x"}, ("EMPTY", "", "x")),
        ({**ENV, "NCCL_IB_GID_INDEX": ""}, ("NCCL_IB_GID_INDEX", None, "")),
        ({**ENV, "LANG": "de_DE"}, ("LANG", None, "de_DE")),
        ({**ENV, "PATH": "/evil:/bin"}, ("PATH", None, "/evil:/bin")),
        ({**ENV, "NVIDIA_VISIBLE_DEVICES": "all"}, ("NVIDIA_VISIBLE_DEVICES", None, "all")),
    ],
)
def test_every_other_environment_differs_in_that_variable(
    env: dict[str, str], expected: tuple[str, str | None, str | None]
) -> None:
    (found,) = differences(ARGV, env)
    assert (found.what, found.name, found.asked, found.effective) == ("env", *expected)
    assert expected[0] in found.sentence()


def test_what_the_engine_adds_for_a_gpu_is_no_difference() -> None:
    env = {**ENV, "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    assert differences(ARGV, env, document("head", gpus=True)) == []


def test_secrets_are_compared_and_never_shown() -> None:
    asked = document("head", env={"HF_TOKEN": "hf_asked"}, command=["vllm", "--api-key=sk-asked", "--x", "1"])
    env = {"PATH": "/opt/bin:/bin", "HF_TOKEN": "hf_asked"}
    argv = ["/usr/bin/python3", "/usr/local/bin/vllm", "--api-key=sk-asked", "--x", "1"]
    assert differences(argv, env, asked) == []
    found = differences([*argv[:2], "--api-key=sk-other", *argv[3:]], {**env, "HF_TOKEN": "hf_other"}, asked)
    assert [(d.what, d.name) for d in found] == [("argv", "1"), ("env", "HF_TOKEN")]
    shown = "".join(d.model_dump_json() + d.sentence() for d in found)
    assert "sk-" not in shown
    assert "hf_" not in shown
    assert HIDDEN in shown


def test_another_image_is_a_difference() -> None:
    (found,) = differences(ARGV, ENV, document("head", image_id="sha256:" + "2" * 64))
    assert (found.what, found.effective) == ("image", IMAGE)


def replaced(result_id: str, result: ProbeResult) -> NodeReading:
    whole = whole_reading("head", ARGV, ENV)
    return whole.model_copy(update={"results": {**whole.results, result_id: result}})


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (NodeReading(node="head", reachable=False, error="no route"), "no route"),
        (replaced("rank.inspect", ProbeResult(id="rank.inspect", rc=1, stderr="No such container: x")), "no rank"),
        (replaced("rank.inspect", ProbeResult(id="rank.inspect", error="time limit")), "could not be read"),
        (replaced("rank.inspect", ProbeResult(id="rank.inspect", rc=0, stdout=inspect_text(running=False))), "exited"),
        (replaced("effective.proc", ProbeResult(id="effective.proc", files={})), "as root"),
        (whole_reading("head", ARGV, ENV, again=inspect_text(started="2026-11-27T12:09:00Z")), "ended meanwhile"),
        (whole_reading("head", ARGV, ENV, again=inspect_text(running=False)), "ended meanwhile"),
        (whole_reading("head", ["VLLM::APIServer"], ENV), "renamed itself"),
    ],
)
def test_a_rank_that_could_not_be_read_back_is_none_and_says_why(seen: NodeReading, why: str) -> None:
    assert effective({"head": seen}) == {"head": None}
    assert why in (why_not(seen) or "")
    (found,) = compare({"head": ASKED}, {"head": None})
    assert found.what == "process"


def test_a_process_of_another_container_under_a_reused_pid_is_not_taken_for_the_rank() -> None:
    files = dict(whole_reading("head", ARGV, ENV).get("effective.proc").files or {})
    files[f"/proc/{MAIN_PID}/cgroup"] = "0::/user.slice\n"
    seen = replaced("effective.proc", ProbeResult(id="effective.proc", files=files))
    assert effective({"head": seen}) == {"head": None}


def test_without_the_image_other_variables_are_not_judged_and_that_is_said() -> None:
    seen = replaced("effective.image", ProbeResult(id="effective.image", error="time limit"))
    assert compare({"head": ASKED}, effective({"head": seen})) == ()
    assert "image" in (why_not(seen) or "")


def test_the_second_trip_asks_for_the_environment_of_the_first_process_alone() -> None:
    first = whole_reading("head", ARGV, ENV)
    probes = follow_up(first)
    assert_read_only((*PROBES, *probes))
    files = next(p for p in probes if isinstance(p, Files))
    assert files.root
    assert [p for p in files.patterns if p.endswith("environ")] == [f"/proc/{MAIN_PID}/environ"]
    assert "/proc/4800/cmdline" in files.patterns
    assert any(isinstance(p, Command) and p.argv[-1] == IMAGE for p in probes)
    stopped = {"rank.inspect": ProbeResult(id="rank.inspect", rc=0, stdout=inspect_text(running=False))}
    assert follow_up(reading("head", stopped)) == ()
    assert follow_up(NodeReading(node="head", reachable=False)) == ()


def test_a_host_that_was_not_read_is_unknown_not_zero() -> None:
    host = host_of(NodeReading(node="head", reachable=False), "spark-head")
    assert host.host == "spark-head"
    assert (host.kernel, host.driver, host.docker, host.mem_total_kib) == (None,) * 4


@pytest.mark.parametrize(
    ("asked", "argv", "own"),
    [
        (["vllm", "serve"], ["/usr/bin/python3.11", "-I", "/x/vllm", "serve"], ("vllm", "serve")),
        (["vllm", "serve"], ["/x/vllm", "serve"], ("vllm", "serve")),
        (["python3", "-m", "vllm"], ["python3", "-m", "vllm"], ("python3", "-m", "vllm")),
        (["/a/vllm", "serve"], ["/usr/bin/python3", "/b/vllm", "serve"], ("/b/vllm", "serve")),
        (["vllm"], ["python3"], ("python3",)),
    ],
)
def test_what_the_kernel_puts_before_a_script_is_no_argument(
    asked: list[str], argv: list[str], own: tuple[str, ...]
) -> None:
    assert own_argv(asked, argv) == own


_PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10)


@settings(deadline=None)
@given(st.lists(_PLAIN, min_size=1))
def test_words_come_back_from_the_kernels_form(words: list[str]) -> None:
    assert split_nul("".join(f"{word}\0" for word in words)) == tuple(words)


@settings(deadline=None)
@given(st.dictionaries(_PLAIN.filter(lambda n: n and "=" not in n), _PLAIN))
def test_variables_come_back_from_the_kernels_form(env: dict[str, str]) -> None:
    assert parse_environ("".join(f"{name}={value}\0" for name, value in env.items())) == env


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_no_text_makes_the_reader_raise(cmdline: str, environ: str, inspect: str) -> None:
    whole = whole_reading("head", ARGV, ENV)
    files = {f"/proc/{MAIN_PID}/cmdline": cmdline, f"/proc/{MAIN_PID}/environ": environ}
    results = {**whole.results, "effective.proc": ProbeResult(id="effective.proc", files=files)}
    found = effective({"head": whole.model_copy(update={"results": results})})
    compare({"head": ASKED}, found)
    results["rank.inspect"] = ProbeResult(
        id="rank.inspect", rc=0, stdout=json.dumps([{"Id": inspect, "State": inspect}])
    )
    broken = whole.model_copy(update={"results": results})
    assert effective({"head": broken})["head"] is None
    assert why_not(broken)


def test_of_a_variable_that_is_there_twice_the_first_counts() -> None:
    assert parse_environ("A=1\0A=2\0=x\0B\0C=\0") == {"A": "1", "C": ""}
