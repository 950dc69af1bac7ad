"""The change engine: ordered change sets on an installed release, told apart by hash, all or nothing, reversible.

Standard library and relative imports only: this directory is copied into the image build and runs there as a package of
its own (`python3 -m changes`, Python 3.10 or newer). Its errors are its own for the same reason.
"""

from __future__ import annotations

from .distribution import with_record
from .engine import Result, apply, report, revert
from .errors import ChangeError, DocumentError, Foreign, ForeignError
from .model import DOCUMENT, SCHEMA, ChangeSet, FileChange, load_change_set
from .release import ReleaseCheck, verify_release
from .state import State, inspect

__all__ = [
    "DOCUMENT",
    "SCHEMA",
    "ChangeError",
    "ChangeSet",
    "DocumentError",
    "FileChange",
    "Foreign",
    "ForeignError",
    "ReleaseCheck",
    "Result",
    "State",
    "apply",
    "inspect",
    "load_change_set",
    "report",
    "revert",
    "verify_release",
    "with_record",
]
