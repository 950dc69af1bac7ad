"""ensure_engine_image: what makes a new image, what is reused, and what it says when it cannot build."""

from __future__ import annotations

import json
import platform
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.images import image_build, rehearsal
from dspark_ops.images.rehearsal import EngineImage, engine_key, ensure_engine_image, read_inputs
from dspark_ops.lab import debian_root
from dspark_ops.paths import data_dir

_Usage = namedtuple("_Usage", "total used free")


class _Steps:
    """The slow and privileged steps, replaced: they note their turn and write a few bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[str] = []
        self.fail_at: str | None = None
        monkeypatch.setattr(rehearsal, "install_wheels", self._wheels)
        monkeypatch.setattr(debian_root, "build_debian_root", self._root)
        monkeypatch.setattr(image_build, "build_image", self._image)
        monkeypatch.setattr(image_build, "save_image", self._save)
        monkeypatch.setattr(image_build, "remove_traces", lambda *_: None)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda _: _Usage(2**40, 0, 2**40))

    def _take(self, step: str) -> None:
        self.taken.append(step)
        if self.fail_at == step:
            raise NoVerdictError(f"{step} was interrupted")

    def _wheels(self, lock: Path, torch_lock: Path, target: Path, **_: Any) -> None:
        assert "sha256" in lock.read_text(encoding="utf-8")
        assert "torch==" in torch_lock.read_text(encoding="utf-8")
        (target / "vllm").mkdir(parents=True)
        (target / "vllm/__init__.py").write_text("", encoding="utf-8")
        (target / "torch/test").mkdir(parents=True)
        (target / "torch/test/big").write_text("not needed", encoding="utf-8")
        self._take("wheels")

    def _root(self, tar: Path, *_: Any, **__: Any) -> None:
        self._take("root")
        tar.write_bytes(b"root")

    def _image(self, _: Any, *, context: Any, **__: Any) -> str:
        sent = b"".join(context)
        assert b"site/vllm/__init__.py" in sent
        assert b"torch/test" not in sent
        self._take("image")
        return "sha256:" + "a" * 64

    def _save(self, _: Any, __: str, archive: Path) -> None:
        archive.write_bytes(b"half")
        self._take("save")
        archive.write_bytes(b"the whole archive")

    def run(self, cache: Path) -> EngineImage:
        client = SimpleNamespace(ping=lambda: True, info=lambda: {"DockerRootDir": str(cache)}, close=lambda: None)
        return ensure_engine_image(lambda: client, cache, progress=print)  # type: ignore[arg-type,return-value]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> _Steps:
    return _Steps(monkeypatch)


def _no_docker() -> Any:
    raise AssertionError("the warm path asked for Docker")


@pytest.mark.parametrize("name", rehearsal.INPUTS)
def test_the_key_changes_with_each_input(name: str) -> None:
    inputs = read_inputs(data_dir("images") / "rehearsal")
    assert engine_key(inputs | {name: inputs[name] + b" "}) != engine_key(inputs)
    assert engine_key(dict(reversed(inputs.items()))) == engine_key(inputs)


@pytest.mark.parametrize("name", ["SUITE", "ROOT_PACKAGES", "PRUNED", "_RECIPE_VERSION"])
def test_the_key_changes_with_the_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = read_inputs(data_dir("images") / "rehearsal")
    before = engine_key(inputs)
    monkeypatch.setattr(rehearsal, name, "another")
    assert engine_key(inputs) != before


def test_every_file_that_the_dockerfile_copies_is_an_input() -> None:
    lines = read_inputs(data_dir("images") / "rehearsal")["Dockerfile"].decode().splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert copied
    assert {word for word in copied if word != "site/"} <= set(rehearsal.INPUTS)


def test_the_second_run_needs_no_docker(steps: _Steps, tmp_path: Path) -> None:
    built = steps.run(tmp_path)
    again = ensure_engine_image(_no_docker, tmp_path, progress=print)
    assert again == built
    assert built.archive.read_bytes() == b"the whole archive"
    assert built.reference == f"dspark-engine-rehearsal:{built.key}"
    assert steps.taken == ["wheels", "root", "image", "save"]
    assert sorted(p.name for p in (tmp_path / "engine").iterdir()) == [".lock", built.key]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: (d / "image.json").write_text("{", encoding="utf-8"),
        lambda d: (d / "image.json").write_text("[]", encoding="utf-8"),
        lambda d: (d / "image.json").write_bytes(b"\xff\xfe"),
        lambda d: (d / "image.json").write_text(json.dumps({"key": d.name}), encoding="utf-8"),
        lambda d: (d / "image.json").write_text(
            (d / "image.json").read_text(encoding="utf-8").replace('"sha256:', '"'), encoding="utf-8"
        ),
        lambda d: (d / "image.json").unlink(),
        lambda d: (d / "image.tar").write_bytes(b"short"),
        lambda d: (d / "image.tar").unlink(),
    ],
)
def test_a_spoilt_build_is_built_again(spoil: Callable[[Path], Any], steps: _Steps, tmp_path: Path) -> None:
    built = steps.run(tmp_path)
    spoil(built.archive.parent)
    assert steps.run(tmp_path) == built
    assert steps.taken.count("save") == 2
    assert ensure_engine_image(_no_docker, tmp_path, progress=print) == built


@pytest.mark.parametrize("step", ["wheels", "root", "image", "save"])
def test_the_next_run_finishes_an_interrupted_one(step: str, steps: _Steps, tmp_path: Path) -> None:
    steps.fail_at = step
    with pytest.raises(NoVerdictError, match="interrupted"):
        steps.run(tmp_path)
    assert not list(tmp_path.glob("engine/*/image.json"))
    done = steps.taken[: steps.taken.index(step)]
    steps.fail_at, steps.taken = None, []
    steps.run(tmp_path)
    assert not {"wheels", "root"} & set(done) & set(steps.taken)
    assert not (tmp_path / "engine/.stage").exists()


def test_only_the_newest_two_builds_are_kept(steps: _Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for version in (11, 12, 13):
        monkeypatch.setattr(rehearsal, "_RECIPE_VERSION", version)
        keys.append(steps.run(tmp_path).key)
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {".lock", *keys[1:]}


def test_without_an_engine_nothing_slow_is_started(steps: _Steps, tmp_path: Path) -> None:
    import docker

    def refuse() -> Any:
        raise docker.errors.DockerException("connection refused")

    with pytest.raises(NoVerdictError, match=r"none answered: connection refused"):
        ensure_engine_image(refuse, tmp_path, progress=print)
    assert steps.taken == []


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ConfigError, match="aarch64"):
        ensure_engine_image(_no_docker, tmp_path, progress=print)
    assert not list(tmp_path.iterdir())


def test_a_small_disk_is_refused_before_anything_starts(
    steps: _Steps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda _: _Usage(2**40, 0, 5 * 2**30))
    with pytest.raises(ConfigError, match=r"8 GiB and .* has 5\.0 GiB free"):
        ensure_engine_image(_no_docker, tmp_path / "absent", progress=print)
    assert steps.taken == []
    assert not list(tmp_path.iterdir())
