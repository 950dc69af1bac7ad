"""Writing many files as one: a journal first, then one rename a file; what was interrupted is undone by the next run.

The journal holds every file's content before and after. A file is therefore old or new at any instant, never partial,
and a run that dies between two renames leaves what undoes it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import ChangeError, Foreign, ForeignError
from .model import check_path, sha256_hex
from .tree import observe

JOURNAL = ".dspark-changes.journal"
SCHEMA = "dspark-ops/changes-journal/v1"


@dataclass(frozen=True)
class Write:
    """One file's content before and after; None: the file is absent then."""

    path: str
    before: bytes | None
    after: bytes | None


def is_interrupted(root: Path) -> bool:
    """Whether an earlier run died in the middle."""
    return (root / JOURNAL).exists()


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One writer at a time; others wait. The lock is on the root itself and leaves nothing behind."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_all(root: Path, writes: Sequence[Write]) -> None:
    """Make every file what `after` says, or none; to be called under `exclusive`, on a tree without a journal.

    Raises:
        OSError: a write failed; the tree is what it was.
        ChangeError: a write failed and putting back failed as well; the next run tries again from the journal.
    """
    if not writes:
        return
    try:
        _write_journal(root, writes)
        for write in writes:
            if write.after is not None:
                _stage(root, write.path, write.after)
        for write in writes:
            _put(root, write.path, write.after)
        _finish(root, writes)
    except (Exception, KeyboardInterrupt) as failed:
        try:
            undo_interrupted(root)
        except (OSError, ChangeError) as again:
            raise ChangeError(
                f"writing failed ({failed}) and putting back failed ({again}); {root / JOURNAL} holds what is needed, "
                "run the same command again"
            ) from failed
        raise


def undo_interrupted(root: Path) -> tuple[str, ...]:
    """Put back what an earlier run left half-done; the paths put back. To be called under `exclusive`.

    Raises:
        ForeignError: a file is now neither what it was nor what the run made of it; nothing is written then.
    """
    (root / f"{JOURNAL}.new").unlink(missing_ok=True)
    if not is_interrupted(root):
        return ()
    writes = _read_journal(root)
    foreign, changed = [], []
    for write in writes:
        observed, _ = observe(root, write.path)
        before, after = (None if c is None else sha256_hex(c) for c in (write.before, write.after))
        if observed == before:
            continue
        if observed != after:
            foreign.append(Foreign(write.path, observed, (before, after)))
        changed.append(write)
    if foreign:
        raise ForeignError(foreign)
    for write in writes:
        _temporary(root, write.path).unlink(missing_ok=True)
    for write in reversed(changed):
        if write.before is not None:
            _stage(root, write.path, write.before)
        _put(root, write.path, write.before)
    _finish(root, [Write(write.path, write.after, write.before) for write in writes])
    return tuple(write.path for write in changed)


def _write_journal(root: Path, writes: Sequence[Write]) -> None:
    entries = [{"path": w.path, "before": _encoded(w.before), "after": _encoded(w.after)} for w in writes]
    text = json.dumps({"schema": SCHEMA, "writes": entries})
    fresh = root / f"{JOURNAL}.new"
    _write_synced(fresh, text.encode(), 0o600)
    fresh.replace(root / JOURNAL)
    _sync_directory(root)


def _read_journal(root: Path) -> list[Write]:
    try:
        data = json.loads((root / JOURNAL).read_bytes())
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, expected {SCHEMA!r}")
        return [Write(check_path(e["path"]), _decoded(e["before"]), _decoded(e["after"])) for e in data["writes"]]
    except (ValueError, KeyError, TypeError) as broken:
        raise ChangeError(f"{root / JOURNAL} cannot be read as a journal: {broken}") from broken


def _stage(root: Path, path: str, content: bytes) -> None:
    """The new content beside the file, on the disk, with the file's own mode."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        about = target.stat()
    except FileNotFoundError:
        _write_synced(_temporary(root, path), content, 0o644)
        return
    temporary = _temporary(root, path)
    _write_synced(temporary, content, about.st_mode & 0o7777)
    if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(temporary, about.st_uid, about.st_gid)


def _put(root: Path, path: str, content: bytes | None) -> None:
    if content is None:
        (root / path).unlink(missing_ok=True)
    else:
        _temporary(root, path).replace(root / path)


def _finish(root: Path, writes: Sequence[Write]) -> None:
    """Compiled files of what changed go, and directories that are empty now; then the journal: from here it is done."""
    parents = {(root / write.path).parent for write in writes}
    for write in writes:
        _drop_compiled(root / write.path)
    for write in writes:
        if write.after is None:
            _drop_empty(root, write.path)
    for parent in sorted(parents):
        if parent.is_dir():
            _sync_directory(parent)
    (root / JOURNAL).unlink()
    _sync_directory(root)


def _drop_compiled(source: Path) -> None:
    if source.suffix == ".py":
        for stale in (source.parent / "__pycache__").glob(f"{_literal(source.stem)}.*.pyc"):
            stale.unlink()


def _drop_empty(root: Path, path: str) -> None:
    for parent in PurePosixPath(path).parents:
        place = root / parent
        if place == root:
            return
        with contextlib.suppress(OSError):
            (place / "__pycache__").rmdir()
        try:
            place.rmdir()
        except OSError:
            return


def _temporary(root: Path, path: str) -> Path:
    # A digest, not the name: that may be as long as a name can be.
    return (root / path).parent / f".dspark-{sha256_hex(path.encode())[:16]}.new"


def _write_synced(target: Path, content: bytes, mode: int) -> None:
    # A leftover may be a link that somebody planted: it is replaced, never followed.
    target.unlink(missing_ok=True)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
        out.flush()
        os.fchmod(out.fileno(), mode)
        os.fsync(out.fileno())


def _sync_directory(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _encoded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
