"""Every way out of a deploy after consent: both ranks up, the previous state, or a list of what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskFailure
from dspark_ops.config.load import LoadedSite
from dspark_ops.config.models import Role
from dspark_ops.deploy import apply, launch
from dspark_ops.deploy.observed import Observation
from dspark_ops.deploy.readiness import Readiness
from dspark_ops.errors import DsparkError
from dspark_ops.report.models import Report
from tests.unit.deploy.conftest import seen

READY = Readiness(True, "The quick brown fox jumps over the lazy dog.", None, 20.0)
DIED = Readiness(False, None, "the rank on worker ended while starting: exit code 137: killed (SIGKILL)", 9.0)


def played(*failures: TaskFailure, unreachable: tuple[Role, ...] = ()) -> PlayResult:
    rc = 4 if unreachable else 2 if failures else 0
    return PlayResult(rc, {}, (), failures, unreachable, 1.0, Path("log"))


class Stage:
    """What the playbooks do: a result or an exception by step; `steps` is what was run."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcome: dict[str, PlayResult | BaseException] = {}
        self.end: Readiness | BaseException = READY

    def run_playbook(self, name: str, _loaded: LoadedSite, **words: object) -> PlayResult:
        tags = words.get("tags") or (name,)
        assert isinstance(tags, tuple)
        self.steps.append(tags[0])
        outcome = self.outcome.get(tags[0], played())
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def wait_ready(self, *_args: object, **_words: object) -> Readiness:
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


Deploy = Callable[[Observation | None], Report]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(apply, "run_playbook", stage.run_playbook)
    monkeypatch.setattr(launch, "wait_ready", stage.wait_ready)
    monkeypatch.setattr(launch, "look_at_nodes", lambda *_, **__: ((), ()))
    monkeypatch.setattr(launch, "collect_logs", lambda *_: {"worker": "2026-11-24T00:00:01Z ValueError: bad shard"})
    return stage


@pytest.fixture
def deploy(
    loaded: LoadedSite, stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Observation | None], Report]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(observation: Observation | None = None) -> Report:
        monkeypatch.setattr(launch, "observe", lambda *_: observation or seen(loaded))
        return launch.deploy(loaded, verb="deploy", consent=lambda _: None, progress=lambda _: None)

    return run


def test_worker_before_head_and_ready_is_the_completion(deploy: Deploy, stage: Stage) -> None:
    report = deploy(None)
    assert stage.steps == ["settle", "worker", "head"]
    assert (report.verdict, report.exit_code) == ("ready", 0)
    assert "quick brown fox" in report.message


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("worker", played(TaskFailure("worker", "Start the worker", "no such image"))),
        ("head", played(unreachable=("head",))),
        ("head", DsparkError("ansible-playbook cannot be started")),
    ],
)
def test_a_failed_step_takes_both_ranks_down(
    deploy: Deploy, stage: Stage, step: str, outcome: PlayResult | BaseException
) -> None:
    stage.outcome[step] = outcome
    report = deploy(None)
    assert stage.steps[-1] == "stop.yml"
    assert (report.verdict, report.exit_code) == ("restored", 5)
    assert "ValueError: bad shard" in report.message


def test_a_rank_that_dies_while_starting_takes_both_down(deploy: Deploy, stage: Stage) -> None:
    stage.end = DIED
    report = deploy(None)
    assert stage.steps[-1] == "stop.yml"
    assert report.exit_code == 5
    assert "SIGKILL" in report.message


def test_a_failed_load_touches_no_rank(deploy: Deploy, stage: Stage, loaded: LoadedSite) -> None:
    stage.outcome["image"] = played(TaskFailure("worker", "Load", "no space left on device"))
    report = deploy(seen(loaded, change={"worker": {"images": ()}}))
    assert stage.steps == ["image"]
    assert report.exit_code == 5
    assert "no rank was touched" in report.message


def test_a_name_that_moved_meanwhile_is_a_refusal(deploy: Deploy, stage: Stage, loaded: LoadedSite) -> None:
    stage.outcome["image"] = played(TaskFailure("worker", "Load", "a:b is another image here [image.moved_tag]"))
    report = deploy(seen(loaded, change={"worker": {"images": ()}}))
    assert (report.verdict, report.exit_code) == ("refused", 4)
    assert "no rank was touched" in report.message


def test_what_cannot_be_undone_is_listed_and_not_called_restored(deploy: Deploy, stage: Stage) -> None:
    stage.end = DIED
    stage.outcome["stop.yml"] = played(unreachable=("worker",))
    report = deploy(None)
    assert (report.verdict, report.exit_code) == ("restore-incomplete", 6)
    assert any("worker" in item for item in report.left)


def test_an_interrupt_undoes_and_says_so(deploy: Deploy, stage: Stage) -> None:
    stage.end = KeyboardInterrupt()
    report = deploy(None)
    assert stage.steps[-1] == "stop.yml"
    assert (report.verdict, report.exit_code) == ("interrupted", 130)
