"""Is an installed release whole? Every file that its RECORD lists, against its hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .diff import apply_hunks
from .errors import Foreign, ForeignError
from .model import ChangeSet, sha256_hex
from .record import edit_record, parse_record
from .state import added_paths, base_owned, look
from .tree import Release, find_release, observe


@dataclass(frozen=True)
class ReleaseCheck:
    """`checked` counts the files hashed. `record_sha256` is RECORD's own, as it was before any stage.

    `python_digest` is over the paths and hashes of the release's `.py` files as that RECORD lists them: pip writes
    RECORD anew when it installs, this stays the same.
    """

    release: Release | None
    checked: int
    record_sha256: str | None
    foreign: tuple[Foreign, ...]
    python_digest: str | None = None


def verify_release(
    root: Path,
    distribution: str,
    version: str,
    record_sha256: str | None = None,
    *,
    stack: Sequence[ChangeSet] = (),
    every_file: bool = False,
) -> ReleaseCheck:
    """Compare the release's files with its RECORD: the `.py` files, or every file that lies below root.

    Files that the stack changed are compared with what the stack makes of them; RECORD is compared with
    `record_sha256`, where given, after the stack's lines have been taken back.
    """
    try:
        release = find_release(root, distribution, version)
    except ForeignError as other:
        return ReleaseCheck(None, 0, None, other.foreign)
    state, contents = look(root, stack)
    foreign = list(state.foreign)
    if state.interrupted:
        foreign.append(Foreign(str(root), "a change that was interrupted", ("a finished change",)))
    record = observe(root, release.record)[1] or b""
    pristine = record
    if state.level:
        pristine = _taken_back(stack[: state.level], contents, record)
    observed_record = sha256_hex(pristine)
    if record_sha256 is not None and observed_record != record_sha256:
        foreign.append(Foreign(release.record, observed_record, (record_sha256,)))
    checked = 0
    try:
        entries = parse_record(record)
    except ValueError:
        foreign.append(Foreign(release.record, observed_record, ("a readable RECORD",)))
        entries = {}
    named = {one.path for one in foreign}
    for path, (expected, _) in entries.items():
        outside = path.startswith(("/", "../"))
        if expected is None or outside or path in named or not (every_file or path.endswith(".py")):
            continue
        checked += 1
        observed, _ = observe(root, path)
        if observed != expected:
            foreign.append(Foreign(path, observed, (expected,)))
    return ReleaseCheck(release, checked, observed_record, tuple(foreign), _python_digest(pristine))


def _python_digest(record: bytes) -> str | None:
    try:
        entries = parse_record(record)
    except ValueError:
        return None
    own = {p: sha256 for p, (sha256, _) in entries.items() if p.endswith(".py") and not p.startswith(("/", "../"))}
    return sha256_hex("".join(f"{path} {own[path]}\n" for path in sorted(own)).encode())


def _taken_back(applied: Sequence[ChangeSet], contents: dict[str, bytes | None], record: bytes) -> bytes:
    old = dict(contents)
    for changes in reversed(applied):
        for change in changes.files:
            if change.patch is None:
                old[change.path] = None
            else:
                old[change.path] = apply_hunks(change.path, change.hunks(), old[change.path] or b"", backwards=True)
    owned = base_owned(applied)
    changed = {path: (contents[path], old[path]) for path in owned}
    return edit_record(record, changed, owned & added_paths(applied))
