"""A stack that brings a distribution of its own: its RECORD, level by level, for an honest installed tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .diff import make_patch
from .errors import DocumentError
from .model import ChangeSet, FileChange, sha256_hex
from .record import new_record

_METADATA = ".dist-info/METADATA"


def with_record(stack: Sequence[ChangeSet]) -> tuple[ChangeSet, ...]:
    """The stack, with the RECORD of the distribution it brings; unchanged where it brings none.

    Every file that the stack adds is taken for a file of that distribution.

    Raises:
        DocumentError: it brings two, or carries a RECORD itself.
    """
    added = [change for changes in stack for change in changes.files if change.content is not None]
    infos = [change.path.removesuffix("/METADATA") for change in added if change.path.endswith(_METADATA)]
    if not infos:
        return tuple(stack)
    if len(infos) > 1:
        raise DocumentError(f"the stack brings more than one distribution: {', '.join(sorted(infos))}")
    path = f"{infos[0]}/RECORD"
    first = next(changes for changes in stack if any(change.content is not None for change in changes.files))
    if not any(change.path.endswith(_METADATA) for change in first.files):
        raise DocumentError(f"{first.name} adds files before {infos[0]}, to which they belong")
    completed: list[ChangeSet] = []
    files: dict[str, bytes] = {}
    record: bytes | None = None
    for changes in stack:
        if any(change.path == path for change in changes.files):
            raise DocumentError(f"{changes.name} carries {path}, which is made from its files")
        fresh = {change.path: change.content for change in changes.files if change.content is not None}
        files.update(fresh)
        if not fresh:
            completed.append(changes)
            continue
        made = new_record(path, files)
        completed.append(replace(changes, files=(*changes.files, _record_change(path, record, made))))
        record = made
    return tuple(completed)


def _record_change(path: str, before: bytes | None, after: bytes) -> FileChange:
    if before is None:
        return FileChange(path, None, sha256_hex(after), content=after)
    return FileChange(path, sha256_hex(before), sha256_hex(after), patch=make_patch(path, before, after))
