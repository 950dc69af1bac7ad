"""The seed's stages on the real vLLM 0.22.1, and on releases that they are not for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dspark_ops.images.changes import ChangeSet, ForeignError, apply, inspect, revert, verify_release
from dspark_ops.images.release_tree import release_tree
from dspark_ops.images.stages import load_stages
from dspark_ops.paths import cache_dir
from tests.release.conftest import EnginePython

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

NAME, FP8 = "nvfp4_ds_mla", "fp8_ds_mla"
#: Imported by 0.22.1 as a package of its own, and not in the engine image of a later release.
GGUF = ("gguf", "0.17.1")
SCRIPT = Path(__file__).with_name("page_sizes.py")


@pytest.fixture(scope="module")
def stack() -> tuple[ChangeSet, ...]:
    return tuple(stage.changes for stage in load_stages("seed"))


def copy_of(version: str, target: Path) -> Path:
    shutil.copytree(release_tree("vllm", version, cache_dir()), target)
    return target


def every_file(root: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file: a tree that was not touched has the same of both."""
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def contents(root: Path) -> dict[str, str]:
    return {path: digest for path, (digest, _) in every_file(root).items()}


def test_all_three_apply_once_and_go_away_to_the_byte(tmp_path: Path, stack: tuple[ChangeSet, ...]) -> None:
    tree = copy_of("0.22.1", tmp_path / "tree")
    before = contents(tree)
    assert inspect(tree, stack).kind == "pristine"
    record = verify_release(tree, "vllm", "0.22.1").record_sha256

    done = apply(tree, stack)
    assert done.after.level == 3
    touched = {change.path for changes in stack for change in changes.files}
    assert set(done.changed) == touched | {"vllm-0.22.1.dist-info/RECORD"}
    assert done.after.release is not None
    assert done.after.release.commit == "0decac0d9"
    after = contents(tree)
    assert {path for path in before if before[path] != after[path]} == set(done.changed)
    assert after.keys() == before.keys()

    whole = verify_release(tree, "vllm", "0.22.1", record, stack=stack)
    assert whole.foreign == ()
    assert whole.checked > 1800

    still = every_file(tree)
    assert apply(tree, stack).changed == ()
    assert every_file(tree) == still

    revert(tree, stack)
    assert contents(tree) == before


def test_the_hash_before_is_the_wheels_own(stack: tuple[ChangeSet, ...]) -> None:
    from dspark_ops.images.changes.record import parse_record

    tree = release_tree("vllm", "0.22.1", cache_dir())
    listed = parse_record((tree / "vllm-0.22.1.dist-info" / "RECORD").read_bytes())
    first: dict[str, str | None] = {}
    for changes in stack:
        for change in changes.files:
            first.setdefault(change.path, change.before)
    assert first == {path: listed[path][0] for path in first}


# On every change the neighbours and the newest; those in between are refused by the same hashes.
@pytest.mark.parametrize(
    "version",
    ["0.21.0", "0.23.0", *(pytest.param(v, marks=pytest.mark.soak) for v in ("0.25.1", "0.28.0")), "0.33.0"],
)
def test_another_release_is_refused_and_not_touched(version: str, tmp_path: Path, stack: tuple[ChangeSet, ...]) -> None:
    tree = copy_of(version, tmp_path / "tree")
    before = every_file(tree)
    with pytest.raises(ForeignError) as refused:
        apply(tree, stack)
    assert every_file(tree) == before
    named = {foreign.path for foreign in refused.value.foreign}
    assert f"vllm-{version}.dist-info" in named
    # Refused for its bytes too, not only for the version that it says it is.
    assert named & {change.path for change in stack[0].files}
    assert named & {change.path for change in stack[1].files}


def test_page_sizes_on_the_releases_own_code(
    tmp_path: Path, stack: tuple[ChangeSet, ...], engine_python: EnginePython
) -> None:
    tree = copy_of("0.22.1", tmp_path / "tree")
    gguf = release_tree(*GGUF, cache_dir())

    def seen() -> dict[str, Any]:
        done = engine_python([tree, gguf], SCRIPT.read_text(encoding="utf-8"), NAME, FP8)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout.splitlines()[-1]))

    pristine = seen()
    assert pristine["vllm"] == "0.22.1"
    assert not pristine[NAME]["known"]
    fp8 = pristine[FP8]
    assert (fp8["c4_page"], fp8["window_page"], fp8["groups"]) == (37_440, 37_440, 5)

    apply(tree, stack, upto=2)
    probe = seen()
    assert probe[FP8] == fp8
    assert probe[NAME]["known"]
    assert probe[NAME]["torch_dtype"] == "torch.uint8"
    assert probe[NAME]["quantised"]
    assert (probe[NAME]["c4_page"], probe[NAME]["window_page"]) == (27_072, 37_440)
    assert probe[NAME]["main_shape"] == [7, 64, 416]
    assert "Cannot unify" in probe[NAME]["unified"]
    assert str(probe[NAME]["groups"]).startswith("AssertionError")  # the release's own planner gives up

    apply(tree, stack)
    envelope = seen()
    assert envelope[FP8] == fp8
    # Under the seed's name everything is what it is under fp8's, but the quantisation mode's name.
    assert {**envelope[NAME], "quant_mode": fp8["quant_mode"]} == fp8
