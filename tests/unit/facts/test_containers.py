"""Docker's answers: the Engine, images, and what the rank was really given and how it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspark_ops.facts.docker_engine import parse_images, parse_info, parse_labels, parse_ps, read_engine
from dspark_ops.facts.rank import HIDDEN, orderly_end, parse_env, parse_inspect, parse_top, rank_known, read_rank
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.facts.captures import FIXTURES

INSPECT: dict[str, Any] = {
    "Id": "c0ffee",
    "RestartCount": 0,
    "Image": "sha256:aa",
    "Path": "vllm",
    "Args": ["serve", "/models/scripted"],
    "State": {"Status": "running", "ExitCode": 0, "OOMKilled": False, "Error": "", "StartedAt": "2026-11-24T00:00:00Z"},
    "Config": {
        "Env": ["VLLM_HOST_IP=10.77.0.1", "NCCL_IB_GID_INDEX=", "HF_TOKEN=hf_planted", "BARE"],
        "Labels": {"io.dspark-ops.site": "lab", "io.dspark-ops.epoch": "e1"},
    },
    "HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}, "NetworkMode": "host", "ShmSize": 64},
}


def inspect(**state: object) -> str:
    return json.dumps([{**INSPECT, "State": {**INSPECT["State"], **state}}])


def reading(**results: ProbeResult) -> NodeReading:
    named = {r.id: r for r in results.values()}
    return NodeReading(node="head", reachable=True, user="nvidia", sudo=True, results=named)


def test_rank_is_what_the_process_was_given() -> None:
    rank = parse_inspect(inspect())
    assert rank is not None
    assert rank.args == ("vllm", "serve", "/models/scripted")
    assert rank.env["VLLM_HOST_IP"] == "10.77.0.1"
    assert rank.label("site") == "lab"
    assert rank.label("release") is None
    assert rank.running is True
    assert rank.exit_code is None, "a running container has no exit code, whatever Docker fills in"
    assert rank.restart_policy == "no"
    assert rank.shm_size_bytes == 64


def test_a_variable_that_is_defined_and_empty_is_not_absent() -> None:
    env = parse_env(INSPECT["Config"]["Env"])
    assert env["NCCL_IB_GID_INDEX"] == ""
    assert env["BARE"] == ""
    assert "NCCL_IB_HCA" not in env


def test_a_secret_in_the_environment_never_leaves_the_parser() -> None:
    rank = parse_inspect(inspect())
    assert rank is not None
    assert "hf_planted" not in rank.model_dump_json()
    assert rank.env["HF_TOKEN"] == HIDDEN


@pytest.mark.parametrize(
    ("log", "asked"),
    [
        ("term_head-head", True),
        ("term_worker-worker", True),
        ("kill_engine-head", False),
        ("kill_worker_idle-head", False),
        ("kill_tp1_busy-worker", False),
        ("stop_worker-head", False),
        ("corrupt_shard-head", False),
        ("kill_head_idle-worker", False),
    ],
)
def test_the_log_tells_an_orderly_end_from_a_death_with_exit_code_0(log: str, asked: bool) -> None:
    text = (FIXTURES / f"vllm-log/{log}.log").read_text(encoding="utf-8")
    assert orderly_end(text) is asked
    rank = read_rank(
        reading(
            a=ProbeResult(id="rank.inspect", rc=0, stdout=inspect(Status="exited", ExitCode=0)),
            b=ProbeResult(id="rank.tail", rc=0, stdout="", stderr=text),
        )
    )
    assert rank is not None
    assert rank.ended_in_order is asked
    assert rank.exit_code == 0


def test_an_unread_log_leaves_the_end_unknown() -> None:
    rank = read_rank(reading(a=ProbeResult(id="rank.inspect", rc=0, stdout=inspect(Status="exited", ExitCode=0))))
    assert rank is not None
    assert rank.ended_in_order is None
    assert rank.pids is None


def test_no_container_and_no_answer_are_two_things() -> None:
    absent = ProbeResult(id="rank.inspect", rc=1, stdout="[]", stderr="Error: No such container: dspark-rank\n")
    refused = ProbeResult(id="rank.inspect", rc=1, stderr="Cannot connect to the Docker daemon at unix:///x")
    assert (read_rank(reading(a=absent)), rank_known(reading(a=absent))) == (None, True)
    assert (read_rank(reading(a=refused)), rank_known(reading(a=refused))) == (None, False)
    assert rank_known(reading()) is False


@pytest.mark.parametrize("stdout", [inspect()[:200], "", "[]", "{}"])
def test_an_answer_that_cannot_be_read_does_not_say_that_there_is_no_container(stdout: str) -> None:
    cut = reading(a=ProbeResult(id="rank.inspect", rc=0, stdout=stdout, stderr=""))
    assert (read_rank(cut), rank_known(cut)) == (None, False)


@pytest.mark.parametrize("rc", [200, 255])
def test_a_program_that_ends_as_a_server_answers_has_failed(rc: int) -> None:
    assert ProbeResult(id="gpu.processes", rc=rc, stdout="Unable to determine it", stderr="").text() is None
    assert ProbeResult(id="service.health", rc=rc, stdout="{}").ok


def test_top_without_processes_and_without_answer() -> None:
    assert parse_top("PID\n412\n433\n") == (412, 433)
    assert parse_top(None) is None


def test_engine_that_answers_that_is_stopped_and_that_is_absent() -> None:
    up = parse_info(
        json.dumps({"ServerVersion": "29.2.1", "Driver": "overlay2", "Runtimes": {"runc": {}, "nvidia": {}}})
    )
    assert up is not None
    assert (up.answers, up.storage_driver, up.runtimes) == (True, "overlay2", ("nvidia", "runc"))
    # The client prints its JSON even when the server does not answer, and names the reason in it.
    down = parse_info(json.dumps({"ServerVersion": "", "ServerErrors": ["Cannot connect to the Docker daemon"]}))
    assert down is not None
    assert down.answers is False
    absent = read_engine(reading(a=ProbeResult(id="docker.info", error="no such program: docker")))
    assert absent is not None
    assert (absent.answers, absent.error) == (False, "no such program: docker")
    assert read_engine(reading()) is None


def test_ps_and_labels_with_commas() -> None:
    line = json.dumps({"ID": "aa", "Names": "web", "Image": "x", "State": "running", "Labels": "a=1,b=x,y,c=2"})
    rows = parse_ps(line + "\nnot json\n")
    assert rows is not None
    assert [(r.name, r.labels) for r in rows] == [("web", {"a": "1", "b": "x,y", "c": "2"})]
    assert parse_labels("") == {}
    assert parse_ps(None) is None


def test_images_join_the_names_of_one_id() -> None:
    lines = [
        {"ID": "sha256:aa", "Repository": "serve", "Tag": "1"},
        {"ID": "sha256:aa", "Repository": "serve", "Tag": "2"},
        {"ID": "sha256:bb", "Repository": "<none>", "Tag": "<none>"},
    ]
    images = parse_images("\n".join(json.dumps(line) for line in lines))
    assert images is not None
    assert [(i.id, i.references) for i in images] == [("sha256:aa", ("serve:1", "serve:2")), ("sha256:bb", ())]
