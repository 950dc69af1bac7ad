"""A supervisor on the head that answers as a test wants, under the verbs of a pair whose playbooks are played."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.facts.supervisor import CONFIG, SCHEMA, UNIT_FILE, SupervisorFacts, read_supervisor
from dspark_ops.supervise.control import keeper
from dspark_ops.supervise.control.document import NOTHING, Adopted, Door, render
from dspark_ops.transport.base import NodeReading, ProbeResult
from tests.unit.deploy.conftest import loaded, make_site, specs
from tests.unit.deploy.test_launch import Stage, served, stage

__all__ = ["loaded", "make_site", "served", "specs", "stage"]

DOOR = Door("192.168.7.12", 22)
TOTAL: dict[Role, float | None] = {"head": 119.0, "worker": 119.0}
SERVING: Mapping[str, Any] = {
    "schema": SCHEMA,
    "site": "desk",
    "state": "serving",
    "since_s": 120.0,
    "step_age_s": 0.4,
    "reason": "the gate passed",
    "epoch": "e1",
    "hold": None,
    "latched": None,
    "alerts": [],
    "problems": [],
    "nodes": {"head": {"reachable": True}, "worker": {"reachable": True}},
}


def head_reading(
    site: LoadedSite, adopted: Adopted | None = NOTHING, status: Mapping[str, Any] | None = SERVING, **more: Any
) -> NodeReading:
    """What the head's probes gave. adopted None: the configuration is damaged. status None: nothing answers."""
    text = "{" if adopted is None else json.dumps(render(site, adopted, DOOR, TOTAL))
    answer = (
        ProbeResult(id="supervise.status", error="connection refused")
        if status is None
        else ProbeResult(id="supervise.status", rc=200, stdout=json.dumps({**status, **more}))
    )
    files = ProbeResult(id="supervise.files", files={UNIT_FILE: "[Unit]", CONFIG: text})
    return NodeReading(node="head", reachable=True, sudo=True, results={r.id: r for r in (files, answer)})


def supervisor_of(site: LoadedSite, *args: Any, **more: Any) -> SupervisorFacts:
    return read_supervisor(head_reading(site, *args, **more))


class Keeping:
    """The runs of supervise.yml, in the order of all steps of a stage. fail: the state whose run fails."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.variables: list[Mapping[str, Any]] = []
        self.fail: str | None = None

    def play(self, name: str, _loaded: LoadedSite, *, variables: Mapping[str, Any], **_: Any) -> PlayResult:
        assert name == "supervise.yml"
        state = str(variables["pair_supervisor_state"])
        self.steps.append(state)
        self.variables.append(variables)
        failures = (TaskFailure("head", "Ask the supervisor", "no"),) if state == self.fail else ()
        return PlayResult(2 if failures else 0, {}, (), failures, (), 1.0, Path("log"))

    def told(self) -> Mapping[str, Any]:
        """The configuration that the last run wrote."""
        found: Mapping[str, Any] = self.variables[-1]["pair_supervisor_config"]
        return found

    def asked(self, state: str) -> list[list[str]]:
        return [words for given in self.variables if given["pair_supervisor_state"] == state
                for words in given["pair_supervisor_asks"]]  # fmt: skip


@pytest.fixture
def keeping(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Keeping:
    found = Keeping(stage.steps)
    monkeypatch.setattr(keeper, "run_playbook", found.play)
    return found


def supervised(stage: Stage, seen: SupervisorFacts) -> None:
    """Put a supervisor on the head of what the stage shows."""
    stage.observation = replace(stage.observation, supervisor=seen)
