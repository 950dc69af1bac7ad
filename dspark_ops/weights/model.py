"""What whole weights are: the files of one commit with size and digests, and where a hub cache keeps them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dspark_ops.config.models import Frozen, HubSite

#: Where a node keeps its records of what whole weights are (root, 0600).
RECORDS = PurePosixPath("/var/lib/dspark-ops/weights")
INCOMPLETE = ".incomplete"


class WeightFile(Frozen):
    """One file of the commit, size in bytes. blob: its name in the cache; sha256 None: not LFS, and not fetched yet."""

    name: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=0)]
    blob: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Manifest(Frozen):
    """All files of one repository at one commit."""

    version: Literal[1] = 1
    repo: str
    revision: str
    files: tuple[WeightFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def completed(self, other: Manifest | None) -> Manifest:
        """The same, with the sha256 that `other` knows of the same blobs."""
        known = {file.blob: file.sha256 for file in other.files} if other is not None else {}
        files = (
            file if file.sha256 is not None else file.model_copy(update={"sha256": known.get(file.blob)})
            for file in self.files
        )
        return self.model_copy(update={"files": tuple(files)})

    def document(self) -> dict[str, Any]:
        """As modules and records have it."""
        return self.model_dump(mode="json")


def parse_manifest(document: object) -> Manifest | None:
    """A manifest as a module or a record tells it; None for anything else."""
    try:
        return Manifest.model_validate(document)
    except ValidationError:
        return None


def repo_directory(hub: HubSite) -> PurePosixPath:
    """The repository's directory in the hub cache of a node."""
    return hub.cache / ("models--" + hub.repo.replace("/", "--"))


def record_path(hub: HubSite) -> PurePosixPath:
    """Where a node keeps what the files of the pinned revision are."""
    return RECORDS / f"{repo_directory(hub).name}@{hub.revision}.json"
