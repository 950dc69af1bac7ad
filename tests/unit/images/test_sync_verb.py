"""Every way out of `image sync`: nothing to do, planned, done, cut, moved meanwhile, a node lost, interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.config.models import Role
from dspark_ops.errors import DsparkError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.images import sync
from dspark_ops.images.sync_reading import SyncNode
from dspark_ops.report.models import Report
from tests.unit.images.test_sync_plan import HEAD, NAME, NEW, held, node, site

FETCHED = TaskEvent(
    kind="changed",
    node="worker",
    summary={"what": "layers", "came_bytes": 4 << 20, "kept_bytes": 1 << 20, "seconds": 0.5},
)


def played(*failures: TaskFailure, unreachable: tuple[Role, ...] = ()) -> PlayResult:
    rc = 4 if unreachable else 2 if failures else 0
    return PlayResult(rc, {"head": 1, "worker": 2}, (), failures, unreachable, 1.0, Path("log"))


class Stage:
    """What the playbook does, by its tags; `runs` is what was run."""

    def __init__(self) -> None:
        self.worker = node("worker")
        self.answers: dict[tuple[str, ...], PlayResult | BaseException] = {}
        self.runs: list[tuple[tuple[str, ...], bool]] = []
        self.variables: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def read(self, *_: Any) -> tuple[dict[Role, SyncNode], tuple[()]]:
        return {"head": HEAD, "worker": self.worker}, ()

    def play(self, name: str, _loaded: Any, *, variables: dict[str, Any], tags: Any, check: bool, **more: Any) -> Any:
        assert name == "image_sync.yml"
        self.runs.append((tags, check))
        self.variables.append(variables)
        answer = self.answers.get(tags, played())
        if isinstance(answer, BaseException):
            raise answer
        if not tags and not check:
            more["on_event"](FETCHED)
        return answer


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    made = Stage()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(sync, "read_sync", made.read)
    monkeypatch.setattr(sync, "run_playbook", made.play)
    monkeypatch.setattr(sync, "open_runner", lambda *_: SimpleNamespace(close=lambda: None))
    return made


Run = Callable[..., Report]


@pytest.fixture
def run(stage: Stage) -> Run:
    def go(*, check: bool = False) -> Report:
        loaded: Any = SimpleNamespace(site=site())
        return sync.sync(loaded, consent=stage.asked.append, progress=lambda _: None, check=check)

    return go


def test_with_nothing_to_do_nothing_is_asked_or_run(run: Run, stage: Stage) -> None:
    stage.worker = node("worker", held(NEW, NAME))
    report = run()
    assert (report.verdict, report.exit_code, stage.runs, stage.asked) == ("unchanged", 0, [], [])


def test_a_check_asks_nobody_and_runs_in_check_mode_alone(run: Run, stage: Stage) -> None:
    report = run(check=True)
    assert (report.verdict, stage.runs, stage.asked) == ("planned", [((), True)], [])


def test_a_transfer_reports_what_was_moved_and_what_was_kept(run: Run, stage: Stage) -> None:
    report = run()
    assert (report.verdict, report.exit_code) == ("changed", 0)
    assert {m.what: m.value for m in report.measurements} == {
        "moved": 4 << 20,
        "kept from an earlier run": 1 << 20,
        "transfer": 0.5,
    }
    assert "4.0 MiB over p0a" in report.message
    assert [len(stage.asked), stage.runs] == [1, [((), False)]]
    assert stage.variables[0]["image_sync_layers"] == list(HEAD.images[0].facts.layers)


@pytest.mark.parametrize(
    ("worker", "tags"),
    [
        (node("worker", held(NEW)), ("name", "close")),
        (replace(node("worker", held(NEW, NAME)), spooled=(NEW,)), ("close",)),
    ],
)
def test_where_nothing_is_to_be_brought_no_server_is_started(
    run: Run, stage: Stage, worker: SyncNode, tags: tuple[str, ...]
) -> None:
    stage.worker = worker
    assert run().verdict == "changed"
    assert stage.runs == [(tags, False)]
    assert stage.variables[0]["image_sync_leftover"] is (tags == ("close",))


def test_a_cut_link_is_a_restored_state_with_the_way_on(run: Run, stage: Stage) -> None:
    stage.answers[()] = played(TaskFailure("worker", "Fetch", "nothing came for 20 s; 5 of 9 bytes are kept here"))
    report = run()
    assert (report.verdict, report.exit_code) == ("restored", ExitCode.RESTORED)
    assert "5 of 9 bytes are kept" in report.message
    assert report.next_step == "dspark-ops image sync"


def test_a_name_that_moved_meanwhile_is_a_refusal(run: Run, stage: Stage) -> None:
    stage.answers[()] = played(TaskFailure("head", "Keep", "a is b here and c in the site [image.moved_tag]"))
    with pytest.raises(RefusedError, match="head: a is b here"):
        run()


def test_a_node_that_was_lost_is_listed(run: Run, stage: Stage) -> None:
    stage.answers[()] = played(TaskFailure("worker", "Fetch", "timed out"), unreachable=("worker",))
    report = run()
    assert (report.verdict, report.exit_code) == ("restore-incomplete", ExitCode.RESTORE_INCOMPLETE)
    assert "worker" in report.left[0]


@pytest.mark.parametrize(("answer", "left"), [(played(), 0), (DsparkError("no"), 1)])
def test_an_interrupted_sync_stops_the_server_or_says_that_it_may_run(
    run: Run, stage: Stage, answer: PlayResult | BaseException, left: int
) -> None:
    stage.answers = {(): KeyboardInterrupt(), ("close",): answer}
    report = run()
    assert (report.verdict, report.exit_code, len(report.left)) == ("interrupted", 130, left)
    assert stage.runs[-1] == (("close",), False)
    assert stage.variables[-1]["image_sync_leftover"] is False
