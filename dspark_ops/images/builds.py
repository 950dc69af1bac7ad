"""The builds that a cache directory holds: one directory each, an archive and the record of what it is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dspark_ops.config.models import Frozen
from dspark_ops.images.inputs import Contents

_KEPT_BUILDS = 2


class StageImage(Frozen):
    """One stage's image, as its tag and labels have it. layer: the diff_id that this stage added."""

    id: str
    name: str
    digest: str
    reference: str
    image_id: str
    layer: str
    layer_bytes: int


class BuildRecord(Frozen):
    """A finished build. size_bytes is the archive's.

    lock: hash of everything below the stages. manifest: sha256 of the list of sealed files in the image.
    """

    version: Literal[2] = 2
    key: str
    profile: str
    contents: Contents
    vllm: str
    platform: str
    lock: str
    root: str
    reference: str
    image_id: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    layers: tuple[str, ...]
    layer_bytes: tuple[int, ...]
    manifest: str
    sbom: str
    stages: tuple[StageImage, ...]
    size_bytes: int


@dataclass(frozen=True)
class BuiltImage:
    """A finished build and its archive, as `docker load` takes it."""

    record: BuildRecord
    archive: Path

    @property
    def reference(self) -> str:
        return self.record.reference

    @property
    def image_id(self) -> str:
        return self.record.image_id


def finished_builds(cache: Path) -> tuple[BuiltImage, ...]:
    """Every whole build in the cache, newest first."""
    places = sorted(cache.glob("*/image.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = (read_build(path.parent) for path in places)
    return tuple(built for built in found if built is not None)


def read_build(directory: Path) -> BuiltImage | None:
    """The build in `directory`; None when it is absent, unreadable, or not what its record says."""
    archive = directory / "image.tar"
    try:
        record = BuildRecord.model_validate_json((directory / "image.json").read_bytes())
        whole = archive.stat().st_size == record.size_bytes
    except (OSError, ValidationError):
        return None
    return BuiltImage(record, archive) if whole else None


def drop_old_builds(cache: Path, current: BuiltImage) -> None:
    """Keep this build and the newest other one of the same profile and contents."""
    same = [
        built
        for built in finished_builds(cache)
        if (built.record.profile, built.record.contents) == (current.record.profile, current.record.contents)
        and built.record.key != current.record.key
    ]
    for built in same[_KEPT_BUILDS - 1 :]:
        shutil.rmtree(built.archive.parent)
