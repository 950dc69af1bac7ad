"""At which level of a stack of change sets a tree is: decided by hash alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .diff import apply_hunks
from .errors import DocumentError, Foreign, ForeignError
from .journal import is_interrupted
from .model import ChangeSet, check_stack, sha256_hex
from .record import parse_record
from .tree import Release, find_release, observe


@dataclass(frozen=True)
class State:
    """What a tree is. `level`: how many sets of the stack stand in it; None when foreign or interrupted."""

    level: int | None
    stack: tuple[str, ...]
    foreign: tuple[Foreign, ...]
    interrupted: bool
    release: Release | None
    observed: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """pristine, level, foreign or interrupted."""
        if self.interrupted:
            return "interrupted"
        if self.level is None:
            return "foreign"
        return "level" if self.level else "pristine"


def inspect(root: Path, stack: Sequence[ChangeSet]) -> State:
    """The state of the tree below root; reads only.

    Raises:
        DocumentError: the sets of the stack do not fit each other.
    """
    return look(root, stack)[0]


def look(root: Path, stack: Sequence[ChangeSet]) -> tuple[State, dict[str, bytes | None]]:
    """The state, and the content of every file that the stack touches."""
    chains = hash_chains(stack)
    names = tuple(changes.name for changes in stack)
    if is_interrupted(root):
        return State(None, names, (), True, None), {}
    seen = {path: observe(root, path) for path in chains}
    hashes = {path: observed for path, (observed, _) in seen.items()}
    foreign: list[Foreign] = []
    release: Release | None = None
    if stack:
        try:
            release = find_release(root, stack[0].distribution, stack[0].version)
        except ForeignError as other:
            foreign += other.foreign
    levels = range(len(stack) + 1)
    fits = [sum(hashes[path] == chain[level] for path, chain in chains.items()) for level in levels]
    level = max(levels, key=lambda n: fits[n])  # the lowest of equals
    foreign += _differing(chains, hashes, level)
    if not foreign and release is not None:
        foreign += _record_differs(root, release, stack, {path: chain[level] for path, chain in chains.items()})
    state = State(None if foreign else level, names, tuple(foreign), False, release, hashes)
    return state, {path: content for path, (_, content) in seen.items()}


def hash_chains(stack: Sequence[ChangeSet]) -> dict[str, list[str | None]]:
    """For each touched file its hash at level 0, 1, … of the stack.

    Raises:
        DocumentError: the stack does not fit together, or two of its levels look the same.
    """
    check_stack(stack)
    chains: dict[str, list[str | None]] = {}
    for number, changes in enumerate(stack):
        for change in changes.files:
            chains.setdefault(change.path, [change.before] * (number + 1))
        after = {change.path: change.after for change in changes.files}
        for path, chain in chains.items():
            chain.append(after.get(path, chain[-1]))
    looks = {tuple(chain[level] for chain in chains.values()) for level in range(len(stack) + 1)}
    if len(looks) != len(stack) + 1:
        raise DocumentError("two levels of the stack leave the same files; they cannot be told apart")
    return chains


def added_paths(stack: Sequence[ChangeSet]) -> set[str]:
    """The touched files that the release does not have."""
    return {path for path, chain in hash_chains(stack).items() if chain[0] is None}


def base_owned(stack: Sequence[ChangeSet]) -> set[str]:
    """The touched files that the release's RECORD must list; not those of a distribution that the stack brings."""
    touched = {change.path for changes in stack for change in changes.files}
    brought: set[str] = set()
    records: dict[str, bytes] = {}
    for changes in stack:
        for change in changes.files:
            if not change.path.endswith(".dist-info/RECORD"):
                continue
            if change.content is not None:
                records[change.path] = change.content
            else:
                records[change.path] = apply_hunks(change.path, change.hunks(), records[change.path])
            brought |= set(parse_record(records[change.path]))
    return touched - brought


def _differing(chains: Mapping[str, list[str | None]], hashes: Mapping[str, str | None], level: int) -> list[Foreign]:
    found = []
    for path, chain in chains.items():
        observed = hashes[path]
        if observed != chain[level]:
            known = tuple(dict.fromkeys(chain))
            # A hash of another level is foreign beside the others: the tree is a mixture.
            found.append(Foreign(path, observed, (chain[level],) if observed in known else known))
    return found


def _record_differs(
    root: Path, release: Release, stack: Sequence[ChangeSet], expected: Mapping[str, str | None]
) -> list[Foreign]:
    _, content = observe(root, release.record)
    try:
        entries = parse_record(content or b"")
    except ValueError:
        return [Foreign(release.record, sha256_hex(content or b""), ("a readable RECORD",))]
    found = []
    for path in sorted(base_owned(stack)):
        observed = entries[path][0] if path in entries else None
        if observed != expected[path]:
            found.append(Foreign(f"{release.record} (line of {path})", observed, (expected[path],)))
    return found
