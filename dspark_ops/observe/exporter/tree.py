"""Reading the kernel's trees below a root: "/" on a node, a recorded tree elsewhere. What cannot be read is None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Tree:
    """A root directory. Paths are absolute, as on the node."""

    root: Path

    def path(self, path: str) -> Path:
        """Where a path of the node is."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | None:
        """The content of a file without its last line end; None when it is not there or refuses to be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(_MAX_BYTES).decode("utf-8", "replace").rstrip("\n")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file that holds one whole number; a sign is allowed, everything else is not a number."""
        return whole(self.text(path))

    def names(self, path: str) -> list[str] | None:
        """The entries of a directory, sorted; None when there is no such directory."""
        try:
            return sorted(entry.name for entry in self.path(path).iterdir())
        except OSError:
            return None

    def last_of_link(self, path: str) -> str | None:
        """The last component of a symbolic link's target, or None."""
        try:
            return self.path(path).readlink().name
        except OSError:
            return None


def whole(text: str | None) -> int | None:
    """A whole number of at most 20 digits; None for anything else."""
    found = re.fullmatch(r"\s*(-?\d{1,20})\s*", text or "", re.ASCII)
    return int(found[1]) if found else None
