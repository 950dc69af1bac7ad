"""A run's file is readable after a kill at any byte, and holds no secret that was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.gates.record import FILE, RunFolder, read_run


def written(folder: Path) -> bytes:
    run = RunFolder(folder)
    run.open()
    run.write("header", level="smoke")
    for index in range(3):
        run.write("burst", index=index, words="naïve\nsecond line")
    run.close()
    return (folder / FILE).read_bytes()


def test_a_file_that_ends_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    whole = written(tmp_path / "run")
    cut = tmp_path / "cut"
    cut.mkdir()
    for size in range(len(whole) + 1):
        (cut / FILE).write_bytes(whole[:size])
        entries = list(read_run(cut))
        assert len(entries) == whole[:size].count(b"\n")


def test_a_run_goes_on_behind_a_line_that_was_cut(tmp_path: Path) -> None:
    whole = written(tmp_path)
    (tmp_path / FILE).write_bytes(whole[:-7])
    run = RunFolder(tmp_path)
    run.open()
    run.write("end", verdict="void")
    run.close()
    assert [entry["record"] for entry in read_run(tmp_path)] == ["header", "burst", "burst", "end"]


def test_a_line_that_was_cut_within_a_letter_costs_that_line_alone(tmp_path: Path) -> None:
    whole = written(tmp_path)
    (tmp_path / FILE).write_bytes(whole[: whole.rindex(b"\xc3") + 1])
    run = RunFolder(tmp_path)
    run.open()
    run.write("end", verdict="void")
    run.close()
    assert [entry["record"] for entry in read_run(tmp_path)] == ["header", "burst", "burst", "end"]


def test_a_secret_that_was_named_is_nowhere(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.learn("Zx81-very-own-key")
    run.open()
    run.write("exchange", request={"messages": [{"content": "my key is Zx81-very-own-key"}]}, note="Zx81-very-own-key")
    run.close()
    assert "Zx81" not in (tmp_path / FILE).read_text()
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        list(read_run(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder(tmp_path / "file").open()
    with pytest.raises(NoVerdictError):
        RunFolder(tmp_path).write("burst")


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"record": "header"}\nsomething else\n{"record": "end"}\n')
    with pytest.raises(ConfigError, match="no record of a run"):
        list(read_run(tmp_path))
