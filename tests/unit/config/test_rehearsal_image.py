"""`init` finds the engine that `lab up` has built, and never starts to build one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dspark_ops.config.propose import rehearsal_image
from dspark_ops.images.rehearsal import engine_key, read_inputs
from dspark_ops.paths import cache_dir, data_dir


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the build of this installation's inputs belongs; nothing is there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return cache_dir() / "lab" / "engine" / engine_key(read_inputs(data_dir("images") / "rehearsal"))


def test_nothing_built_is_none_and_leaves_nothing(build: Path, tmp_path: Path) -> None:
    assert rehearsal_image() is None
    assert list(tmp_path.iterdir()) == []


def test_a_finished_build_is_found(build: Path) -> None:
    build.mkdir(parents=True)
    (build / "image.tar").write_bytes(b"tar")
    about = {"reference": "engine:k", "image_id": "sha256:" + "a" * 64, "size_bytes": 3, "key": build.name}
    (build / "image.json").write_text(json.dumps(about))
    found = rehearsal_image()
    assert found is not None
    assert (found.reference, found.image_id, found.archive) == ("engine:k", about["image_id"], build / "image.tar")


def test_a_broken_build_is_not_mended_from_here(build: Path) -> None:
    build.mkdir(parents=True)
    (build / "image.json").write_text("{}")
    assert rehearsal_image() is None
