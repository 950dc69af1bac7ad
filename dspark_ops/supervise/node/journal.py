"""What the daemon decided and did, as lines of JSON in a file that stays bounded, and on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

_LARGEST = 1 << 20


class Journal:
    """Appends lines; at 1 MiB the file becomes `.1` and a new one begins. A disk that is full loses lines, not work."""

    def __init__(self, path: Path, *, largest: int = _LARGEST) -> None:
        self._path = path
        self._largest = largest
        #: The last lines, for `explain`.
        self.recent: deque[dict[str, Any]] = deque(maxlen=50)
        #: Why the last line could not be written, None when it could.
        self.problem: str | None = None

    def write(self, kind: str, at: float, **fields: Any) -> None:
        """One line. at: seconds since the epoch."""
        entry = {"kind": kind, "at": round(at, 3), **fields}
        self.recent.append(entry)
        line = json.dumps(entry, sort_keys=True)
        with suppress(OSError):  # nobody reads it any more
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - journald keeps it
        try:
            self._append(line + "\n")
            self.problem = None
        except OSError as error:
            self.problem = f"{self._path} could not be written: {error.strerror or error}"

    def _append(self, line: str) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            os.write(handle, line.encode())
        finally:
            os.close(handle)
        if size > self._largest:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
