"""Every way out of `model fetch` and `model sync`: nothing to do, planned, done, failed, lost, interrupted, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult, TaskEvent, TaskFailure
from dspark_ops.config.models import Role
from dspark_ops.errors import NoVerdictError, RefusedError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.report.models import Report
from dspark_ops.weights import transfer, verbs
from tests.unit.weights.pair import BOTH, FILES, MANIFEST, empty, site, whole

BARE = MANIFEST.model_copy(update={"files": (*FILES[:2], FILES[2].model_copy(update={"sha256": None}))})
SUMMARIES: dict[str, dict[str, Any]] = {
    "metadata": {"manifest": BARE.document()},
    "fetch": {"came_bytes": 7 << 30, "kept_bytes": 0, "seconds": 7.0, "files": MANIFEST.document()["files"]},
    "sync": {"came_bytes": 7 << 30, "kept_bytes": 1 << 20, "seconds": 1.0, "rails": {"p0a": 4 << 30, "p1a": 3 << 30}},
}


def played(*failures: TaskFailure, unreachable: tuple[Role, ...] = ()) -> PlayResult:
    rc = 4 if unreachable else 2 if failures else 0
    return PlayResult(rc, {"head": 1, "worker": 1}, (), failures, unreachable, 1.0, Path("log"))


class Stage:
    """Both nodes and what the plays do, by step; `runs` is what was run."""

    def __init__(self) -> None:
        self.nodes: dict[Role, Any] = {"head": empty("head"), "worker": empty("worker")}
        self.digests: Any = BOTH
        self.answers: dict[str, PlayResult | BaseException] = {}
        self.runs: list[tuple[str, bool]] = []
        self.variables: dict[str, dict[str, Any]] = {}
        self.hosts: dict[str, Any] = {}
        self.asked: list[str] = []

    def play(self, name: str, _loaded: Any, *, variables: dict[str, Any], check: bool, **more: Any) -> PlayResult:
        assert name == "model.yml"
        step = variables["model_step"]
        self.runs.append((step, check))
        self.variables[step], self.hosts[step] = variables, more["host_variables"]
        answer = self.answers.get(step, played())
        if isinstance(answer, BaseException):
            raise answer
        if step in SUMMARIES and (not check or step == "metadata"):
            more["on_event"](TaskEvent(kind="changed", node="head", summary=SUMMARIES[step]))
        return answer


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    made = Stage()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "a-token-of-the-operator")
    monkeypatch.setattr(verbs, "look", lambda *_: made.nodes)
    monkeypatch.setattr(verbs, "prove", lambda *_: made.digests)
    monkeypatch.setattr(transfer, "run_playbook", made.play)
    monkeypatch.setattr(verbs, "open_runner", lambda *_: SimpleNamespace(close=lambda: None))
    return made


Run = Callable[..., Report]


@pytest.fixture
def run(stage: Stage) -> Run:
    def go(verb: str = "fetch", **more: Any) -> Report:
        loaded: Any = SimpleNamespace(site=site())
        chosen = verbs.fetch if verb == "fetch" else verbs.sync
        return chosen(loaded, consent=stage.asked.append, progress=lambda _: None, **more)

    return go


def test_one_download_is_mirrored_with_every_sha256_and_told(run: Run, stage: Stage) -> None:
    report = run()
    assert (report.verdict, report.exit_code, len(stage.asked)) == ("changed", 0, 1)
    assert stage.runs == [("metadata", False), ("fetch", False), ("sync", False)]
    assert stage.variables["sync"]["model_sync_document"] == MANIFEST.document()
    assert [rail["name"] for rail in stage.hosts["sync"]["worker"]["model_sync_rails"]] == ["p0a", "p1a"]
    assert "over p0a 4.0 GiB, p1a 3.0 GiB" in report.message
    told = {(m.subject, m.what): m.value for m in report.measurements}
    assert told["p0a", "moved"] == 4 << 30
    assert stage.variables["fetch"]["model_fetch_need_bytes"] == MANIFEST.total_bytes + (10 << 30)


def test_the_token_is_in_no_variable(run: Run, stage: Stage) -> None:
    """Variables become files of the run; the token is looked up by Ansible, in memory."""
    run()
    assert "a-token-of-the-operator" not in str(stage.variables) + str(stage.hosts)


def test_with_nothing_to_do_nothing_is_asked_or_changed(run: Run, stage: Stage) -> None:
    stage.nodes = {"head": whole("head"), "worker": whole("worker")}
    for verb in ("fetch", "sync"):
        report = run(verb)
        assert (report.verdict, report.exit_code) == ("unchanged", 0)
    assert stage.runs == [("metadata", False)]
    assert stage.asked == []


def test_a_check_asks_nobody_and_runs_in_check_mode(run: Run, stage: Stage) -> None:
    report = run(check=True)
    assert (report.verdict, stage.asked) == ("planned", [])
    assert stage.runs == [("metadata", False), ("fetch", True), ("sync", True)]


def test_a_sync_moves_only_what_is_wrong(run: Run, stage: Stage) -> None:
    stage.nodes = {"head": whole("head"), "worker": whole("worker")}
    stage.digests = {"head": {}, "worker": BOTH["worker"] | {FILES[0].blob: "e" * 64}}
    assert run("sync").verdict == "changed"
    assert stage.runs == [("sync", False)]
    assert [file["name"] for file in stage.variables["sync"]["model_sync_files"]] == [FILES[0].name]


@pytest.mark.parametrize("step", ["fetch", "sync"])
def test_a_play_that_failed_keeps_what_came_and_makes_no_snapshot(run: Run, stage: Stage, step: str) -> None:
    stage.answers[step] = played(TaskFailure("head", "Fetch", "model-1: another digest [weights.digest]"))
    report = run()
    assert (report.verdict, report.exit_code) == ("restored", ExitCode.RESTORED)
    assert "model-1: another digest" in report.message
    assert (report.next_step, stage.runs[-1]) == ("dspark-ops model fetch", (step, False))


def test_a_node_that_was_lost_is_listed(run: Run, stage: Stage) -> None:
    stage.answers["sync"] = played(TaskFailure("worker", "Fetch", "timed out"), unreachable=("worker",))
    report = run()
    assert (report.exit_code, "worker" in report.left[0]) == (ExitCode.RESTORE_INCOMPLETE, True)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("no such revision [weights.hub_absent]", RefusedError),
        ("the index names what is not there [weights.index]", RefusedError),
        ("it does not answer [weights.hub_unreachable]", NoVerdictError),
        ("something without an id", NoVerdictError),
    ],
)
def test_a_hub_that_says_no_and_one_that_says_nothing_differ(
    run: Run, stage: Stage, message: str, error: type[Exception]
) -> None:
    stage.answers["metadata"] = played(TaskFailure("head", "Ask", message))
    with pytest.raises(error, match="nothing was changed"):
        run()
    assert stage.runs == [("metadata", False)]


@pytest.mark.parametrize(("answer", "left"), [(played(), 0), (played(TaskFailure("head", "Stop", "no")), 1)])
def test_an_interrupted_transfer_stops_the_servers_or_says_that_they_run(
    run: Run, stage: Stage, answer: PlayResult, left: int
) -> None:
    stage.answers = {"sync": KeyboardInterrupt(), "close": answer}
    report = run()
    assert (report.verdict, report.exit_code, len(report.left)) == ("interrupted", 130, left)
    assert stage.runs[-1] == ("close", False)
