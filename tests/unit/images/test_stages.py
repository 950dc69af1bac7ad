"""Stages as they are committed, and every way in which a lane can be malformed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dspark_ops.errors import ConfigError
from dspark_ops.images.changes import load_change_set
from dspark_ops.images.changes.record import parse_record
from dspark_ops.images.stages import STAGE_IDS, export_stage, load_stages
from dspark_ops.paths import data_dir

HEADER = {
    "lane": "made",
    "title": "A title",
    "release": {"distribution": "vllm", "version": "0.32.0"},
    "why": "Because.",
    "upstream": "Nothing.",
    "remove_when": "Never.",
    "changes": "files",
}
METADATA = b"Metadata-Version: 2.1\nName: dspark-vllm\nVersion: 1.0.0\n"
INFO = "dspark_vllm-1.0.0.dist-info"


@pytest.fixture
def lanes(tmp_path: Path) -> Path:
    """One lane `made` of three stages that bring a distribution, a file each."""
    for stage in STAGE_IDS:
        write_header(tmp_path, stage)
        add(tmp_path, stage, f"dspark_vllm/{stage}.py", f"STAGE = {stage!r}\n".encode())
    add(tmp_path, "a", f"{INFO}/METADATA", METADATA)
    return tmp_path


def write_header(lanes: Path, stage: str, **changed: Any) -> None:
    place = lanes / "made" / stage / "stage.yml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(yaml.safe_dump({"id": stage, **HEADER, **changed}), encoding="utf-8")


def add(lanes: Path, stage: str, path: str, content: bytes) -> None:
    place = lanes / "made" / stage / "files" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def seed_at(lanes: Path) -> Path:
    shutil.copytree(data_dir("images") / "stages/seed", lanes / "seed")
    return lanes / "seed"


def test_the_seed_is_three_stages_on_0_22_1_and_says_what_it_is() -> None:
    stages = load_stages("seed")
    assert [stage.id for stage in stages] == ["a", "b", "c"]
    assert {(s.changes.distribution, s.changes.version) for s in stages} == {("vllm", "0.22.1")}
    assert "FP8 in a 584-byte envelope" in stages[2].title
    assert "must not serve" in stages[0].header.why
    assert all(change.before is not None for stage in stages for change in stage.changes.files)


def test_every_lane_of_this_installation_loads() -> None:
    for lane in sorted(path.name for path in (data_dir("images") / "stages").iterdir() if path.is_dir()):
        assert len(load_stages(lane)) == 3, lane


def test_files_become_added_files_and_a_record_that_grows(lanes: Path) -> None:
    a, b, c = load_stages("made", directory=lanes)
    assert [change.path for change in a.changes.files] == [f"{INFO}/METADATA", "dspark_vllm/a.py", f"{INFO}/RECORD"]
    assert [(change.path, change.before is None) for change in b.changes.files] == [
        ("dspark_vllm/b.py", True),
        (f"{INFO}/RECORD", False),
    ]
    assert a.changes.files[-1].content is not None
    assert set(parse_record(a.changes.files[-1].content)) == {f"{INFO}/{n}" for n in ("METADATA", "RECORD")} | {
        "dspark_vllm/a.py"
    }
    assert c.changes.files[-1].before == b.changes.files[-1].after


def test_an_exported_stage_is_what_the_engine_reads(lanes: Path, tmp_path: Path) -> None:
    for stage in (*load_stages("made", directory=lanes), *load_stages("seed")):
        target = tmp_path / "out" / stage.changes.name
        target.mkdir(parents=True)
        (target / "stale").write_text("of an earlier export")
        export_stage(stage, target)
        assert load_change_set(target) == stage.changes
        assert not (target / "stale").exists()


def test_a_digest_holds_every_byte_and_name_and_the_stage_below(lanes: Path) -> None:
    def digests() -> list[str]:
        return [stage.digest for stage in load_stages("made", directory=lanes)]

    first = digests()
    assert digests() == first
    assert len(set(first)) == 3
    add(lanes, "b", "dspark_vllm/b.py", b"STAGE = 'B'\n")
    second = digests()
    assert (second[0], second[1] != first[1], second[2] != first[2]) == (first[0], True, True)
    (lanes / "made/b/files/dspark_vllm/b.py").rename(lanes / "made/b/files/dspark_vllm/bb.py")
    assert digests()[1] not in (first[1], second[1])
    write_header(lanes, "a", why="Another reason.")
    assert digests()[0] != first[0]


def test_what_python_leaves_behind_is_no_part_of_a_stage(lanes: Path) -> None:
    before = load_stages("made", directory=lanes)
    add(lanes, "a", "dspark_vllm/__pycache__/a.cpython-311.pyc", b"compiled")
    after = load_stages("made", directory=lanes)
    assert [(s.digest, s.changes) for s in after] == [(s.digest, s.changes) for s in before]


def remove_b(lanes: Path) -> None:
    shutil.rmtree(lanes / "made/b")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a gap": (remove_b, "has the stages a, c, expected a, b, c"),
    "one too many": (lambda lanes: (lanes / "made/d").mkdir(), "has the stages a, b, c, d"),
    "no header": (lambda lanes: (lanes / "made/a/stage.yml").unlink(), "made/a has no readable header"),
    "not YAML": (lambda lanes: (lanes / "made/a/stage.yml").write_text("id: [a"), "is not YAML"),
    "unknown key": (lambda lanes: write_header(lanes, "a", owner="me"), "owner: Extra inputs are not permitted"),
    "wrong place": (lambda lanes: write_header(lanes, "a", id="b"), "says stage made/b, but it lies in made/a"),
    "no files": (lambda lanes: shutil.rmtree(lanes / "made/c/files"), "files holds no file"),
    "another release": (
        lambda lanes: write_header(lanes, "c", release={"distribution": "vllm", "version": "0.33.0"}),
        "made-c is for vllm 0.33.0",
    ),
    "no changes.json": (lambda lanes: write_header(lanes, "b", changes="patches"), "cannot be read as a change set"),
    "the same file twice": (
        lambda lanes: add(lanes, "b", "dspark_vllm/a.py", b"again\n"),
        "made-b: dspark_vllm/a.py is edited from no file",
    ),
    "a RECORD of its own": (lambda lanes: add(lanes, "a", f"{INFO}/RECORD", b""), "is made from its files"),
    "metadata too late": (
        lambda lanes: (lanes / f"made/a/files/{INFO}").rename(lanes / f"made/b/files/{INFO}"),
        "adds files before dspark_vllm-1.0.0.dist-info",
    ),
    "a link": (lambda lanes: (lanes / "made/a/files/x.py").symlink_to("/etc/passwd"), "symbolic link"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(lanes: Path, fault: str) -> None:
    damage, said = FAULTS[fault]
    damage(lanes)
    with pytest.raises(ConfigError) as refused:
        load_stages("made", directory=lanes)
    assert said in refused.value.message


def test_an_unknown_lane_is_named(lanes: Path) -> None:
    with pytest.raises(ConfigError, match="no lane 'other'"):
        load_stages("other", directory=lanes)


def test_a_patch_that_is_absent_unused_or_edited_is_named(lanes: Path) -> None:
    seed = seed_at(lanes)
    patch = seed / "b/01-attention.py.patch"
    kept = patch.read_bytes()
    patch.unlink()
    with pytest.raises(ConfigError, match="its patch cannot be read"):
        load_stages("seed", directory=lanes)
    patch.write_bytes(kept)
    (seed / "b/09-more.py.patch").write_bytes(kept)
    with pytest.raises(ConfigError, match=r"does not name: 09-more\.py\.patch"):
        load_stages("seed", directory=lanes)
    (seed / "b/09-more.py.patch").unlink()
    document = json.loads((seed / "c/changes.json").read_text())
    document["files"][0]["before"] = "0" * 64
    (seed / "c/changes.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"seed-c: vllm/models/deepseek_v4/attention\.py is edited from 0000"):
        load_stages("seed", directory=lanes)
