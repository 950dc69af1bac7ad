"""stop takes down what it can reach, and says what it could not and who is owed a place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.ansible_run.events import PlayResult
from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy import apply, looking, stopping
from dspark_ops.deploy.run_journal import OpenRun, read_open, write_open
from dspark_ops.deploy.spec import render_pair
from dspark_ops.report.models import Report, now
from tests.unit.deploy.conftest import rank_of, seen

Play = Callable[..., PlayResult]


def result(*unreachable: Any) -> PlayResult:
    return PlayResult(4 if unreachable else 0, {}, (), (), unreachable, 1.0, Path("log"))


@pytest.fixture
def stop(loaded: LoadedSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Play], Report]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    specs = render_pair(loaded.site, loaded.profile)
    pair = seen(loaded, head=rank_of(specs["head"]), worker=rank_of(specs["worker"]))
    monkeypatch.setattr(looking, "observe", lambda *_: pair)
    monkeypatch.setattr(stopping, "owed_lines", lambda _: ["head: owed their place: container:hog"])

    def run(play: Play) -> Report:
        monkeypatch.setattr(apply, "run_playbook", play)
        return stopping.stop(loaded, consent=lambda _: None, progress=lambda _: None)

    return run


def test_a_head_that_is_away_does_not_keep_the_worker_running(stop: Callable[[Play], Report]) -> None:
    asked: list[tuple[str, ...]] = []

    def play(_name: str, _loaded: LoadedSite, **words: Any) -> PlayResult:
        asked.append(tuple(words["tags"]))
        return result() if words["tags"] == ("worker",) else result("head")

    report = stop(play)
    assert report.exit_code == 6
    assert "head could not be reached" in report.message
    assert ("worker",) in asked


def test_an_interrupt_is_told_with_what_may_still_run(stop: Callable[[Play], Report]) -> None:
    def play(*_: object, **__: object) -> PlayResult:
        raise KeyboardInterrupt

    report = stop(play)
    assert (report.verdict, report.exit_code) == ("interrupted", 130)
    assert len(report.left) == 2


def test_stopped_ends_a_run_that_was_cut_off_and_says_who_is_owed(stop: Callable[[Play], Report]) -> None:
    write_open(OpenRun(run="a" * 32, site="desk", verb="deploy", release="r-abcdef", before=None, began_at=now()))
    report = stop(lambda *_, **__: result())
    assert report.exit_code == 0
    assert "container:hog" in report.message
    assert report.next_step == "dspark-ops tenants restore"
    assert read_open("desk") is None
