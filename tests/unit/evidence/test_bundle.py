"""The archive: the same files give the same bytes, within its bounds, never over something that is there."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence import bundle
from dspark_ops.evidence.bundle import Manifest, bounded, pack, read_manifest, refuse_existing, write

MOMENT = datetime(2026, 11, 27, 17, 0, tzinfo=UTC)
MANIFEST = Manifest(made_at=MOMENT, site="lab", verdict="ready", versions={"dspark-ops": "0.1.0"})
FILES = {"doctor.txt": b"ready\n", "head/rank.log": b"a\nb\n", "control/site.yml": b"name: lab\n"}


def test_the_same_files_give_the_same_bytes() -> None:
    first = pack(FILES, MANIFEST, "e")
    assert first == pack(dict(reversed(FILES.items())), MANIFEST, "e")
    with tarfile.open(fileobj=io.BytesIO(first), mode="r:gz") as archive:
        entries = archive.getmembers()
    assert [e.name for e in entries] == ["e/manifest.json", "e/control/site.yml", "e/doctor.txt", "e/head/rank.log"]
    assert {(e.uid, e.gid, e.uname, e.mode, e.mtime) for e in entries} == {(0, 0, "", 0o600, MOMENT.timestamp())}


def test_the_manifest_lists_every_file_with_its_digest() -> None:
    manifest = read_manifest(pack(FILES, MANIFEST, "e"))
    assert [(f.name, f.bytes) for f in manifest.files] == [(n, len(FILES[n])) for n in sorted(FILES)]
    assert all(len(f.sha256) == 64 for f in manifest.files)


def test_an_archive_that_was_changed_is_seen() -> None:
    packed = io.BytesIO()
    head = MANIFEST.model_copy(update={"files": (bundle.BundledFile(name="a", bytes=1, sha256="0" * 64),)})
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("e/manifest.json", head.model_dump_json(by_alias=True).encode()), ("e/a", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(ConfigError, match="a in the archive"):
        read_manifest(packed.getvalue())


@pytest.mark.parametrize("content", [b"", b"rubbish", pack(FILES, MANIFEST, "e")[:200]])
def test_what_is_no_archive_is_told(content: bytes) -> None:
    with pytest.raises(ConfigError):
        read_manifest(content)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(100, 1200))
def test_logs_lose_their_beginnings_until_all_is_within_the_limit(sizes: list[int], limit: int) -> None:
    files = {f"{n}.log": b"0123456\n" * (size // 8) for n, size in enumerate(sizes)}
    kept, told = bounded(files, limit)
    assert sum(map(len, kept.values())) <= max(limit, 0)
    assert bool(told) is (sum(map(len, files.values())) > limit)
    assert all(files[name].endswith(content) for name, content in kept.items())
    assert all(not content or content.startswith(b"0") for content in kept.values()), "whole lines"


def test_what_is_no_log_is_not_cut() -> None:
    files = {"recording/head.json": b"x" * 500, "head/rank.log": b"line\n" * 100}
    kept, _ = bounded(files, 600)
    assert kept["recording/head.json"] == files["recording/head.json"]
    assert len(kept["head/rank.log"]) <= 100
    assert bounded(files, 1000) == (files, [])
    assert bounded(files, 999)[0] != files


def test_it_is_written_whole_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new/evidence.tar.gz"
    write(path, b"content")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["evidence.tar.gz"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "evidence.tar.gz"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="not overwritten"):
        refuse_existing(path)
    with pytest.raises(ConfigError):
        write(path, b"content")
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["evidence.tar.gz"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.os, "fsync", full)
    with pytest.raises(NoVerdictError, match="No space left"):
        write(tmp_path / "evidence.tar.gz", b"content")
    assert list(tmp_path.iterdir()) == []
