"""`lab down` leaves nothing, whatever state it finds. Run in namespaces of its own, so the session's pair lives on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RehearsalPair

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def story(pair: RehearsalPair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A second lab: interrupted, finished, its Engine killed, taken down twice. `pair` has filled the build cache."""
    state = Path(tmp_path_factory.mktemp("s", numbered=True))
    scenario = Path(__file__).with_name("teardown_scenario.py")
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, str(scenario), str(state)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_an_interrupted_up_is_finished_by_the_next_one(story: dict[str, Any]) -> None:
    assert story["interrupted_after"].startswith("starting spark-worker")
    assert story["finished"] == {"exit": 0, "state": "up"}
    assert story["again"] == {"exit": 0, "state": "up", "changed": []}


def test_status_says_partial_with_exit_1_while_it_is_half_built(story: dict[str, Any]) -> None:
    assert story["half_built"]["exit"] == 1
    assert story["half_built"]["state"] == "partial"


def test_down_after_the_engine_was_killed_leaves_nothing(story: dict[str, Any]) -> None:
    assert story["down"]["exit"] == 0
    assert story["down"]["left"] == []
    assert story["after"] == story["before"]


def test_down_of_a_half_built_lab_leaves_nothing(story: dict[str, Any]) -> None:
    assert story["down_half_built"]["exit"] == 0
    assert story["after_half_built"] == story["before"]


def test_down_keeps_the_build_cache_and_says_how_large_it_is(story: dict[str, Any]) -> None:
    assert story["down"]["cache_bytes"] > 100e6


def test_down_of_nothing_is_no_error(story: dict[str, Any]) -> None:
    assert story["down_again"]["exit"] == 0
    assert story["down_again"]["removed"] == []
    assert story["status_after"] == {"exit": 1, "state": "down"}
