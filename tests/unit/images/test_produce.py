"""Which image of an archive is meant: the one with all stages, whatever the order they are told in."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.errors import ConfigError
from dspark_ops.images.produce import topmost_image


def _archive(path: Path, manifest: Any, name: str = "manifest.json") -> Path:
    raw = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(raw)
        tar.addfile(entry, io.BytesIO(raw))
    return path


def test_the_image_with_all_stages_is_meant_in_any_order(tmp_path: Path) -> None:
    stages = [{"RepoTags": [f"r:{stage}-1"], "Layers": ["l"] * count} for count, stage in enumerate("abc", 4)]
    for number, order in enumerate(permutations(stages)):
        assert topmost_image(_archive(tmp_path / f"{number}.tar", list(order))) == "r:c-1"


def test_an_image_without_a_name_does_not_count(tmp_path: Path) -> None:
    entries = [{"RepoTags": None, "Layers": ["l"] * 9}, {"RepoTags": ["r:a"], "Layers": ["l"]}]
    assert topmost_image(_archive(tmp_path / "i.tar", entries)) == "r:a"
    with pytest.raises(ConfigError, match="holds no image with a name"):
        topmost_image(_archive(tmp_path / "i.tar", entries[:1]))


@pytest.mark.parametrize("manifest", [{}, [1], [{"RepoTags": ["r:a"]}]])
def test_another_file_is_told(manifest: Any, tmp_path: Path) -> None:
    if manifest != {}:
        with pytest.raises(ConfigError, match="not an archive as `docker save` writes it"):
            topmost_image(_archive(tmp_path / "i.tar", manifest))
    (tmp_path / "text").write_text("no tar")
    for other in (tmp_path / "text", _archive(tmp_path / "other.tar", [], "other.json")):
        with pytest.raises(ConfigError, match="not an archive as `docker save` writes it"):
            topmost_image(other)
