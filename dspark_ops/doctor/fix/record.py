"""The fix that is under way: written before its first change, shorter after each step, gone when it has ended.

A fix that is killed leaves the pair between two states that may both look healthy (a network change that is not
confirmed yet reverts later), so the next one carries out again what this one had begun.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.doctor.fix.actions import ActionId
from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import state_dir


class OpenStep(BaseModel):
    """One action that is not known to have ended, and the checks that it was to cure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: ActionId
    ids: tuple[str, ...]


class OpenFix(BaseModel):
    """One fix that began to change the pair and has not ended. steps: what is left; the first may be half done."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/fix/v1"] = Field(default="dspark-ops/fix/v1", alias="schema")
    site: str
    began_at: datetime
    steps: tuple[OpenStep, ...]


def path_of(site: str) -> Path:
    """Where the open fix of a site is kept. Not created here."""
    return state_dir() / "fixes-open" / f"{site}.json"


def write_open(fix: OpenFix) -> None:
    """Keep the fix, safe against a crash of this machine in the middle.

    Raises:
        NoVerdictError: it cannot be written; then nothing more may be changed.
    """
    path = path_of(fix.site)
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("w", encoding="utf-8") as out:
            out.write(fix.model_dump_json(indent=1, by_alias=True) + "\n")
            out.flush()
            os.fsync(out.fileno())
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as error:
        raise NoVerdictError(
            f"the fix cannot be recorded in {path}: {error.strerror or error}; nothing more was changed",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error


def read_open(site: str) -> OpenFix | None:
    """The fix that did not end, or None.

    Raises:
        NoVerdictError: there is a record and it cannot be read: what it began is not known.
    """
    path = path_of(site)
    try:
        return OpenFix.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise NoVerdictError(
            f"the record of an unfinished fix, {path}, cannot be read ({type(error).__name__})",
            hint="look with `dspark-ops doctor` and `dspark-ops bootstrap --check`; then remove that file",
        ) from error


def close_open(site: str) -> None:
    """The fix has ended; a second call changes nothing."""
    path_of(site).unlink(missing_ok=True)
