"""Tars and streams of a build, and what a failed build says."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.errors import NoVerdictError
from dspark_ops.images import image_build


def _tree(root: Path) -> Path:
    (root / "package").mkdir(parents=True)
    (root / "package/code.py").write_text("x = 1\n", encoding="utf-8")
    (root / "package/run").write_text("#!/bin/sh\n", encoding="utf-8")
    (root / "package/run").chmod(0o755)
    return root


def test_the_same_tree_gives_the_same_tar(tmp_path: Path) -> None:
    for run in ("a", "b"):
        tree = _tree(tmp_path / run)
        os.utime(tree / "package/code.py", (1, 1 if run == "a" else 2_000_000))
        image_build.pack_tree(tree, tmp_path / f"{run}.tar", prefix="site")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        entry = tar.getmember("site/package/run")
        assert (entry.mode & 0o777, entry.uid, entry.uname) == (0o755, 0, "root")
    assert not list(tmp_path.glob(".*"))


def test_the_context_is_one_archive_of_both_parts(tmp_path: Path) -> None:
    image_build.pack_tree(_tree(tmp_path / "tree"), tmp_path / "tree.tar", prefix="site")
    sent = b"".join(image_build.context_stream({"Dockerfile": b"FROM x\n"}, tmp_path / "tree.tar"))
    with tarfile.open(fileobj=io.BytesIO(sent)) as tar:
        names = tar.getnames()
        content = tar.extractfile("site/package/code.py")
        assert content is not None
        assert content.read() == b"x = 1\n"
    assert names == ["Dockerfile", "site/package", "site/package/code.py", "site/package/run"]


def _client(events: list[dict[str, str]]) -> Any:
    api = SimpleNamespace(build=lambda **_: iter(events))
    return SimpleNamespace(api=api, images=SimpleNamespace(get=lambda _: SimpleNamespace(id="sha256:1")))


def _build(client: Any, tmp_path: Path) -> str:
    return image_build.build_image(
        client,
        root=tmp_path / "root.tar",
        root_reference="root:1",
        context=iter([b""]),
        reference="engine:1",
        arguments={},
        log=tmp_path / "build.log",
    )


def test_a_failed_build_step_is_told_with_its_last_lines(tmp_path: Path) -> None:
    events = [{"stream": "Step 1\n"}, {"stream": "strip: not found\n"}, {"error": "returned a non-zero code: 1"}]
    with pytest.raises(NoVerdictError, match="strip: not found\nreturned a non-zero code: 1") as caught:
        _build(_client(events), tmp_path)
    assert str(tmp_path / "build.log") in (caught.value.hint or "")
    assert "Step 1" in (tmp_path / "build.log").read_text(encoding="utf-8")


def test_a_good_build_returns_the_images_id(tmp_path: Path) -> None:
    assert _build(_client([{"stream": "Successfully built 1\n"}]), tmp_path) == "sha256:1"


def test_a_lost_engine_is_told_in_our_words(tmp_path: Path) -> None:
    import docker

    client = _client([])

    def refuse(**options: Any) -> Any:
        raise docker.errors.APIError("no space left on device")

    client.api.build = refuse
    with pytest.raises(NoVerdictError, match="no space left on device"):
        _build(client, tmp_path)
