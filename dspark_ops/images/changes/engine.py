"""Apply and revert a stack of change sets: everything is computed first, then written as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .diff import apply_hunks
from .errors import ChangeError, DocumentError, Foreign, ForeignError
from .journal import Write, exclusive, undo_interrupted, write_all
from .model import ChangeSet, FileChange, sha256_hex
from .record import edit_record
from .state import State, added_paths, base_owned, hash_chains, look
from .tree import Release, observe

SCHEMA = "dspark-ops/changes-report/v1"


@dataclass(frozen=True)
class Result:
    """What a run did. `recovered`: files put back that an earlier, interrupted run had left changed."""

    before: State
    after: State
    changed: tuple[str, ...]
    recovered: tuple[str, ...]


def apply(root: Path, stack: Sequence[ChangeSet], *, upto: int | None = None) -> Result:
    """Bring the tree to level `upto` of the stack (default: all of it); a higher tree stays as it is.

    Raises:
        ForeignError: the tree is not one of the stack's levels; nothing is written.
        DocumentError: the stack does not fit together, or a patch does not fit its own hashes.
    """
    target = len(stack) if upto is None else upto
    return _move(root, stack, target, lambda level: target > level)


def revert(root: Path, stack: Sequence[ChangeSet], *, downto: int = 0) -> Result:
    """Bring the tree down to level `downto`; a lower tree stays as it is.

    Raises:
        ForeignError: the tree is not one of the stack's levels; nothing is written.
    """
    return _move(root, stack, downto, lambda level: downto < level)


def report(root: Path, stack: Sequence[ChangeSet], result: Result | None = None) -> dict[str, Any]:
    """One JSON document: the release, the level, every touched file's hash, and what a run changed."""
    state = look(root, stack)[0] if result is None else result.after
    release = state.release
    return {
        "schema": SCHEMA,
        "root": str(root),
        "state": state.kind,
        "level": state.level,
        "stack": list(state.stack),
        "applied": list(state.stack[: state.level or 0]),
        "release": None
        if release is None
        else {"distribution": release.distribution, "version": release.version, "commit": release.commit},
        "files": [{"path": path, "sha256": state.observed[path]} for path in sorted(state.observed)],
        "foreign": foreign_document(state.foreign),
        "changed": list(result.changed) if result else [],
        "recovered": list(result.recovered) if result else [],
    }


def foreign_document(foreign: Sequence[Foreign]) -> list[dict[str, Any]]:
    """The foreign files as a report has them."""
    return [{"path": one.path, "observed": one.observed, "expected": list(one.expected)} for one in foreign]


def _move(root: Path, stack: Sequence[ChangeSet], target: int, wanted: Callable[[int], bool]) -> Result:
    if not 0 <= target <= len(stack):
        raise ChangeError(f"level {target} was asked for, the stack has 0 to {len(stack)}")
    hash_chains(stack)  # a malformed stack touches nothing, not even what a dead run left
    with exclusive(root):
        recovered = undo_interrupted(root)
        before, contents = look(root, stack)
        if before.level is None or (stack and before.release is None):
            raise ForeignError(before.foreign)
        if not wanted(before.level):
            return Result(before, before, (), recovered)
        goal = _computed(stack, contents, before.level, target)
        writes = [Write(p, contents[p], goal[p]) for p in sorted(goal) if goal[p] != contents[p]]
        if before.release is not None:
            writes += _record_write(root, before.release, stack, writes)
        write_all(root, writes)
        after, _ = look(root, stack)
    return Result(before, after, tuple(write.path for write in writes), recovered)


def _computed(
    stack: Sequence[ChangeSet], contents: Mapping[str, bytes | None], level: int, target: int
) -> dict[str, bytes | None]:
    """Every touched file's content at the target level, each step proven by its hash."""
    goal = dict(contents)
    steps = stack[level:target] if target > level else tuple(reversed(stack[target:level]))
    for changes in steps:
        for change in changes.files:
            goal[change.path] = _step(change, goal[change.path], backwards=target < level)
    return goal


def _step(change: FileChange, content: bytes | None, *, backwards: bool) -> bytes | None:
    if change.patch is None:
        return None if backwards else change.content
    made = apply_hunks(change.path, change.hunks(), content or b"", backwards=backwards)
    expected = change.before if backwards else change.after
    if sha256_hex(made) != expected:
        raise DocumentError(f"{change.path}: the patch makes {sha256_hex(made)}, expected {expected}")
    return made


def _record_write(root: Path, release: Release, stack: Sequence[ChangeSet], writes: Sequence[Write]) -> list[Write]:
    owned = base_owned(stack)
    changed = {write.path: (write.before, write.after) for write in writes if write.path in owned}
    _, record = observe(root, release.record)
    if not changed or record is None:
        return []
    return [Write(release.record, record, edit_record(record, changed, owned & added_paths(stack)))]
