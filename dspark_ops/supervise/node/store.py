"""The daemon's memory on disk: whole or not at all, with a checksum and the copy before it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspark_ops.supervise.node.strict import DocumentError, parse_object

SCHEMA = "dspark-ops/supervise-state/v1"
_LARGEST = 4 << 20


@dataclass(frozen=True)
class Loaded:
    """What was on disk. document: None when nothing usable was. problem: why the last state cannot be trusted.

    A file that is damaged is never guessed around: the document is then the copy before it, or None, and the caller
    latches with the problem as its reason.
    """

    document: dict[str, Any] | None
    problem: str | None = None


class Store:
    """One state file. `save` never raises for a disk that is full or gone: it says so, and the old file stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._previous = path.with_name(path.name + ".previous")
        self._saved = ""
        #: Why the last save failed, None when it did not.
        self.problem: str | None = None

    def load(self) -> Loaded:
        """Read the state, and the copy before it when the state is damaged."""
        try:
            return Loaded(_read(self._path))
        except FileNotFoundError:
            if not self._previous.exists():
                return Loaded(None)
            problem = f"{self._path} is gone but {self._previous.name} is there"
        except (OSError, DocumentError) as error:
            problem = f"{self._path} cannot be trusted: {error}"
        try:
            return Loaded(_read(self._previous), problem)
        except (OSError, DocumentError) as error:
            return Loaded(None, f"{problem}; nor can the copy before it: {error}")

    def save(self, document: dict[str, Any]) -> bool:
        """Write the state down to the disk; False when it could not be, and `problem` says why.

        An unchanged document is not written again.
        """
        body = _canonical(document)
        if body == self._saved and self.problem is None:
            return True
        text = f'{{"schema":"{SCHEMA}","sha256":"{_digest(body)}","state":{body}}}\n'
        try:
            self._write(text)
        except OSError as error:
            self.problem = f"{self._path} could not be written: {error.strerror or error}; the state is kept in memory"
            return False
        self.problem, self._saved = None, body
        return True

    def _write(self, text: str) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        # What a killed writer left is overwritten: there is one writer, the holder of the lock.
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            self._keep_previous()
            fresh.replace(self._path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()  # the room it took may be all that is left
            raise
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _keep_previous(self) -> None:
        """A second name for the present file: there is no moment without a whole state under one of the names."""
        link = self._previous.with_name(self._previous.name + ".new")
        with suppress(FileNotFoundError):
            link.unlink()
        with suppress(FileNotFoundError):
            os.link(self._path, link)
            link.replace(self._previous)


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as source:
        raw = source.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise DocumentError(f"it is larger than {_LARGEST} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8: {error}") from None
    document = parse_object(text, "it")
    if document.get("schema") != SCHEMA:
        raise DocumentError(f"its schema is {document.get('schema')!r}, expected {SCHEMA!r}")
    state = document.get("state")
    if not isinstance(state, dict):
        raise DocumentError("it has no state")
    if document.get("sha256") != _digest(_canonical(state)):
        raise DocumentError("its checksum does not fit its content")
    return state


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()
