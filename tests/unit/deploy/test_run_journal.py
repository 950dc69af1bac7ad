"""The run that is under way is known after a kill, and only then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dspark_ops.deploy.run_journal import OpenRun, close_open, path_of, read_open, write_open
from dspark_ops.errors import NoVerdictError

RUN = OpenRun(
    run="a" * 32,
    site="desk",
    verb="deploy",
    release="r-222222222222",
    before="r-111111111111",
    began_at=datetime(2026, 11, 27, 10, 0, tzinfo=UTC),
)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_what_was_written_is_read_until_it_is_closed() -> None:
    assert read_open("desk") is None
    write_open(RUN)
    assert read_open("desk") == RUN
    assert read_open("other") is None
    assert path_of("desk").stat().st_mode & 0o077 == 0
    close_open("desk")
    close_open("desk")
    assert read_open("desk") is None


def test_a_record_that_cannot_be_read_is_not_taken_for_none() -> None:
    write_open(RUN)
    path_of("desk").write_text(path_of("desk").read_text()[:40])
    with pytest.raises(NoVerdictError, match="cannot be read"):
        read_open("desk")


def test_where_nothing_can_be_recorded_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "dspark-ops").write_text("a file where the directory should be")
    with pytest.raises(NoVerdictError, match="nothing was changed"):
        write_open(RUN)
