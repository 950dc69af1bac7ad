"""The gate on the real engine: through SSH, tool calls in both modes, and with the last word in a deploy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.lab.operator_cli import Done, Operator
from tests.lab.rehearsed_models import KNOWN_CALL, other_dialect, smoke_as_gate
from tests.lab.steady_client import steady_client
from tests.lab.test_releases import serving_release

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

CALLS = ("--known-call", json.dumps(KNOWN_CALL))
#: Another release of the same profile, so that a deploy has something to do and its gate something to judge.
OTHER = ("--set", "serve.max_num_seqs=5")
#: Of the profile: what a prompt and its answer must fit in. Unit: tokens.
WINDOW = 4096


def lines(folder: Path, record: str) -> list[dict[str, Any]]:
    """What the gate wrote down of one kind."""
    found = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    return [line for line in found if line["record"] == record]


def assert_passed(done: Done) -> dict[str, Any]:
    document = done.document()
    assert (done.rc, document["verdict"]) == (0, "ready"), done
    return document


def assert_ten_cold_answers(folder: Path) -> list[dict[str, Any]]:
    """The ten judged answers of a smoke gate, each shown to have been cold, as long as the window allows."""
    bursts = lines(folder, "burst")
    assert [burst["proof"]["doubts"] for burst in bursts] == [[]] * 10
    assert {burst["proof"]["hits"] for burst in bursts} == {0}
    assert {burst["proof"]["finished"] for burst in bursts} == {1}
    judged: list[dict[str, Any]] = [one for burst in bursts for one in burst["judged"]]
    assert [one["outcome"] for one in judged] == ["pass"] * 10, judged
    # Scaled to the model: far longer than a canary, and never cut by the window.
    assert all(WINDOW / 2 < one["prompt_tokens"] < WINDOW for one in judged), judged
    return judged


def test_smoke_passes_as_the_profile_knows_its_model(serving: Operator, tmp_path: Path) -> None:
    done = serving.run("gate smoke", "--json", "--out", str(tmp_path / "gate"))
    assert_passed(done)
    judged = assert_ten_cold_answers(tmp_path / "gate")
    assert Counter(one["kind"] for one in judged) == {"known-long": 7, "known-call": 3}
    # Both modes: only an answer that was streamed has a first chunk.
    assert [one.get("ttft_s") is None for one in judged if one["kind"] == "known-call"] == [False, True, False]


@pytest.mark.soak
def test_a_call_that_is_not_the_models_does_not_pass(serving: Operator, tmp_path: Path) -> None:
    """The tests above can fail: one argument that differs is seen."""
    wrong = {**KNOWN_CALL, "arguments": {**KNOWN_CALL["arguments"], "days": 4}}
    done = serving.run("gate smoke", "--json", "--out", str(tmp_path / "gate"), "--known-call", json.dumps(wrong))
    assert (done.rc, done.document()["verdict"]) == (1, "failed"), done
    judged = [one for burst in lines(tmp_path / "gate", "burst") for one in burst["judged"]]
    failed = [one["kind"] for one in judged if one["outcome"] != "pass"]
    assert failed == ["known-call"] * 3, judged


@pytest.mark.soak
def test_tool_calls_are_whole_streamed_and_unary_and_six_answers_at_once(serving: Operator, tmp_path: Path) -> None:
    folder = tmp_path / "gate"
    # A little of what certifies: two bursts as wide as the engine's batch, four calls in each mode.
    few = ("--bursts", "2", "--width", "6", "--tool-cases", "4", "--soak", "0", "--boots", "1")
    done = serving.run("gate certify", "--json", "--out", str(folder), *few)
    assert_passed(done)
    parts = {part["name"]: (part["asked"], part["bad"], part["done"]) for part in lines(folder, "part")}
    assert parts == {"bursts": (12, 0, True), "tools": (8, 0, True), "soak": (0, 0, True), "long": (0, 0, True)}
    bursts = lines(folder, "burst")
    tools = [one for burst in bursts if burst["part"] == "tools" for one in burst["judged"]]
    assert Counter((one["kind"], one["name"].rpartition("/")[2]) for one in tools) == {
        ("known-call", "streamed"): 4,
        ("known-call", "whole"): 4,
    }
    # Ours may be late on a busy machine and is asked again; the bursts that count were at once and cold.
    counted = [burst["proof"] for burst in bursts if burst["part"] == "bursts" and burst["counted"]]
    assert [(proof["doubts"], proof["finished"]) for proof in counted] == [([], 6)] * 2
    assert all(proof["spread_s"] <= 0.05 and proof["overlap_s"] > 0 for proof in counted), counted


def gate_kept(operator: Operator, release: str) -> str | None:
    """What the list of releases says of a release's gate."""
    listed = operator.run("releases", "--json").document()
    (row,) = [row for row in listed["releases"] if row["id"] == release]
    found: str | None = row["gate"]
    return found


def assert_deployed_with_gate(operator: Operator, *words: str) -> None:
    first = serving_release(operator)
    done = operator.run("deploy", "--yes", "--json", *OTHER, *words, timeout_s=850)
    document = assert_passed(done)
    (phase,) = [phase for phase in document["phases"] if phase["name"] == "gate"]
    assert (phase["status"], phase["detail"]) == ("done", "the gate passed")
    release = serving_release(operator)
    assert release != first
    assert gate_kept(operator, release) == "passed"


@pytest.mark.soak
def test_a_deploy_passes_the_gate_that_is_built_in(serving: Operator) -> None:
    assert_deployed_with_gate(serving, "--set", "gate.builtin=smoke")


@pytest.mark.soak
def test_a_deploy_passes_a_gate_that_knows_the_models_call(serving: Operator) -> None:
    """The gate of the next test, and what it says to an engine in the right dialect."""
    assert_deployed_with_gate(serving, *smoke_as_gate())


@pytest.mark.soak
def test_a_deploy_in_a_wrong_dialect_ends_on_the_release_before(serving: Operator) -> None:
    first = serving_release(serving)
    done = serving.run("deploy", "--yes", "--json", *other_dialect(), *smoke_as_gate(), timeout_s=850)
    assert done.rc == 5, done
    document = done.document()
    assert document["verdict"] == "restored"
    # 1: it was judged and is bad. A gate that could not ask or found no verdict would end with 2 or 3.
    assert "the gate ended with 1, expected 0" in document["message"], document["message"]
    assert f"release {first} serves again" in document["message"]
    assert serving_release(serving) == first
    with steady_client(serving.ssh_config) as client:
        client.wait_right()
    assert client.wrong == []
    # The one that serves again calls tools as it should, and nothing of the failed one's dialect is left.
    assert_passed(serving.run("gate smoke", "--json", *CALLS))
    listed = serving.run("releases", "--json").document()
    assert "failed" in [row["gate"] for row in listed["releases"] if row["id"] != first], listed
