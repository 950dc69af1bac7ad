"""The stages of a lane: their headers and change sets, in order, each with a digest that holds those below it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.errors import ConfigError
from dspark_ops.images.changes import ChangeSet, DocumentError, FileChange, load_change_set, with_record
from dspark_ops.images.changes.model import check_stack, sha256_hex
from dspark_ops.paths import data_dir

#: The order in which they are applied; a lane has all of them.
STAGE_IDS = ("a", "b", "c")
HEADER = "stage.yml"
#: The committed form of an exported change set, for stages that edit files.
CHANGES = "changes.json"
FILES = "files"


class StageRelease(BaseModel):
    """The release that a stage is written for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    distribution: str = Field(min_length=1)
    version: str = Field(min_length=1)


class StageHeader(BaseModel):
    """stage.yml: what the stage is for, what upstream has of it, and when it goes.

    changes: `patches` is changes.json with patches beside it; `files` is a tree that is only added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Literal["a", "b", "c"]
    lane: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str = Field(min_length=1)
    release: StageRelease
    why: str = Field(min_length=1)
    upstream: str = Field(min_length=1)
    remove_when: str = Field(min_length=1)
    changes: Literal["patches", "files"]


@dataclass(frozen=True)
class Stage:
    """One stage. `digest`: sha256 over the digest of the stage below and every file of this one."""

    header: StageHeader
    changes: ChangeSet
    directory: Path
    digest: str

    @property
    def id(self) -> str:
        return self.header.id

    @property
    def title(self) -> str:
        return self.header.title


def load_stages(lane: str, *, directory: Path | None = None) -> tuple[Stage, ...]:
    """The lane's stages a, b, c; `directory` holds the lanes (default: this installation's).

    Raises:
        ConfigError: a stage is missing, one too many, or malformed; or their change sets do not fit on each other.
    """
    root = (directory or data_dir("images") / "stages") / lane
    if not root.is_dir():
        raise ConfigError(
            f"there is no lane {lane!r}: {root} is no directory", hint="a lane is one directory of images/stages"
        )
    present = {path.name for path in root.iterdir() if path.is_dir() and path.name != "__pycache__"}
    missing = [name for name in STAGE_IDS if name not in present]
    if missing or present - set(STAGE_IDS):
        raise ConfigError(
            f"lane {lane} has the stages {', '.join(sorted(present)) or 'none'}, expected {', '.join(STAGE_IDS)}",
            hint=f"restore {root / missing[0]}" if missing else f"remove what is no stage from {root}",
        )
    headers = [_header(root / name, lane, name) for name in STAGE_IDS]
    try:
        stack = with_record([_changes(root / header.id, header) for header in headers])
        check_stack(stack)
    except DocumentError as malformed:
        raise ConfigError(
            f"lane {lane}: {malformed}", hint="docs/stages.md tells how a stage is written"
        ) from malformed
    stages: list[Stage] = []
    for header, changes in zip(headers, stack, strict=True):
        below = stages[-1].digest if stages else ""
        stages.append(Stage(header, changes, root / header.id, _digest(root / header.id, below)))
    return tuple(stages)


def export_stage(stage: Stage, target_dir: Path) -> None:
    """Write the stage's change set as the engine in the image reads it; what was in `target_dir` goes."""
    if target_dir.exists():
        shutil.rmtree(target_dir)
    stage.changes.write(target_dir)


def _header(directory: Path, lane: str, name: str) -> StageHeader:
    place = directory / HEADER
    try:
        data: Any = yaml.safe_load(place.read_text(encoding="utf-8"))
        header = StageHeader.model_validate(data)
    except OSError as absent:
        raise ConfigError(f"stage {lane}/{name} has no readable header: {absent}") from absent
    except yaml.YAMLError as broken:
        raise ConfigError(f"{place} is not YAML: {broken}") from broken
    except ValidationError as wrong:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'header'}: {e['msg']}" for e in wrong.errors())
        raise ConfigError(f"{place}: {said}", hint="docs/stages.md lists the keys of a header") from wrong
    if (header.lane, header.id) != (lane, name):
        raise ConfigError(f"{place} says stage {header.lane}/{header.id}, but it lies in {lane}/{name}")
    return header


def _changes(directory: Path, header: StageHeader) -> ChangeSet:
    name, release = f"{header.lane}-{header.id}", header.release
    if header.changes == "files":
        if (directory / CHANGES).exists():
            raise DocumentError(f"{directory} has a {CHANGES}, but its header says changes: files")
        return ChangeSet(name, release.distribution, release.version, _added(directory / FILES))
    changes = load_change_set(directory, document=CHANGES)
    said = (changes.name, changes.distribution, changes.version)
    if said != (name, release.distribution, release.version):
        raise DocumentError(
            f"{directory / CHANGES} is {' '.join(said)}, "
            f"but the header says {name} {release.distribution} {release.version}"
        )
    used = {entry.get("patch") for entry in json.loads((directory / CHANGES).read_bytes())["files"]}
    unused = sorted({path.name for path in directory.glob("*.patch")} - used)
    if unused:
        raise DocumentError(f"{directory} has patches that {CHANGES} does not name: {', '.join(unused)}")
    return changes


def _added(files: Path) -> tuple[FileChange, ...]:
    found = []
    for path in _files_of(files) if files.is_dir() else []:
        content = path.read_bytes()
        found.append(FileChange(path.relative_to(files).as_posix(), None, sha256_hex(content), content=content))
    if not found:
        raise DocumentError(f"{files} holds no file, and the header says changes: files")
    return tuple(found)


def _digest(directory: Path, below: str) -> str:
    digest = hashlib.sha256(f"{below}\n".encode())
    for path in _files_of(directory):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files_of(directory: Path) -> list[Path]:
    """Every file below, sorted by its path; not what Python leaves behind when one of them is imported."""
    found = []
    for path in sorted(directory.rglob("*"), key=lambda p: p.relative_to(directory).as_posix()):
        if "__pycache__" in path.parts:
            continue
        if path.is_symlink():
            raise ConfigError(f"{path} is a symbolic link; a stage holds plain files only")
        if path.is_file():
            found.append(path)
    return found
