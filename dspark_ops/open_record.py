"""What is under way on a site, kept on the control host: written before its first change, gone when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dspark_ops.errors import NoVerdictError
from dspark_ops.paths import state_dir
from dspark_ops.whole_file import replace_file


class OpenRecord(BaseModel):
    """Something that began to change the pair of a site and has not ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    site: str
    began_at: datetime


Record = TypeVar("Record", bound=OpenRecord)


@dataclass(frozen=True)
class OpenRecords(Generic[Record]):
    """The records of one kind, one a site.

    folder: below the state directory. what: the kind, as a person calls it. unwritten: what is true when one cannot be
    written. look: what shows how the pair is when one cannot be read.
    """

    folder: str
    model: type[Record]
    what: str
    unwritten: str
    look: str

    def path_of(self, site: str) -> Path:
        """Where the record of a site is kept. Not created here."""
        return state_dir() / self.folder / f"{site}.json"

    def write(self, record: Record) -> None:
        """Keep it, safe against a crash of this machine in the middle.

        Raises:
            NoVerdictError: it cannot be written; then nothing more may be changed.
        """
        path = self.path_of(record.site)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, record.model_dump_json(indent=1, by_alias=True) + "\n")
        except OSError as error:
            raise NoVerdictError(
                f"the {self.what} cannot be recorded in {path}: {error.strerror or error}; {self.unwritten}",
                hint="make the directory writable, or set XDG_STATE_HOME",
            ) from error

    def read(self, site: str) -> Record | None:
        """What has not ended, or None.

        Raises:
            NoVerdictError: there is a record and it cannot be read: what it began is not known.
        """
        path = self.path_of(site)
        try:
            return self.model.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise NoVerdictError(
                f"the record of an unfinished {self.what}, {path}, cannot be read ({type(error).__name__})",
                hint=f"{self.look}; then remove that file",
            ) from error

    def close(self, site: str) -> None:
        """It has ended; a second call changes nothing."""
        self.path_of(site).unlink(missing_ok=True)
