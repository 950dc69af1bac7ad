"""The folder of one run: a line for each thing that happened, written whole as it happens, and the verdict at the end.

`run.jsonl` is readable after the process was killed at any moment: each line goes to the file in one write, and a
reader leaves out a last line that has no end. What is written has its secrets removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dspark_ops.errors import ConfigError, NoVerdictError
from dspark_ops.evidence.redaction import Redactor

FILE = "run.jsonl"
# A stored request or answer longer than this is cut: enough for every prompt but those near the window's end.
_MOST_CHARS = 4_000_000


class RunFolder:
    """Writes one run. Strings pass a redactor on their way; keys and numbers are our own."""

    def __init__(self, path: Path, redactor: Redactor | None = None) -> None:
        self.path = path
        self._redactor = redactor or Redactor()
        self._handle: int | None = None

    def open(self) -> None:
        """Make the folder, for its owner alone. A run that is there already is added to.

        Raises:
            ConfigError: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._handle = os.open(self.path / FILE, flags, 0o600)
            _end_open_line(self._handle, self.path / FILE)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror or error}", hint="name --out") from error

    def learn(self, secret: str) -> None:
        """Hide this wherever it stands."""
        self._redactor.learn_secret("API key", secret)

    def write(self, record: str, **values: Any) -> None:
        """One line. Raises NoVerdictError when the disk does not take it: without its record a run is worth nothing."""
        line = json.dumps({"record": record, **self.clean(values)}, ensure_ascii=False, default=str) + "\n"
        data = line.encode("utf-8", "replace")
        if self._handle is None:
            raise NoVerdictError(f"{self.path} is not open")
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            raise NoVerdictError(f"{self.path / FILE} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Down to the disk; a second call changes nothing."""
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    def clean(self, value: Any) -> Any:
        """The same document with its secrets removed from every string."""
        if isinstance(value, str):
            return self._redactor.text(value[:_MOST_CHARS])
        if isinstance(value, Mapping):
            return {key: self.clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(item) for item in value]
        return value


def read_run(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run. path: its folder. A last line without an end is left out: the run was killed there.

    Raises:
        ConfigError: there is no run, or a line in the middle is none of ours.
    """
    try:
        # A kill may fall into the middle of a letter; that line is left out, not the whole run.
        text = (path / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} holds no run that can be read: {error}", hint="name the folder of a run") from error
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and "record" in entry:
            yield entry
        elif number < len(lines) - 1 and not line.startswith("{"):
            raise ConfigError(f"{path / FILE}:{number} is no record of a run")


def _end_open_line(handle: int, path: Path) -> None:
    """Close the line in which an earlier process was killed, so that the next one begins at a beginning."""
    with path.open("rb") as was:
        size = was.seek(0, os.SEEK_END)
        if size == 0:
            return
        was.seek(size - 1)
        if was.read(1) != b"\n":
            os.write(handle, b"\n")
