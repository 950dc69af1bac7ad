"""`init` finds the image that `lab up` has built, and never starts to build one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.config.propose import rehearsal_image
from dspark_ops.images.builds import BuildRecord
from dspark_ops.images.inputs import read_inputs
from dspark_ops.paths import cache_dir


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the build of this installation's inputs belongs; nothing is there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_dir() / "images" / read_inputs(load_profile("rehearsal")).key()


def test_nothing_built_is_none_and_leaves_nothing(build: Path, tmp_path: Path) -> None:
    assert not build.exists()
    assert rehearsal_image() is None
    assert list(tmp_path.iterdir()) == []


def test_a_finished_build_is_found(build: Path) -> None:
    build.mkdir(parents=True)
    (build / "image.tar").write_bytes(b"tar")
    record = BuildRecord(
        key=build.name,
        profile="rehearsal",
        contents="full",
        vllm="0.32.0",
        platform="linux/amd64",
        lock="0" * 12,
        root="0" * 64,
        reference="engine:k",
        image_id="sha256:" + "a" * 64,
        layers=(),
        layer_bytes=(),
        manifest="0",
        sbom="0",
        stages=(),
        size_bytes=3,
    )
    (build / "image.json").write_text(record.model_dump_json())
    found = rehearsal_image()
    assert found is not None
    assert (found.reference, found.image_id, found.archive) == ("engine:k", record.image_id, build / "image.tar")


def test_a_broken_build_is_not_mended_from_here(build: Path) -> None:
    build.mkdir(parents=True)
    (build / "image.json").write_text("{}")
    assert rehearsal_image() is None
