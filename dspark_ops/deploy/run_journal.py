"""The run that is under way: written before the first change, gone when the run has ended one way or the other.

What it keeps is what the nodes cannot tell the next run after a killed one: what served before, and under which run id
tenants were asked to leave. Everything else is read from the nodes (docs/adr/0008).
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import state_dir


class OpenRun(BaseModel):
    """One run that began to change the pair and has not ended.

    run: the id that evictions are recorded under on the nodes; a run that goes on after a killed one keeps it.
    release: what it brings. before: what served when the first of these runs began; None when nothing did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["dspark-ops/run/v1"] = Field(default="dspark-ops/run/v1", alias="schema")
    run: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    site: str
    verb: str
    release: str
    before: str | None
    began_at: datetime


def path_of(site: str) -> Path:
    """Where the open run of a site is kept. Not created here."""
    return state_dir() / "runs-open" / f"{site}.json"


def write_open(run: OpenRun) -> None:
    """Keep the run, safe against a crash of this machine in the middle.

    Raises:
        NoVerdictError: it cannot be written; then nothing may be changed.
    """
    path = path_of(run.site)
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("w", encoding="utf-8") as out:
            out.write(run.model_dump_json(indent=1, by_alias=True) + "\n")
            out.flush()
            os.fsync(out.fileno())
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as error:
        raise NoVerdictError(
            f"the run cannot be recorded in {path}: {error.strerror or error}; nothing was changed",
            hint="make the directory writable, or set XDG_STATE_HOME",
        ) from error


def read_open(site: str) -> OpenRun | None:
    """The run that did not end, or None.

    Raises:
        NoVerdictError: there is a record and it cannot be read: what it began is not known.
    """
    path = path_of(site)
    try:
        return OpenRun.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise NoVerdictError(
            f"the record of an unfinished run, {path}, cannot be read ({type(error).__name__})",
            hint="`dspark-ops status` and `dspark-ops tenants restore --check` show the pair; then remove that file",
        ) from error


def close_open(site: str) -> None:
    """The run has ended; a second call changes nothing."""
    path_of(site).unlink(missing_ok=True)
