"""What the engine refuses. Nothing has been written when one of these is raised, or all of it was put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A file that is not what any level of the stack makes it. A hash of None: the file is absent."""

    path: str
    observed: str | None
    expected: tuple[str | None, ...]

    def __str__(self) -> str:
        wanted = " or ".join(_short(value) for value in self.expected)
        return f"{self.path}: observed {_short(self.observed)}, expected {wanted or 'nothing'}"


class ChangeError(Exception):
    """Base of the engine's errors."""


class DocumentError(ChangeError):
    """A change set is malformed, its parts are absent, or the sets of a stack do not fit each other."""


class ForeignError(ChangeError):
    """The tree is not one that the stack knows; every foreign file is named."""

    def __init__(self, foreign: Sequence[Foreign]) -> None:
        super().__init__("foreign tree, nothing was written: " + "; ".join(str(one) for one in foreign))
        self.foreign = tuple(foreign)


def _short(value: str | None) -> str:
    if value is None:
        return "no file"
    return f"sha256 {value[:12]}" if len(value) == 64 and " " not in value else value
