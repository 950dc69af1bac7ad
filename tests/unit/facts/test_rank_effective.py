"""What a rank's container was made with, and what its processes run with."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.facts.image_detail import parse_image, probe
from dspark_ops.facts.rank import RankMount, parse_inspect, parse_mounts, parse_top_memory
from dspark_ops.facts.rank_process import RankProcess, parse_processes
from dspark_ops.transport.base import NodeReading
from dspark_ops.transport.readonly import assert_read_only
from tests.unit.doctor.pair_fixture import load_case_site
from tests.unit.facts.captures import FIXTURES

TOP = (
    "PID                 PSS                 COMMAND\n"
    "412100              524288              /usr/local/bin/python3.12 /usr/local/bin/vllm serve /m --api-key=sk-1 -x\n"
    "412233              1024                VLLM::Worker_TP0\n"
)


def test_the_processes_and_their_memory_come_from_one_list() -> None:
    assert parse_top_memory(TOP) == 525312
    found = parse_processes(TOP)
    assert found == (
        RankProcess(
            pid=412100,
            words=(
                "/usr/local/bin/python3.12",
                "/usr/local/bin/vllm",
                "serve",
                "/m",
                "--api-key=<hidden>",
                "-x",
            ),
        ),
        RankProcess(pid=412233, words=("VLLM::Worker_TP0",)),
    )


@pytest.mark.parametrize("text", [None, "", "PID PSS\n1 2\n", "Error response from daemon\n", "1 2 vllm\n"])
def test_a_list_without_arguments_says_nothing_of_them(text: str | None) -> None:
    assert parse_processes(text) is None


def test_a_figure_that_is_missing_makes_the_sum_unknown() -> None:
    assert parse_top_memory("PID PSS COMMAND\n1 - vllm\n") is None


def test_the_recorded_container() -> None:
    reading = NodeReading.model_validate_json((FIXTURES / "rehearsal/head.json").read_text(encoding="utf-8"))
    found = parse_inspect(reading.get("rank.inspect").text())
    assert found is not None
    assert found.main_pid == 5082
    assert found.made_from == found.image_id
    assert found.mounts == ()


def test_mounts() -> None:
    entries = [
        {"Type": "bind", "Source": "/srv/w", "Destination": "/models/w", "Mode": "ro", "RW": False},
        {"Type": "volume", "Name": "dspark-cache-aaaaaaaaaaaa", "Source": "/v/_data", "Destination": "/c", "RW": True},
        {"Type": "bind", "Source": "/x"},
        "noise",
    ]
    assert parse_mounts(entries) == (
        RankMount(kind="bind", source="/srv/w", target="/models/w", read_only=True),
        RankMount(kind="volume", source="dspark-cache-aaaaaaaaaaaa", target="/c", read_only=False),
    )
    assert parse_mounts(None) is None


def test_an_image() -> None:
    document = [
        {
            "Id": "sha256:" + "a" * 64,
            "Architecture": "arm64",
            "Config": {
                "Entrypoint": ["vllm"],
                "Cmd": None,
                "Env": ["PATH=/bin", "HF_TOKEN=hf_secret"],
                "Labels": {"io.dspark-ops.vllm": "0.32.0"},
            },
        }
    ]
    found = parse_image(json.dumps(document))
    assert found is not None
    assert (found.architecture, found.command, found.label("vllm")) == ("arm64", ("vllm",), "0.32.0")
    assert found.env == {"PATH": "/bin", "HF_TOKEN": "<hidden>"}


@pytest.mark.parametrize("text", [None, "", "[]", "[1]", '[{"Id": 1}]', "[" * 99999])
def test_no_image(text: str | None) -> None:
    assert parse_image(text) is None


def test_an_image_without_a_configuration_is_still_one() -> None:
    found = parse_image('[{"Id": "sha256:b", "Config": null}]')
    assert found is not None
    assert (found.architecture, found.labels) == (None, {})


def test_the_image_is_only_described() -> None:
    assert_read_only((probe(load_case_site().site),))


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    parse_processes(text)
    parse_processes("PID PSS COMMAND\n" + text)
    parse_top_memory("PID PSS COMMAND\n" + text)
    parse_image(text)
