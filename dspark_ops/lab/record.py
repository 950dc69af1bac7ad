"""What the lab remembers between commands: one small JSON file, replaced in one step."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, ValidationError

from dspark_ops.lab.layout import LabPaths


class LabRecord(BaseModel):
    """How the last `lab up` was asked for, and how long its phases took."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cables: int = 2
    engine_image: str | None = None
    phases_s: dict[str, float] = {}


def read_record(paths: LabPaths) -> LabRecord | None:
    """The record, or None where there is none or an older version wrote it."""
    try:
        return LabRecord.model_validate_json(paths.record.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def write_record(paths: LabPaths, record: LabRecord) -> None:
    """Replace the record where it differs."""
    if read_record(paths) == record:
        return
    fresh = paths.record.with_suffix(".fresh")
    fresh.write_text(json.dumps(record.model_dump(), indent=1) + "\n", encoding="utf-8")
    fresh.replace(paths.record)
