"""What the lab remembers between commands: one small JSON file, replaced in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dspark_ops.lab.layout import LabPaths

_Model = TypeVar("_Model", bound=BaseModel)


class LabRecord(BaseModel):
    """How the last `lab up` was asked for, and how long its phases took."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cables: int = 2
    crossed: bool = False
    engine_image: str | None = None
    phases_s: dict[str, float] = {}


def read_record(paths: LabPaths) -> LabRecord | None:
    """The record, or None where there is none or an older version wrote it."""
    return read_model(paths.record, LabRecord)


def write_record(paths: LabPaths, record: LabRecord) -> None:
    """Replace the record where it differs."""
    write_model(paths.record, record)


def longest(before: dict[str, float], phases: dict[str, float]) -> dict[str, float]:
    """The longest time seen per phase: what a cold run takes, whatever came after."""
    return {**before, **{name: max(seconds, before.get(name, 0.0)) for name, seconds in phases.items()}}


def read_model(path: Path, model: type[_Model]) -> _Model | None:
    """The model in a file, or None where there is none or an older version wrote it."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write_model(path: Path, value: BaseModel) -> None:
    """Replace the file where its model differs."""
    if read_model(path, type(value)) == value:
        return
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(value.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
