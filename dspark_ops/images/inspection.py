"""Looking into an image: what `docker image inspect` and the programs inside it say, parsed. They change nothing."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.facts.rank import LABEL
from dspark_ops.transport.readonly import LOOK


def look_command(image_id: str, program: str, *arguments: str) -> tuple[str, ...]:
    """The words after `docker` that run one of the image's own verification programs in it."""
    return (*LOOK, image_id, "-B", f"/opt/dspark/verify/{program}", *arguments)


_Model = TypeVar("_Model", bound=BaseModel)


class Told(BaseModel):
    """Base of what a program said: what we do not know is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageFacts(Told):
    """One image of an Engine. layers: diff_ids, lowest first. size_bytes: uncompressed, as the Engine counts."""

    id: str
    references: tuple[str, ...]
    labels: dict[str, str]
    layers: tuple[str, ...]
    architecture: str
    size_bytes: int

    def label(self, name: str) -> str | None:
        """Our label of that name (without the prefix), or None."""
        return self.labels.get(LABEL + name)


def parse_image_inspect(text: str) -> ImageFacts:
    """`docker image inspect IMAGE`: a JSON list with one object.

    Raises:
        NoVerdictError: it is something else.
    """
    try:
        [document] = json.loads(text)
        return ImageFacts(
            id=document["Id"],
            references=tuple(document.get("RepoTags") or ()),
            labels=(document.get("Config") or {}).get("Labels") or {},
            layers=tuple((document.get("RootFS") or {}).get("Layers") or ()),
            architecture=document["Architecture"],
            size_bytes=document["Size"],
        )
    except (ValueError, KeyError, TypeError) as trouble:
        raise NoVerdictError(f"`docker image inspect` printed something else than expected: {trouble!r}") from trouble


class Difference(Told):
    path: str
    expected: str
    observed: str


class SeenStage(Told):
    id: str
    name: str
    sha256: str


class FilesCheck(Told):
    """What files_check.py found in the image. files: how many were hashed; not_hashed: large ones left out."""

    manifest_sha256: str
    stages: tuple[SeenStage, ...]
    files: int
    not_hashed: int
    differing: tuple[Difference, ...]
    differing_count: int
    missing: tuple[str, ...]
    missing_count: int
    added: tuple[str, ...]
    added_count: int
    elapsed_s: float


def parse_files_check(text: str) -> FilesCheck:
    """The last line that files_check.py printed.

    Raises:
        NoVerdictError: it is something else.
    """
    return parse_last_line(FilesCheck, text)


def parse_last_line(model: type[_Model], text: str) -> _Model:
    """The last line of `text` that begins a JSON object, as `model`: before it a program may have warned.

    Raises:
        NoVerdictError: there is none, or it is another document.
    """
    lines = [line for line in text.splitlines() if line.startswith("{")]
    try:
        return model.model_validate_json(lines[-1] if lines else "")
    except ValidationError as trouble:
        first = trouble.errors(include_url=False)[0]
        raise NoVerdictError(
            f"the check inside the image printed something else than expected: {first['msg']} at {first['loc']}"
        ) from trouble
