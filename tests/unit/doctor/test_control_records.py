"""What the control host remembers of a site, read from real files of the state directory."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dspark_ops.config.load import LoadedSite
from dspark_ops.deploy import run_journal
from dspark_ops.deploy.run_journal import OpenRun
from dspark_ops.doctor.control import read_control
from dspark_ops.releases import store
from tests.unit.doctor.pair_fixture import load_case_site

BEGAN = datetime(2026, 11, 26, 8, 30, tzinfo=UTC)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedSite:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "site.yml"
    path.write_text("name: fixture\n")
    path.chmod(0o640)
    return dataclasses.replace(load_case_site("serve.environment.HF_TOKEN=x", "serve.environment.A=b"), path=path)


def test_a_control_host_that_remembers_nothing(loaded: LoadedSite) -> None:
    found = read_control(loaded)
    assert (found.open_run, found.open_run_known, found.way_back, found.unreadable) == (None, True, None, ())
    assert found.site_mode == 0o640
    assert found.site_secrets == ("HF_TOKEN",)


def test_a_run_that_was_cut_off(loaded: LoadedSite) -> None:
    run = OpenRun(run="0" * 16, site="fixture", verb="deploy", release="r-123456", before=None, began_at=BEGAN)
    run_journal.write_open(run)
    found = read_control(loaded)
    assert found.open_run is not None
    assert (found.open_run.verb, found.open_run.release, found.open_run.began_at) == ("deploy", "r-123456", BEGAN)
    run_journal.path_of("fixture").write_text("{")
    broken = read_control(loaded)
    assert (broken.open_run, broken.open_run_known) == (None, False)


def test_a_broken_record_of_a_release_is_named(loaded: LoadedSite) -> None:
    folder = store.releases_dir("fixture")
    folder.mkdir(parents=True)
    (folder / "r-123456.json").write_text("{")
    assert read_control(loaded).unreadable == ("r-123456.json",)


def test_a_site_file_that_is_gone_has_no_permissions(loaded: LoadedSite) -> None:
    loaded.path.unlink()
    assert read_control(loaded).site_mode is None
